"""What a client's conversation is made of, whatever mail goes by it: its opening and its end.

A Conversation knows its phase, what the server has announced, and which replies are awaited; it
writes a command, or holds it where the one before has to be answered first. It follows what
smtp.opening says is next, up to READY, and it ends in one way: one Lost event, with its cause, and
nothing is written or read from then on. Of transactions it knows how many a connection may have,
and no more: they are the client's, and so is the way of bytes in and out, which each mail walks.
"""

from geomail.errors import ProtocolError
from geomail.smtp import extensions
from geomail.smtp.events import Awaited, Cause, Event, HandshakeWanted, Lost, Phase, Policy
from geomail.smtp.opening import Opening, Say, Step
from geomail.smtp.patience import Patience
from geomail.smtp.reply import ENOUGH, Reply, ReplyReader

_LOST = Phase.LOST  # asked for with each mail: 6 ns, not 50 to 90


class Conversation:
    """One conversation, from the greeting to the end."""

    def __init__(self, policy: Policy, *, under_tls: bool = False) -> None:
        self.policy = policy
        self.phase = Phase.OPENING
        self.capabilities: dict[str, str] = {}
        self.is_logged_in = False
        self.mechanism: str | None = None  # of the login
        self.proved: bool | None = None  # what the proof of chunking has shown, if there was one
        # Lists, for they are short: an empty deque takes 760 bytes, and there are many connections.
        self.awaited: list[Awaited] = [Awaited.GREETING]
        self.eight_bit = self.pipelining = self.overlaps = self.chunks = False
        self.most_mails = self.most_recipients = 0
        self._opening = Opening(policy, under_tls=under_tls)
        self._patience = Patience(policy.in_flight)
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._queued = 0
        self._answerable = 1  # of `awaited`: what the server can have read
        self._held: list[tuple[Awaited, bytes]] = []
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
    def is_lost(self) -> bool:
        """True from the Lost event on."""
        return self.phase is _LOST

    # ---- the opening

    def tls_started(self) -> None:
        """Go on after the handshake: forget everything, say EHLO again (RFC 3207 section 4.2)."""
        if self.phase is not Phase.HANDSHAKE:
            raise ProtocolError(f"no TLS handshake is due while {self.phase.value}")
        self.phase = Phase.OPENING
        self._follow(self._opening.tls_started())

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

    # ---- commands

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

    # ---- the end

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

    def _refused(self, phase: Awaited, reply: Reply) -> None:
        self._end(Lost(Cause.REFUSED, phase, str(reply), reply))

    def _out_of_step(self, phase: Awaited, reply: Reply) -> None:
        self._end(Lost(Cause.OUT_OF_STEP, phase, f"unexpected reply: {reply}", reply))

    def _injected(self) -> None:
        # CVE-2011-0411 and its kin: bytes that came in clear would be read as if under TLS.
        self._events[:] = [e for e in self._events if not isinstance(e, HandshakeWanted)]
        self._end(Lost(Cause.TLS, Awaited.STARTTLS, "bytes behind the reply to STARTTLS"))

    def _surplus(self, reply: Reply) -> None:
        """End the conversation: the server can't have read anything that this would answer."""
        if self.phase is Phase.HANDSHAKE:
            self._injected()
        elif reply.code == 421:
            self._lose(Cause.REFUSED, str(reply), reply)
        else:
            self._lose(Cause.OUT_OF_STEP, f"a reply that nothing asked for: {reply}")
