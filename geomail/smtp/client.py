"""The client's side of an SMTP conversation (RFC 5321), without a socket and without a clock.

Whoever owns the socket pumps: it hands `receive()` the bytes that came, writes what `output()`
gives, says by `wrote()` how many bytes the kernel took, and acts on the events. The conversation is
a queue of awaited replies: every command written appends what kind of reply it will get, every
reply takes the oldest, and a table says what that kind does with it. Replies are matched by
counting, never by code or text, so one that nobody awaits ends the connection (Lost), as does any
byte out of step.

What is said up to READY, smtp.opening knows. Then messages go as transactions:

    begin(letter)   MAIL, RCPT…, DATA, in one group where PIPELINING (RFC 2920) was announced under
                    this very TLS state, one by one otherwise
    ContentWanted   the server said 354; nothing of the content leaves before that
    content(t)      content and final dot; begin() of the next letter may follow in the same write,
                    so that a message costs one write and one round trip in steady state
    Finished(t)     every reply of the transaction is in

Where the host is known to swallow what it refuses (`chunks`), one BDAT (RFC 3030) takes the place
of DATA, 354 and content: begin() writes the whole message behind its envelope, and up to
`in_flight` of them are on their way unanswered. None may run inside the one before it, whatever
becomes of that: while an earlier one is unanswered, or when it has failed, RSET stands in front of
MAIL. A RSET that is not obeyed ends the connection: our counting or the host's is wrong.

When the connection goes, `unfinished` tells what was under way, oldest first, and `sent_whole()`
whether its last byte had been taken by the kernel: only then can the message have been delivered
unknown to us. A host that says 421 reads no further: what is behind the oldest was not delivered.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import ClassVar

from geomail.errors import ProtocolError
from geomail.smtp import data, extensions
from geomail.smtp.events import (
    Awaited,
    Cause,
    ContentWanted,
    Event,
    Finished,
    HandshakeWanted,
    Letter,
    Lost,
    Phase,
    Policy,
    Transaction,
)
from geomail.smtp.opening import Opening, Say, Step
from geomail.smtp.patience import Patience
from geomail.smtp.reply import ENOUGH, Reply, ReplyReader

_FLIGHT_LIMIT = 1 << 20  # bytes of content: no more messages begin above it
# A member of an Enum is a global of ours where it is asked for with each mail: 6 ns, not 50 to 90.
_READY, _HANDSHAKE, _LOST = Phase.READY, Phase.HANDSHAKE, Phase.LOST
_CONTENT, _DATA = Awaited.CONTENT, Awaited.DATA
_CAN_NOT_CHUNK = frozenset((500, 501, 502, 503, 504))


class Client:
    """One conversation, from the greeting to the end."""

    def __init__(self, policy: Policy, *, under_tls: bool = False) -> None:
        self.policy = policy
        self.phase = Phase.OPENING
        self.capabilities: dict[str, str] = {}
        self.is_logged_in = False
        self.mechanism: str | None = None  # of the login
        self.proved: bool | None = None  # what the proof of chunking has shown, if there was one
        self.begun = 0
        self.delivered = 0
        self.replies = 0
        # Lists, for they are short: an empty deque takes 760 bytes, and there are many connections.
        self.unfinished: list[Transaction] = []
        self.awaited: list[Awaited] = [Awaited.GREETING]
        self.eight_bit = self.pipelining = self.overlaps = self.chunks = False
        self.most_mails = self.most_recipients = 0
        self._opening = Opening(policy, under_tls=under_tls)
        self._patience = Patience(policy.in_flight)
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._queued = 0
        self._written = 0
        self._answerable = 1  # of `awaited`: what the server can have read
        self._flying = 0  # bytes of content among the unfinished
        self._held: list[tuple[Awaited, bytes]] = []
        self._needs_reset = False
        self._events: list[Event] = []

    @property
    def under_tls(self) -> bool:
        """True from the handshake on."""
        return self._opening.under_tls

    @property
    def greeting(self) -> Reply | None:
        """The server's first reply."""
        return self._opening.greeting

    @property
    def may_begin(self) -> bool:
        """True when there is room for one more transaction; `is_full` is another question."""
        return self._has_room()

    def _has_room(self) -> bool:
        if self.phase is not _READY or self._held:
            return False
        unfinished = self.unfinished
        if unfinished and unfinished[-1].content_end == 0:
            return False
        if self.chunks:
            return len(unfinished) < self._patience.room and self._flying < _FLIGHT_LIMIT
        return True

    @property
    def is_full(self) -> bool:
        """True when it is time to leave: MAILMAX is reached (RFC 9422), or the host's patience."""
        return 0 < self.most_mails <= self.begun or self._patience.is_over

    @property
    def is_lost(self) -> bool:
        """True from the Lost event on."""
        return self.phase is _LOST

    # ---- bytes in, bytes out

    def receive(self, received: bytes) -> list[Event]:
        """Take the bytes that came (b"" at the end of the stream) and return what they mean."""
        events = self._events
        if self.phase is _LOST:
            return []
        if not received:
            self._lose(Cause.CLOSED, "the server closed the connection")
        else:
            try:
                group = self._reader.group(received) if self.pipelining else None
                if group is not None and len(group) <= self._answerable:
                    self._take_group(group)
                else:
                    self._take(self._reader.feed(received) if group is None else group)
                if self.phase is _HANDSHAKE and not self._reader.is_empty:
                    self._injected()
            except ProtocolError as error:
                if self.phase is _HANDSHAKE:
                    self._injected()
                else:
                    self._lose(Cause.OUT_OF_STEP, str(error))
        self._events = []
        return events

    def output(self) -> bytes:
        """Return the bytes to write now; `wrote()` is told how many of them the kernel took."""
        out = self._out
        if not out:
            return b""
        self._out = []
        if self._answerable or self._reader.is_empty:
            self._answerable = len(self.awaited)
        # else half a reply is there already, which can't be the answer to what leaves only now.
        return out[0] if len(out) == 1 else b"".join(out)

    def wrote(self, count: int) -> None:
        """Note that the kernel has taken `count` more bytes."""
        self._written += count

    def sent_whole(self, transaction: Transaction) -> bool:
        """Return whether the kernel took the last byte of the transaction's content."""
        return 0 < transaction.content_end <= self._written

    def cut(self, cause: Cause, text: str) -> list[Event]:
        """End the conversation for a reason that lies outside it; return the events."""
        self._lose(cause, text)
        events, self._events = self._events, []
        return events

    def _lose(self, cause: Cause, text: str, reply: Reply | None = None) -> None:
        """End the conversation here: nothing more is written or read."""
        phase = self.awaited[0] if self.awaited else None
        self._end(Lost(cause, phase, text, reply))

    def _end(self, lost: Lost) -> None:
        self.phase = Phase.LOST
        self._out.clear()
        self._events.append(self._opening.discreet(lost))

    # ---- what the owner of the connection asks for

    def begin(self, letter: Letter, owner: object, *, is_wary: bool = False) -> Transaction:
        """Open a transaction: MAIL, RCPT for each recipient, DATA or a chunk (RFC 5321 3.3).

        `is_wary`: DATA in any case, for the server may have gone: what never was asked for isn't
        sent, so that nobody has to wonder whether it was taken.

        Raises ProtocolError when the conversation is not ready for one. Ask `refusal()` first.
        """
        if not self._has_room():
            raise ProtocolError(f"a transaction can't begin while {self.phase.value}")
        envelope = extensions.envelope(letter, self.capabilities)
        if self._needs_reset or (self.chunks and self.unfinished):
            self._needs_reset = False
            self._command(Awaited.RSET, b"RSET\r\n")
        transaction = Transaction(letter, owner)
        self.unfinished.append(transaction)
        self.begun += 1
        if self.chunks and not is_wary:
            self._write_chunk(envelope, transaction)
        elif self.pipelining:
            commands = f"{envelope}DATA\r\n".encode()
            self._out.append(commands)  # as _write does
            self._queued += len(commands)
            self.awaited += _awaited(len(letter.recipients), _DATA)
        else:
            self._write_one_by_one(f"{envelope}DATA".encode(), len(letter.recipients))
        return transaction

    def _write_one_by_one(self, commands: bytes, recipients: int) -> None:
        kinds = _awaited(recipients, Awaited.DATA)
        for kind, command in zip(kinds, commands.split(b"\r\n"), strict=True):
            self._command(kind, command + b"\r\n")

    def _write_chunk(self, envelope: str, transaction: Transaction) -> None:
        letter = transaction.letter
        lines = data.lines(letter.content)
        self._write(f"{envelope}BDAT {len(lines)} LAST\r\n".encode())
        self._write(lines)
        transaction.content_end = self._queued
        self._flying += len(letter.content)
        self.awaited.extend(_awaited(len(letter.recipients), Awaited.BDAT))

    def content(self, transaction: Transaction) -> None:
        """Write the content of a transaction whose ContentWanted has come; nothing once lost."""
        reply = transaction.data
        if reply is None or not reply.is_intermediate or transaction.content_end:
            raise ProtocolError("content is written once, after 354")
        if self.phase is _LOST:
            return
        stuffed = data.stuff(transaction.letter.content)
        self._out.append(stuffed)
        self._queued = transaction.content_end = self._queued + len(stuffed)
        self.awaited.append(_CONTENT)

    def refusal(self, letter: Letter) -> Reply | None:
        """Return why this server can't be given this letter, as the reply it would earn, or None.

        Nothing is written.
        """
        return extensions.refusal(letter, self.capabilities)

    def tls_started(self) -> None:
        """Go on after the handshake: forget everything, say EHLO again (RFC 3207 section 4.2)."""
        if self.phase is not Phase.HANDSHAKE:
            raise ProtocolError(f"no TLS handshake is due while {self.phase.value}")
        self.phase = Phase.OPENING
        self._follow(self._opening.tls_started())

    def quit(self) -> None:
        """Say QUIT where it can be heard: between messages, never as content behind a 354."""
        is_idle = not self.awaited and not self.unfinished
        if self.phase in (Phase.READY, Phase.OPENING) and is_idle:
            self.phase = Phase.LEAVING
            self._command(Awaited.QUIT, b"QUIT\r\n")

    # ---- replies, by what was awaited

    def _take_group(self, replies: list[Reply]) -> None:
        """Do the same in the steady state: all were asked for, none is a 421, nothing is held.

        It takes a third of the time.
        """
        awaited, handlers = self.awaited, self._handlers
        self.replies += len(replies)
        self._answerable -= len(replies)
        for reply in replies:
            handlers[awaited.pop(0)](self, reply)
            if self.phase is _LOST:
                return

    def _take(self, replies: Iterable[Reply]) -> None:
        """Act on replies, up to one that ends the conversation."""
        awaited, handlers = self.awaited, self._handlers
        for reply in replies:
            self.replies += 1
            if not self._answerable:
                self._surplus(reply)
                return
            self._answerable -= 1
            if reply.code == 421 and awaited[0] is not Awaited.QUIT:
                self._lose(Cause.REFUSED, str(reply), reply)
                return
            kind = awaited.pop(0)
            if handler := handlers.get(kind):
                handler(self, reply)
            else:
                self._follow(self._opening.take(kind, reply))
            if self.phase is _LOST:
                return
            if self._held and not awaited:
                self._release()

    def _surplus(self, reply: Reply) -> None:
        """End the conversation: the server can't have read anything that this would answer."""
        if self.phase is Phase.HANDSHAKE:
            self._injected()
        elif reply.code == 421:
            self._lose(Cause.REFUSED, str(reply), reply)
        else:
            self._lose(Cause.OUT_OF_STEP, f"a reply that nothing asked for: {reply}")

    def _on_mail(self, reply: Reply) -> None:
        transaction = self.unfinished[0]
        transaction.mail = reply
        if reply.is_intermediate:
            self._out_of_step(Awaited.MAIL, reply)
        elif not reply.is_positive:
            self._patience.was_refused()
            if self._held:
                self._give_up(transaction)

    def _on_rcpt(self, reply: Reply) -> None:
        transaction = self.unfinished[0]
        transaction.rcpt.append(reply)
        if reply.is_positive:
            mail = transaction.mail
            transaction.accepted += mail is not None and mail.is_positive
        elif reply.is_intermediate:
            self._out_of_step(Awaited.RCPT, reply)
        else:
            self._patience.was_refused()
            if len(self._held) == 1 and not transaction.has_recipients:
                self._give_up(transaction)

    def _on_data(self, reply: Reply) -> None:
        transaction = self.unfinished[0]
        transaction.data = reply
        if reply.is_positive:
            self._out_of_step(Awaited.DATA, reply)
        elif not reply.is_intermediate:
            self._patience.was_refused()
            self._finish(transaction)
        elif transaction.accepted:
            self._events.append(ContentWanted(transaction))
        else:
            self._command(Awaited.DOT, b".\r\n")

    def _on_final(self, reply: Reply) -> None:
        if reply.is_intermediate:
            self._out_of_step(_CONTENT, reply)
        else:
            self._conclude(_CONTENT, reply)

    def _on_bdat(self, reply: Reply) -> None:
        transaction = self.unfinished[0]
        if transaction.has_recipients:
            is_in_step = not reply.is_intermediate and reply.code not in _CAN_NOT_CHUNK
        else:
            is_in_step = reply.code >= 400
        if is_in_step:
            self._flying -= len(transaction.letter.content)
            self._needs_reset = not reply.is_positive
            self._conclude(Awaited.BDAT, reply)
        else:
            self._out_of_step(Awaited.BDAT, reply)

    def _conclude(self, phase: Awaited, reply: Reply) -> None:
        """Give the oldest transaction its final reply."""
        transaction = self.unfinished[0]
        is_sent_whole = 0 < transaction.content_end <= self._written
        if reply.is_positive:
            if not is_sent_whole:
                self._out_of_step(phase, reply)
                return
            self.delivered += 1
        else:
            self._patience.was_refused()
        if transaction.accepted:
            self._patience.had_content(is_taken=reply.is_positive)
        transaction.final = reply
        self.unfinished.pop(0)
        self._events.append(Finished(transaction))
        if not is_sent_whole:
            # Whether the server swallows the rest or runs it as commands, nobody knows.
            self._refused(phase, reply)

    def _on_dot(self, _reply: Reply) -> None:
        # Nobody was accepted, so whatever this reply says, it is about no message of ours.
        self._events.append(Finished(self.unfinished.pop(0)))

    def _on_reset(self, reply: Reply) -> None:
        if reply.is_positive:
            self._patience.was_reset()
        else:
            end = self._out_of_step if self.chunks else self._refused
            end(Awaited.RSET, reply)

    def _on_quit(self, reply: Reply) -> None:
        self._lose(Cause.CLOSED, str(reply), reply)

    # ---- the opening

    def _follow(self, step: Step) -> None:
        """Act on what the opening says is next."""
        if isinstance(step, Say):
            self.awaited.append(step.awaited)
            if step.line:
                self._write(step.line)
            else:
                self._answerable += 1
        elif isinstance(step, Lost):
            self._end(step)
        else:
            self._events.append(step)
            if isinstance(step, HandshakeWanted):
                self.phase = Phase.HANDSHAKE
            else:
                self._become_ready()

    def _become_ready(self) -> None:
        self.phase = Phase.READY
        self._reader.most_kept = ENOUGH
        found = self.capabilities = self._opening.capabilities
        self.eight_bit = "8BITMIME" in found
        self.pipelining = "PIPELINING" in found and self.policy.pipeline != "off"
        self.overlaps = self.pipelining and self.policy.pipeline == "overlap"
        self.is_logged_in, self.mechanism = self._opening.is_logged_in, self._opening.mechanism
        self.chunks, self.proved = self._opening.chunks, self._opening.proved
        if self.proved is not None:
            self._patience.was_reset()
        self.most_mails, self.most_recipients = extensions.limits(found)

    # ---- transactions

    def _give_up(self, transaction: Transaction) -> None:
        self._held.clear()
        self._finish(transaction)

    def _finish(self, transaction: Transaction) -> None:
        # MAIL was accepted and no content followed: the server still has a transaction open.
        self._needs_reset = transaction.mail is not None and transaction.mail.is_positive
        self.unfinished.pop(0)
        self._events.append(Finished(transaction))

    # Of the class, not of each conversation: bound methods would make a cycle of it.
    _handlers: ClassVar[Mapping[Awaited, Callable[["Client", Reply], None]]] = {
        Awaited.MAIL: _on_mail,
        Awaited.RCPT: _on_rcpt,
        Awaited.DATA: _on_data,
        Awaited.CONTENT: _on_final,
        Awaited.BDAT: _on_bdat,
        Awaited.DOT: _on_dot,
        Awaited.RSET: _on_reset,
        Awaited.QUIT: _on_quit,
    }

    # ---- writing, and giving up

    def _command(self, awaited: Awaited, line: bytes) -> None:
        """Write a command, or hold it until the one before it was answered."""
        if self.pipelining or not (self.awaited or self._held):
            self.awaited.append(awaited)
            self._write(line)
        else:
            self._held.append((awaited, line))

    def _release(self) -> None:
        awaited, line = self._held.pop(0)
        self.awaited.append(awaited)
        self._write(line)

    def _write(self, line: bytes) -> None:
        self._out.append(line)
        self._queued += len(line)

    def _refused(self, phase: Awaited, reply: Reply) -> None:
        self._end(Lost(Cause.REFUSED, phase, str(reply), reply))

    def _out_of_step(self, phase: Awaited, reply: Reply) -> None:
        self._end(Lost(Cause.OUT_OF_STEP, phase, f"unexpected reply: {reply}", reply))

    def _injected(self) -> None:
        # CVE-2011-0411 and its kin: bytes that came in clear would be read as if under TLS.
        self._events[:] = [e for e in self._events if not isinstance(e, HandshakeWanted)]
        self._end(Lost(Cause.TLS, Awaited.STARTTLS, "bytes behind the reply to STARTTLS"))


@lru_cache(maxsize=64)
def _awaited(recipients: int, last: Awaited) -> tuple[Awaited, ...]:
    return (Awaited.MAIL, *[Awaited.RCPT] * recipients, last)
