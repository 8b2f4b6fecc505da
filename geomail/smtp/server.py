"""The server's half of an SMTP conversation (RFC 5321), as tables, without socket, clock or chance.

Bytes go in by `receive`, bytes come out by `output`. What only the outside can do comes out as an
event, and the conversation stands still until it is done: after `Mail` until `answer`, after
`TlsWanted` until `tls_started`. So a door can say 250 when the mail is safe, and not before. What
has arrived meanwhile is read then, replies keep their order, and those of a pipelined group come
out in one `output`. With `postpone` several mails of one group are brought to safety together: the
conversation goes on, and nothing comes out until `give_postponed` has said what became of them.

A conversation is always in one Phase (geomail.smtp.phases). READERS says how a phase reads: by
commands, by login lines, as content, by octets, or not at all. COMMANDS says which verbs a phase
knows. However the bytes are split, the conversation is the same; only for bytes sent ahead where
that is forbidden (behind STARTTLS, or without PIPELINING) it depends on the split whether they are
noticed. They are never run.

Promised: content ends at CRLF.CRLF only, or with the last octet of the last chunk, and with a bare
CR or LF in it is refused (smuggling). The octets of a refused chunk are swallowed, and never run
unless the Policy asks for that; a chunk of unknown size ends the connection. A line is kept up to
LINE_LIMIT, content up to 4/3 of max_size, its longest stuffed form; the rest is swallowed and
answered with 500 or 552. Addresses come out without control characters. Not promised: limits on
time. Those are for the owner of the socket, who also stops reading while an event is not dealt
with.
"""

from collections.abc import Sequence

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp import answers
from geomail.smtp.answers import Answer
from geomail.smtp.chunks import ChunkReader, read_bdat
from geomail.smtp.data import DataReader, has_bare_newline, unstuff_lines
from geomail.smtp.dialogue import LINE_LIMIT
from geomail.smtp.introduction import Introduction, TlsWanted
from geomail.smtp.parameters import dsn_of
from geomail.smtp.paths import Parameters, read_mail, read_rcpt
from geomail.smtp.phases import ALLOWED, NOT_IMPLEMENTED, OUT_OF_PLACE, Phase
from geomail.smtp.policy import Check, Policy


class Mail(msgspec.Struct, frozen=True):
    """A whole message: its envelope ("" = null sender) and its content.

    The lines of the content end in CRLF; by BDAT (`is_chunked`) it is what came, byte for byte.
    `dsn` is what MAIL and each RCPT said of delivery reports (RFC 3461), () when none did.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    smtputf8: bool
    dsn: tuple[str, ...] = ()
    is_chunked: bool = False


Event = Mail | TlsWanted


class Server(Introduction):
    """One conversation: `receive` bytes, deal with the events, write `output`, until `is_closed`.

    `recipients` are those of the transaction so far; what is known of the client: Introduction.
    """

    def __init__(self, policy: Policy, *, is_encrypted: bool = False) -> None:
        super().__init__(policy, is_encrypted=is_encrypted)
        self._mails = 0
        self._commands = 0
        self._unknown = 0
        self._octets = 0
        self._data_reader = DataReader(policy.max_size)
        self._chunks = ChunkReader(policy.max_size)
        self._after_chunk = (Phase.NEW, answers.OK)
        self._events: list[Event] = []
        self._places: list[int] = []
        self._forget_mail()

    @property
    def octets(self) -> int:
        """Return how much of the content has come that isn't whole yet."""
        return self._octets if self.phase is Phase.CONTENT else self._chunks.came

    @property
    def kept(self) -> int:
        """Return how many octets of content are kept in memory."""
        return self._data_reader.kept + self._chunks.kept

    def receive(self, data: bytes) -> list[Event]:
        """Go on with `data`; return what happened. Only the last event can wait for us."""
        self._buffer = self._buffer + data if self._buffer else data
        return self._go_on()

    def answer(self, answer: Answer) -> list[Event]:
        """Give the final reply to a Mail, go on with what has come since; return as `receive`."""
        self._expect(Phase.ANSWER, "answer")
        self.phase = self._resting_phase()
        self._say(answer)
        return self._go_on()

    def postpone(self) -> list[Event]:
        """Keep a place for the final reply to a Mail, and go on; return as `receive`."""
        self._expect(Phase.ANSWER, "postpone")
        self.phase = self._resting_phase()
        self._places.append(len(self._out))
        self._out.append(b"")
        return self._go_on()

    def give_postponed(self, replies: Sequence[Answer]) -> None:
        """Give the final replies to all Mails that were postponed, in their order."""
        for place, reply in zip(self._places, replies, strict=True):
            self._out[place] = self._form(reply)
        self._places.clear()

    def close(self, last: Answer | None = None) -> None:
        """End the conversation, with `last` as its last reply; drop what had come of a mail."""
        super().close(last)
        self._data_reader.forget()
        self._forget_mail()

    def output(self) -> bytes:
        """Return the bytes to be written, once."""
        if self._places:
            raise ProtocolError(f"{len(self._places)} mails were postponed and have no reply yet")
        return super().output()

    def _go_on(self) -> list[Event]:
        if not self._policy.pipelining:
            return self._go_on_in_turns()
        while (read := READERS.get(self.phase)) and read(self):
            pass
        return self._pause()

    def _go_on_in_turns(self) -> list[Event]:
        """Go on one reply a time, hang up on a client that doesn't wait for it (as OpenSMTPD)."""
        while (read := READERS.get(self.phase)) and not self._out and read(self):
            pass
        if self._out and self._rest() and self.phase not in (Phase.ANSWER, Phase.CLOSED):
            self.close(answers.TOO_EARLY)
        return self._pause()

    def _pause(self) -> list[Event]:
        if self._position:
            self._buffer = self._buffer[self._position :]
            self._position = 0
        events, self._events = self._events, []
        return events

    def _tls_wanted(self) -> None:
        self._events.append(TlsWanted())

    def _forget_mail(self) -> None:
        self._chunks.forget()
        self._forget_envelope()

    def _forget_envelope(self) -> None:
        self._sender = ""
        self._utf8 = False
        self._dsn: dict[int, str] = {}
        self.recipients: list[str] = []

    # Lines

    def _read_command(self) -> bool:
        # As _line, without the call: 0.3 us for the commands of a mail.
        start = self._position
        end = self._buffer.find(b"\r\n", start)
        if end < 0:
            self._keep_short()
            return False
        self._position = end + 2
        verb, _, argument = self._buffer[start:end].partition(b" ")
        commands = COMMANDS[self.phase]
        command = commands.get(verb) or commands.get(verb.upper())
        self._commands += 1
        if self._commands > self._policy.max_commands:
            self.close(answers.TOO_MANY_COMMANDS)
        elif end - start > LINE_LIMIT:
            self._say(answers.TOO_LONG)
        elif command:
            command(self, argument)
        else:
            self._object(verb.upper())
        return True

    def _object(self, verb: bytes) -> None:
        self._say(self._objection(verb))
        self._unknown += verb not in VERBS and verb not in NOT_IMPLEMENTED
        if self._unknown >= self._policy.max_unknown:
            self.close(answers.NOT_SMTP)

    def _objection(self, verb: bytes) -> Answer:
        """Return what a verb is told that this phase doesn't know."""
        if verb in NOT_IMPLEMENTED:
            return answers.NOT_IMPLEMENTED
        if verb not in VERBS:
            return answers.UNKNOWN
        if self.phase is Phase.MAIL and verb in (b"DATA", b"BDAT"):
            return answers.NO_RECIPIENTS
        return OUT_OF_PLACE.get(self.phase, answers.BAD_SEQUENCE)

    def _mail(self, argument: bytes) -> None:
        found = read_mail(argument)
        if not found:
            self._say(answers.MAIL_SYNTAX)
        elif self._mails == self._policy.max_mails:
            self.close(answers.TOO_MANY_MAILS)
        else:
            self._transaction(*found)

    def _transaction(self, sender: str | None, parameters: Parameters) -> None:
        self._utf8 = (b"SMTPUTF8", b"") in parameters
        refusal = parameters and self._policy.refuse_mail(parameters)
        refusal = refusal or self._refusal(sender, self._policy.check_sender, answers.BAD_SENDER)
        if sender is not None and not refusal:
            self._sender = sender
            if parameters and (dsn := dsn_of(parameters)):
                self._dsn[0] = dsn
            self._mails += 1
            self.phase = Phase.MAIL
        self._say(refusal or answers.SENDER_OK)

    def _refusal(self, address: str | None, check: Check | None, bad: Answer) -> Answer | None:
        if address is None:
            return bad
        if not self._utf8 and not address.isascii():
            return answers.NEEDS_SMTPUTF8
        return check(address) if check else None

    def _rcpt(self, argument: bytes) -> None:
        found = read_rcpt(argument)
        if found:
            self._recipient(*found)
        else:
            self._say(answers.RCPT_SYNTAX)

    def _recipient(self, address: str | None, parameters: Parameters) -> None:
        refusal = parameters and self._policy.refuse_rcpt(parameters)
        refusal = refusal or self._refusal(
            address, self._policy.check_recipient, answers.BAD_RECIPIENT
        )
        if not refusal and len(self.recipients) >= self._policy.max_recipients:
            refusal = answers.TOO_MANY_RECIPIENTS
        if address and not refusal:
            self.recipients.append(address)
            if parameters and (dsn := dsn_of(parameters)):
                self._dsn[len(self.recipients)] = dsn
            self.phase = Phase.RCPT
        self._say(refusal or answers.RECIPIENT_OK)

    def _data(self, argument: bytes) -> None:
        if argument and not argument.isspace():
            self._say(answers.NO_ARGUMENT)
            return
        self._octets = 0
        self.phase = Phase.CONTENT
        self._say(answers.GO_AHEAD)

    def _bdat(self, argument: bytes) -> None:
        chunk = read_bdat(argument)
        if not (self._policy.chunking and self._policy.extended):
            self._say(answers.NOT_IMPLEMENTED)
        elif not chunk:
            # Nobody knows where this chunk ends, so nothing behind it may be run.
            self.close(answers.CHUNK_SYNTAX)
        elif self.phase in (Phase.RCPT, Phase.CHUNKED):
            self._chunks.begin(chunk.size)
            self.phase = Phase.LAST_CHUNK if chunk.is_last else Phase.CHUNK
        else:
            self._refuse_chunk(chunk.size, self._objection(b"BDAT"))

    def _refuse_chunk(self, size: int, refusal: Answer) -> None:
        if not self._policy.swallows_chunks:
            self._say(refusal)
            return
        self._chunks.begin(size, keeps=False)
        self._after_chunk = self.phase, refusal
        self.phase = Phase.REFUSED_CHUNK

    def _rset(self, _argument: bytes) -> None:
        self._forget_mail()
        self.phase = self._resting_phase()
        self._say(answers.OK)

    def _noop(self, _argument: bytes) -> None:
        self._say(answers.OK)

    def _vrfy(self, _argument: bytes) -> None:
        self._say(answers.CANNOT_VERIFY)

    def _help(self, _argument: bytes) -> None:
        self._say(answers.HELP)

    def _quit(self, _argument: bytes) -> None:
        self.close(answers.BYE)

    # Content

    def _read_content(self) -> bool:
        end = self._data_reader.read(self._buffer, self._position)
        if end < 0:
            self._octets += len(self._buffer) - self._position
            self._drop_rest()
            return False
        self._position = end
        lines = self._data_reader.take()
        if lines is None:
            self._refuse_content(answers.TOO_LARGE)
        else:
            self._finish(unstuff_lines(lines), lines)
        return True

    def _read_chunk(self) -> bool:
        self._position = self._chunks.read(self._buffer, self._position)
        if self._chunks.left:
            self._drop_rest()
            return False
        AFTER_CHUNK[self.phase](self)
        return True

    def _after_one(self) -> None:
        if self._chunks.is_too_large:
            self.phase = Phase.BROKEN
            self._say(answers.TOO_LARGE)
        else:
            self.phase = Phase.CHUNKED
            self._say(answers.CHUNK_OK)

    def _after_last(self) -> None:
        content = self._chunks.take()
        if content is None:
            self._refuse_content(answers.TOO_LARGE)
        else:
            lines = b"" if self._policy.bare_newlines else content
            self._finish(content, lines, is_chunked=True)

    def _after_refused(self) -> None:
        self.phase, refusal = self._after_chunk
        self._say(refusal)

    def _finish(self, content: bytes, lines: bytes, *, is_chunked: bool = False) -> None:
        if len(content) > self._policy.max_size:
            self._refuse_content(answers.TOO_LARGE)
        elif has_bare_newline(lines):
            self._refuse_content(answers.BARE_NEWLINE)
        elif not self._policy.eight_bit and not content.isascii():
            self._refuse_content(answers.EIGHT_BIT)
        else:
            mail = Mail(
                self._sender,
                tuple(self.recipients),
                content,
                self._utf8,
                self._dsn_of_all() if self._dsn else (),
                is_chunked,
            )
            self._events.append(mail)
            self._commands = 0
            self._forget_envelope()
            self.phase = Phase.ANSWER

    def _dsn_of_all(self) -> tuple[str, ...]:
        return tuple(self._dsn.get(index, "") for index in range(len(self.recipients) + 1))

    def _refuse_content(self, answer: Answer) -> None:
        self._forget_mail()
        self.phase = self._resting_phase()
        self._say(answer)


READERS = {
    **dict.fromkeys(ALLOWED, Server._read_command),
    Phase.LOGIN: Server._read_login,
    Phase.CONTENT: Server._read_content,
    Phase.CHUNK: Server._read_chunk,
    Phase.LAST_CHUNK: Server._read_chunk,
    Phase.REFUSED_CHUNK: Server._read_chunk,
    Phase.TLS: Server._read_in_clear,
}
AFTER_CHUNK = {
    Phase.CHUNK: Server._after_one,
    Phase.LAST_CHUNK: Server._after_last,
    Phase.REFUSED_CHUNK: Server._after_refused,
}
VERBS = {
    b"EHLO": Server._ehlo,
    b"HELO": Server._helo,
    b"MAIL": Server._mail,
    b"RCPT": Server._rcpt,
    b"DATA": Server._data,
    b"BDAT": Server._bdat,
    b"RSET": Server._rset,
    b"NOOP": Server._noop,
    b"QUIT": Server._quit,
    b"VRFY": Server._vrfy,
    b"HELP": Server._help,
    b"STARTTLS": Server._starttls,
    b"AUTH": Server._auth,
}
COMMANDS = {
    phase: {verb: VERBS[verb] for verb in verbs.split()} for phase, verbs in ALLOWED.items()
}
