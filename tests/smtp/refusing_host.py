"""A model of a host that refuses at random, and is as forgiving as a host can be.

It obeys RFC 5321 and 3030 where they leave no choice, and where they do it is the worst host for a
client that overlaps messages: what a refused MAIL finds open stays open, a refused chunk leaves its
sender and recipients behind for whoever comes next, and RSET alone clears them away. What it has
taken is in `taken`, as it took it. Not a copy of geomail.smtp.server: it shares no line with it.
"""

from collections.abc import Iterable
from enum import Enum

ANNOUNCED = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"


class Verdict(Enum):
    """What the host makes of one MAIL, RCPT, RSET, DATA or content."""

    YES = 250
    LATER = 451
    NEVER = 554
    LEAVE = 421
    HANG_UP = 0


Taken = tuple[str, tuple[str, ...], bytes]


class RefusingHost:
    """One conversation; `verdicts` are used up one by one, and then everything is welcome."""

    def __init__(self, verdicts: Iterable[Verdict], *, swallows: bool = True) -> None:
        self.taken: list[Taken] = []
        self.is_gone = False
        self._verdicts = iter(verdicts)
        self._swallows = swallows
        self._heard = b""
        self._said = b"220 mx.example\r\n"
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._chunk: int | None = None
        self._reads_data = False

    def hear(self, block: bytes) -> None:
        """Take bytes that have come; answer what they complete."""
        self._heard += block
        while not self.is_gone and self._step():
            pass

    def say(self) -> bytes:
        """Return what was answered since the last time."""
        said, self._said = self._said, b""
        return said

    def _step(self) -> bool:
        if self._chunk is not None:
            return self._take_chunk(self._chunk)
        if self._reads_data:
            return self._take_data()
        line, end, rest = self._heard.partition(b"\r\n")
        if not end:
            return False
        self._heard = rest
        verb, _, argument = line.decode().partition(" ")
        handler = getattr(self, f"_on_{verb.lower()}", None) if verb.isalpha() else None
        if handler is None:
            self._answer(500)
        else:
            handler(argument)
        return True

    def _answer(self, code: int) -> None:
        self._said += b"%d so\r\n" % code

    def _judge(self) -> bool:
        """Return whether the next one is welcome; else the refusal is said."""
        verdict = next(self._verdicts, Verdict.YES)
        self.is_gone = verdict in (Verdict.LEAVE, Verdict.HANG_UP)
        if verdict not in (Verdict.YES, Verdict.HANG_UP):
            self._answer(verdict.value)
        return verdict is Verdict.YES

    # ---- commands

    def _on_ehlo(self, _argument: str) -> None:
        self._said += ANNOUNCED

    def _on_rset(self, _argument: str) -> None:
        self._clear()
        self._answer(250)

    def _on_mail(self, argument: str) -> None:
        if not self._judge():
            return
        if self._sender is not None:
            self._answer(503)
            return
        self._sender = _path(argument)
        self._answer(250)

    def _on_rcpt(self, argument: str) -> None:
        if self._sender is None:
            self._answer(503)
        elif self._judge():
            self._recipients.append(_path(argument))
            self._answer(250)

    def _on_bdat(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        assert last == "LAST"
        if self._recipients or self._swallows:
            self._chunk = int(size)
        else:
            self._answer(503)

    def _on_data(self, _argument: str) -> None:
        if not self._recipients:
            self._answer(503)
        elif self._judge():
            self._reads_data = True
            self._answer(354)

    # ---- content

    def _take_chunk(self, size: int) -> bool:
        if len(self._heard) < size:
            return False
        content, self._heard = self._heard[:size], self._heard[size:]
        self._chunk = None
        if not self._recipients:
            self._answer(503)
        elif self._judge():
            self._take(content)
        return True

    def _take_data(self) -> bool:
        lines, end, rest = (b"\r\n" + self._heard).partition(b"\r\n.\r\n")
        if not end:
            return False
        self._heard, self._reads_data = rest, False
        content = (lines + b"\r\n")[2:]
        if self._judge():
            self._take(content.removeprefix(b".").replace(b"\r\n.", b"\r\n"))
        else:
            self._clear()
        return True

    def _take(self, content: bytes) -> None:
        assert self._sender is not None
        self.taken.append((self._sender, tuple(self._recipients), content))
        self._clear()
        self._answer(250)

    def _clear(self) -> None:
        self._sender, self._recipients = None, []


def _path(argument: str) -> str:
    return argument[argument.index("<") + 1 : argument.rindex(">")]
