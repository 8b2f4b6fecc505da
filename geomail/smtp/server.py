"""The server's half of an SMTP conversation (RFC 5321), as tables, without socket, clock or chance.

Bytes go in by `receive`, bytes come out by `output`. What only the outside can do comes out as an
event, and the conversation stands still until it is done: after `Mail` until `answer`, after
`TlsWanted` until `tls_started`. So a door can say 250 when the mail is safe, and not before. What
has arrived meanwhile is read then, replies keep their order, and those of a pipelined group come
out in one `output`.

A conversation is always in one Phase. READERS says how a phase reads: by commands, by login lines,
as content, or not at all. COMMANDS says which verbs a phase knows, OUT_OF_PLACE what the other ones
are told. However the bytes are split, the conversation is the same; only for bytes sent ahead where
that is forbidden (behind STARTTLS, or without PIPELINING) it depends on the split whether they are
noticed. They are never run.

Promised: content ends at CRLF.CRLF only, and content with a bare CR or LF is refused (smuggling).
Commands behind STARTTLS in clear are refused (CVE-2011-0411). A line is kept up to LINE_LIMIT,
content up to 4/3 of max_size, its longest stuffed form; the rest is swallowed and answered with 500
or 552. Addresses come out without control characters. Not promised: limits on time, on the number
of commands or of failed logins. Those are for the owner of the socket, who also stops reading while
an event is not dealt with.
"""

from enum import Enum

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp import answers
from geomail.smtp.answers import Answer
from geomail.smtp.data import DataReader, has_bare_newline, unstuff_lines
from geomail.smtp.login import MECHANISMS, Exchange
from geomail.smtp.paths import read_mail, read_rcpt
from geomail.smtp.policy import Check, Policy

LINE_LIMIT = 4096  # RFC 5321 4.5.3.1.4 asks for 512, and more for each extension


class Phase(Enum):
    """Where the conversation stands; everything that may happen next follows from this."""

    REFUSED = "greeted with a 4xx or 5xx"
    NEW = "EHLO awaited"
    CLEAR = "TLS required first"
    STRANGER = "login required first"
    READY = "no transaction"
    MAIL = "sender known"
    RCPT = "recipients known"
    LOGIN = "login line awaited"
    CONTENT = "content awaited"
    ANSWER = "answer() awaited"
    TLS = "tls_started() awaited"
    CLOSED = "over"

    # An Enum's own hash is a Python function: 0.15 us at each look into a table.
    __hash__ = object.__hash__


class Mail(msgspec.Struct, frozen=True):
    """A whole message: its envelope ("" = null sender), and its content, lines ending in CRLF."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    smtputf8: bool


class TlsWanted(msgspec.Struct, frozen=True):
    """The client was told to begin the handshake: write the output, do it, call `tls_started`."""


Event = Mail | TlsWanted


class Server:
    """One conversation: `receive` bytes, deal with the events, write `output`, until `is_closed`.

    `helo`, `login` (user name) and `is_encrypted` say what is known of the client.
    """

    def __init__(self, policy: Policy, *, is_encrypted: bool = False) -> None:
        self.phase = Phase.NEW
        self.helo = ""
        self.login: str | None = None
        self.is_encrypted = is_encrypted
        self._policy = policy
        self._buffer = b""
        self._position = 0
        self._data_reader = DataReader(policy.max_size)
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._exchange: Exchange | None = None
        self._forget_mail()
        self._greet()

    @property
    def is_closed(self) -> bool:
        """Tell whether the connection is to be closed once the output is written."""
        return self.phase is Phase.CLOSED

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

    def tls_started(self) -> None:
        """Begin anew over TLS: nothing that was said before counts (RFC 3207 4.2)."""
        self._expect(Phase.TLS, "tls_started")
        self.phase = Phase.NEW
        self.is_encrypted = True
        self.helo = ""
        self.login = None

    def close(self, last: Answer | None = None) -> None:
        """End the conversation, with `last` (a 421) as its last reply."""
        if last:
            self._say(last)
        self.phase = Phase.CLOSED

    def output(self) -> bytes:
        """Return the bytes to be written, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _expect(self, phase: Phase, call: str) -> None:
        if self.phase is not phase:
            raise ProtocolError(f"{call}() is for phase {phase.name}, not {self.phase.name}")

    def _greet(self) -> None:
        protocol = "ESMTP" if self._policy.extended else "SMTP"
        usual = Answer(220, "", f"{self._policy.hostname} {protocol} geomail")
        greeting = self._policy.greeting or usual
        if greeting.code != 220:
            self.phase = Phase.REFUSED
        self._say(greeting)

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

    def _say(self, answer: Answer) -> None:
        self._out.append(answer.wire if self._policy.enhanced_codes else answer.bare)
        if answer.code == 421:
            self.phase = Phase.CLOSED

    def _rest(self) -> bytes:
        return self._buffer[self._position :]

    def _drop_rest(self) -> None:
        self._buffer = b""
        self._position = 0

    def _resting_phase(self) -> Phase:
        """Return the phase between two transactions."""
        if not self.helo:
            return Phase.NEW
        if self._policy.require_tls and not self.is_encrypted:
            return Phase.CLEAR
        if self._policy.require_auth and self.login is None:
            return Phase.STRANGER
        return Phase.READY

    def _forget_mail(self) -> None:
        self._sender = ""
        self._utf8 = False
        self._recipients: list[str] = []

    # Lines

    def _read_command(self) -> bool:
        line = self._line()
        if line is None:
            return False
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        command = COMMANDS[self.phase].get(verb)
        if len(line) > LINE_LIMIT:
            self._say(answers.TOO_LONG)
        elif command:
            command(self, argument)
        else:
            self._misplaced(verb)
        return True

    def _line(self) -> bytes | None:
        start = self._position
        end = self._buffer.find(b"\r\n", start)
        if end < 0:
            self._keep_short()
            return None
        self._position = end + 2
        return self._buffer[start:end]

    def _keep_short(self) -> None:
        """Keep of an endless line what shows that it is too long, and whether a CR was last."""
        rest = self._rest()
        if len(rest) > LINE_LIMIT + 2:
            rest = rest[: LINE_LIMIT + 1] + rest[-1:]
        self._buffer = rest
        self._position = 0

    def _misplaced(self, verb: bytes) -> None:
        if verb in NOT_IMPLEMENTED:
            self._say(answers.NOT_IMPLEMENTED)
        elif verb not in VERBS:
            self._say(answers.UNKNOWN)
        elif verb == b"DATA" and self.phase is Phase.MAIL:
            self._say(answers.NO_RECIPIENTS)
        else:
            self._say(OUT_OF_PLACE.get(self.phase, answers.BAD_SEQUENCE))

    def _ehlo(self, argument: bytes) -> None:
        if not self._policy.extended:
            self._say(answers.NOT_IMPLEMENTED)
        elif self._hello(argument):
            extensions = self._policy.extensions(is_encrypted=self.is_encrypted)
            lines = [self._policy.hostname, *extensions]
            self._say(Answer(250, "", "\n".join(lines)))

    def _helo(self, argument: bytes) -> None:
        if self._hello(argument):
            self._say(Answer(250, "", self._policy.hostname))

    def _hello(self, argument: bytes) -> bool:
        name = argument.strip()
        if not name or not name.isascii() or not name.decode().isprintable():
            self._say(answers.HELLO_SYNTAX)
            return False
        self.helo = name.decode()
        self._forget_mail()
        self.phase = self._resting_phase()
        return True

    def _mail(self, argument: bytes) -> None:
        found = read_mail(argument)
        if not found:
            self._say(answers.MAIL_SYNTAX)
            return
        sender, parameters = found
        self._utf8 = (b"SMTPUTF8", b"") in parameters
        refusal = parameters and self._policy.refuse_parameters(parameters)
        refusal = refusal or self._refusal(sender, self._policy.check_sender, answers.BAD_SENDER)
        if sender is not None and not refusal:
            self._sender = sender
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
        if not found:
            self._say(answers.RCPT_SYNTAX)
        elif found[1]:
            self._say(answers.NOT_ANNOUNCED)
        else:
            self._recipient(found[0])

    def _recipient(self, address: str | None) -> None:
        refusal = self._refusal(address, self._policy.check_recipient, answers.BAD_RECIPIENT)
        if not refusal and len(self._recipients) >= self._policy.max_recipients:
            refusal = answers.TOO_MANY_RECIPIENTS
        if address and not refusal:
            self._recipients.append(address)
            self.phase = Phase.RCPT
        self._say(refusal or answers.RECIPIENT_OK)

    def _data(self, argument: bytes) -> None:
        if argument and not argument.isspace():
            self._say(answers.NO_ARGUMENT)
            return
        self.phase = Phase.CONTENT
        self._say(answers.GO_AHEAD)

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

    # TLS and login

    def _starttls(self, argument: bytes) -> None:
        if self.is_encrypted:
            self._say(answers.ENCRYPTED_ALREADY)
        elif not self._policy.starttls:
            self._say(answers.NOT_IMPLEMENTED)
        elif argument:
            self._say(answers.NO_ARGUMENT)
        elif self._rest():
            self.close(answers.TOO_EARLY)
        else:
            self._forget_mail()
            self._say(answers.START_TLS)
            self._events.append(TlsWanted())
            self.phase = Phase.TLS

    def _read_in_clear(self) -> bool:
        if self._rest():
            self.close(answers.TOO_EARLY)
        return False

    def _auth(self, argument: bytes) -> None:
        mechanism, _, initial = argument.partition(b" ")
        check = self._policy.auth
        if not check:
            self._say(answers.NOT_IMPLEMENTED)
        elif self.login is not None:
            self._say(answers.LOGGED_IN_ALREADY)
        elif not (self.is_encrypted or self._policy.auth_in_clear):
            self._say(answers.LOGIN_NEEDS_TLS)
        elif mechanism.upper() not in MECHANISMS:
            self._say(answers.UNKNOWN_MECHANISM)
        else:
            self._exchange = Exchange(mechanism.upper(), check)
            self._proceed(self._exchange, self._exchange.begin(initial))

    def _read_login(self) -> bool:
        line = self._line()
        if line is None or not self._exchange:
            return False
        is_long = len(line) > LINE_LIMIT
        self._proceed(self._exchange, answers.TOO_LONG if is_long else self._exchange.respond(line))
        return True

    def _proceed(self, exchange: Exchange, answer: Answer) -> None:
        if answer.code == 334:
            self.phase = Phase.LOGIN
        else:
            self.login = exchange.user
            self.phase = self._resting_phase()
            self._exchange = None
        self._say(answer)

    # Content

    def _read_content(self) -> bool:
        end = self._data_reader.read(self._buffer, self._position)
        if end < 0:
            self._drop_rest()
            return False
        self._position = end
        self._finish(self._data_reader.lines)
        return True

    def _finish(self, lines: bytes | None) -> None:
        content = b"" if lines is None else unstuff_lines(lines)
        if lines is None or len(content) > self._policy.max_size:
            self._refuse_content(answers.TOO_LARGE)
        elif has_bare_newline(lines):
            self._refuse_content(answers.BARE_NEWLINE)
        elif not self._policy.eight_bit and not content.isascii():
            self._refuse_content(answers.EIGHT_BIT)
        else:
            mail = Mail(self._sender, tuple(self._recipients), content, self._utf8)
            self._events.append(mail)
            self._forget_mail()
            self.phase = Phase.ANSWER

    def _refuse_content(self, answer: Answer) -> None:
        self._forget_mail()
        self.phase = self._resting_phase()
        self._say(answer)


READERS = {
    Phase.REFUSED: Server._read_command,
    Phase.NEW: Server._read_command,
    Phase.CLEAR: Server._read_command,
    Phase.STRANGER: Server._read_command,
    Phase.READY: Server._read_command,
    Phase.MAIL: Server._read_command,
    Phase.RCPT: Server._read_command,
    Phase.LOGIN: Server._read_login,
    Phase.CONTENT: Server._read_content,
    Phase.TLS: Server._read_in_clear,
}
VERBS = {
    b"EHLO": Server._ehlo,
    b"HELO": Server._helo,
    b"MAIL": Server._mail,
    b"RCPT": Server._rcpt,
    b"DATA": Server._data,
    b"RSET": Server._rset,
    b"NOOP": Server._noop,
    b"QUIT": Server._quit,
    b"VRFY": Server._vrfy,
    b"HELP": Server._help,
    b"STARTTLS": Server._starttls,
    b"AUTH": Server._auth,
}
NOT_IMPLEMENTED = frozenset(
    [b"EXPN", b"BDAT", b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"]
)
_ALLOWED = {
    Phase.REFUSED: b"QUIT",
    Phase.NEW: b"EHLO HELO NOOP RSET QUIT HELP",
    Phase.CLEAR: b"EHLO HELO NOOP QUIT STARTTLS",
    Phase.STRANGER: b"EHLO HELO NOOP RSET QUIT HELP STARTTLS AUTH",
    Phase.READY: b"EHLO HELO NOOP RSET QUIT HELP VRFY STARTTLS AUTH MAIL",
    Phase.MAIL: b"EHLO HELO NOOP RSET QUIT HELP VRFY RCPT",
    Phase.RCPT: b"EHLO HELO NOOP RSET QUIT HELP VRFY RCPT DATA",
}
COMMANDS = {
    phase: {verb: VERBS[verb] for verb in verbs.split()} for phase, verbs in _ALLOWED.items()
}
OUT_OF_PLACE = {
    Phase.NEW: answers.HELLO_FIRST,
    Phase.CLEAR: answers.TLS_FIRST,
    Phase.STRANGER: answers.LOGIN_FIRST,
}
