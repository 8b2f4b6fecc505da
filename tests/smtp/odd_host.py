"""A server that does what it is told at any step, and an owner of the client's end to meet it.

The host reads as a naive server reads: lines are commands until it has said 3yz to DATA, then they
are content up to the lone dot; BDAT counts. So content that leaves at a wrong time is seen as
commands that nobody knows. It notes the kind of each thing that it was asked, in order, and the
owner holds that list against what the client believes, reply by reply.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from geomail.letter import Letter
from geomail.smtp.client import Client
from geomail.smtp.events import (
    Cause,
    ContentWanted,
    Event,
    Finished,
    HandshakeWanted,
    Lost,
    Policy,
    Ready,
    Transaction,
)

Order = tuple[str, int]
Cut = Callable[[bytes], Iterator[bytes]]

EXTENSIONS = b"250-mx.example\r\n250-SIZE\r\n250-8BITMIME\r\n250-DSN\r\n"
EHLO = EXTENSIONS + b"250-CHUNKING\r\n250 PIPELINING\r\n"
WAYS = {  # pipeline, chunking
    "one by one": ("off", "off"),
    "in groups": ("message", "off"),
    "overlapping": ("overlap", "off"),
    "in chunks": ("overlap", "on"),
    "in proved chunks": ("overlap", "prove"),
}
USUAL = {
    "GREETING": b"220 mx.example\r\n",
    "EHLO": EHLO,
    "STARTTLS": b"220 go\r\n",
    "AUTH": b"235 ok\r\n",
    "DATA": b"354 go\r\n",
    "QUIT": b"221 bye\r\n",
}
VERBS = {"EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT"}
_REPLY = re.compile(rb"(?:([0-9]{3})-[^\n]*\n)*([0-9]{3})(?: [^\n]*)?\r?\n")


def mail(number: int, *recipients: str) -> Letter:
    """Return a letter whose content is no command, with dots and a look-alike of an end."""
    content = f"EVIL: {number}\r\n\r\n.\r\nEVIL {number}\r\n..\r\nEVIL end\r\n".encode()
    names = recipients or (f"b{number}@b.example",)
    return Letter(f"a{number}@a.example", names, content, False, False)


class Host:
    """Answers as usual, or as `orders` say: by what is answered, and the how-manieth it is.

    PROOF is what comes before the first MAIL: a chunk and RSET, or three lines for a host that
    `swallows` no chunk out of place.
    """

    def __init__(
        self,
        orders: Mapping[Order, bytes] | None = None,
        *,
        ehlo: bytes = EHLO,
        swallows: bool = True,
    ) -> None:
        self.asked: list[str] = []
        self.lines: list[bytes] = []
        self.contents: list[bytes] = []
        self._orders = orders or {}
        self._usual = USUAL | {"EHLO": ehlo}
        self._times: Counter[str] = Counter()
        self._heard = b""
        self._mode = "command"
        self._left = 0
        self._swallows = swallows
        self._has_sender = self._has_recipient = False

    def greet(self) -> bytes:
        """Return the greeting."""
        return self._answer("GREETING")

    def hear(self, data: bytes) -> bytes:
        """Return what is said to `data`."""
        self._heard += data
        said = b""
        while (reply := self._next()) is not None:
            said += reply
        return said

    def _next(self) -> bytes | None:
        if self._mode == "content" and not self._heard.startswith(b".\r\n"):
            return self._content()
        if self._mode in ("BDAT", "PROOF"):
            return self._chunk(self._mode)
        line, end, rest = self._heard.partition(b"\r\n")
        if not end:
            return None
        self._heard = rest
        self.lines.append(line)
        return self._command(line)

    def _command(self, line: bytes) -> bytes | None:
        kind = self._kind(line)
        if kind in ("BDAT", "PROOF") and line.startswith(b"BDAT") and self._swallows:
            self._left, self._mode = int(line.split()[1]), kind
            return self._next()
        assert kind in VERBS or kind in ("DOT", "PROOF"), f"this is no command: {line!r}"
        reply = self._answer(kind)
        self._mode = "command"
        if kind == "AUTH" and reply.startswith(b"334"):
            self._mode = "login"
        elif kind == "DATA" and reply.startswith(b"3"):
            self._mode = "content"
        elif kind in ("MAIL", "RSET"):
            self._has_sender, self._has_recipient = kind == "MAIL" and reply[:1] == b"2", False
        elif kind == "RCPT":
            self._has_recipient |= reply.startswith(b"2")
        return reply

    def _kind(self, line: bytes) -> str:
        """Return what a line is, as the names of Awaited have it."""
        verb = line.partition(b" ")[0].decode("latin-1")
        if self._mode == "login":
            return "AUTH"
        if verb in ("BDAT", "XYZZY", "RSET") and "MAIL" not in self.asked:
            return "PROOF"
        return "DOT" if verb == "." else verb

    def _content(self) -> bytes | None:
        end = self._heard.find(b"\r\n.\r\n")
        if end < 0:
            return None
        self.contents.append(self._heard[: end + 2].replace(b"\r\n.", b"\r\n"))
        self._heard = self._heard[end + 5 :]
        self._mode = "command"
        return self._answer("CONTENT")

    def _chunk(self, kind: str) -> bytes | None:
        if len(self._heard) < self._left:
            return None
        chunk, self._heard = self._heard[: self._left], self._heard[self._left :]
        self._mode = "command"
        if kind == "BDAT":
            self.contents.append(chunk)
        return self._answer(kind)

    def _answer(self, kind: str) -> bytes:
        self.asked.append(kind)
        number, self._times[kind] = self._times[kind], self._times[kind] + 1
        return self._orders.get((kind, number), self._usual_answer(kind))

    def _usual_answer(self, kind: str) -> bytes:
        if kind == "PROOF":
            return b"250 ok\r\n" if self.lines[-1] == b"RSET" else b"503 no sender\r\n"
        if (kind == "RCPT" and not self._has_sender) or (
            kind == "BDAT" and not self._has_recipient
        ):
            return b"503 not now\r\n"
        return self._usual.get(kind, b"250 ok\r\n")


class Seen(msgspec.Struct):
    """What came of a conversation."""

    finished: list[Transaction] = []
    lost: Lost | None = None
    is_ready: bool = False
    asked: list[str] = []
    handshakes: int = 0

    @property
    def times(self) -> set[Order]:
        """Everything that was asked, with the how-manieth it was."""
        asked = self.asked
        return {(kind, asked[:at].count(kind)) for at, kind in enumerate(asked)}

    @property
    def delivered(self) -> list[object]:
        """The owners of those with a final 2yz."""
        return [t.owner for t in self.finished if t.final is not None and t.final.is_positive]


class Owner:
    """Drives a client as a sender does, and checks at each step what must always hold."""

    def __init__(self, policy: Policy, host: Host, letters: Sequence[Letter]) -> None:
        self.client = Client(policy)
        self.host = host
        self.seen = Seen(asked=host.asked)
        self.codes: list[int] = []  # of the replies that came whole, one for each that was asked
        self._letters = list(enumerate(letters))
        self._wanted: Transaction | None = None
        self._stream = b""

    def talk(self, cut: Cut, *, turns: int = 200) -> Seen:
        """Converse until there is nothing more to say; `cut` says how what is said arrives."""
        said = self.host.greet()
        for _ in range(turns):
            for block in cut(said):
                self.hear(block)
            self._go_on()
            out = self.client.output()
            self.client.wrote(len(out))
            said = self.host.hear(out)
            if not out:
                return self._given_up()
        raise AssertionError(f"no end after {turns} turns: {self.host.asked}")

    def hear(self, block: bytes) -> None:
        """Hand over what has come."""
        client, was_lost = self.client, self.client.is_lost
        self._stream += block
        events = client.receive(block)
        self._read()
        assert not (was_lost and events), "an event after the end"
        for event in events:
            self._note(event)
        if client.is_lost:
            assert self.seen.lost is not None, "lost, and it wasn't said"
            assert client.output() == b"", "something is written after the end"
            return
        if not self._counts_otherwise:
            self._check_step()

    @property
    def _counts_otherwise(self) -> bool:
        """True when the proof took three replies, and the host knows of two commands."""
        return self.client.proved is False or self.host.asked[-1] == "PROOF"

    def _check_step(self) -> None:
        unanswered = self.host.asked[len(self.codes) :]
        awaited = [one.name for one in self.client.awaited]
        assert len(self.codes) <= len(self.host.asked), "an answer to nothing, and not lost"
        assert unanswered == awaited[: len(unanswered)]

    def _given_up(self) -> Seen:
        """Return what came of it, after the deadline where the host has fallen silent."""
        if not self.client.is_lost and self.client.awaited:
            for event in self.client.cut(Cause.TIMEOUT, "silence"):
                self._note(event)
        return self.seen

    def _go_on(self) -> None:
        """Do what a sender does: as much at once as the client allows."""
        client = self.client
        if client.is_lost or not self.seen.is_ready:
            return
        if client.chunks:
            while self._letters and client.may_begin:
                client.begin(self._letters[0][1], self._letters.pop(0)[0])
        elif not client.awaited:
            self._take_turn()
        if not self._letters:
            client.quit()

    def _take_turn(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self.client.content(wanted)
        if self._letters and (wanted is None or self.client.overlaps):
            number, letter = self._letters.pop(0)
            self.client.begin(letter, number)

    def _note(self, event: Event) -> None:
        assert self.seen.lost is None, "an event behind Lost"
        if isinstance(event, Finished):
            self._check(event.transaction)
            self.seen.finished.append(event.transaction)
        elif isinstance(event, ContentWanted):
            self._wanted = event.transaction
        elif isinstance(event, Lost):
            self.seen.lost = event
        elif isinstance(event, HandshakeWanted):
            self.seen.handshakes += 1
            if not self.client.is_lost:
                self.client.tls_started()
        elif isinstance(event, Ready):
            self.seen.is_ready = True

    def _read(self) -> None:
        """Read the replies that have come, in the simplest way there is."""
        while match := _REPLY.match(self._stream):
            self.codes.append(int(match[2]))
            self._stream = self._stream[match.end() :]

    def _check(self, transaction: Transaction) -> None:
        """Hold what the client believes against what was asked and said, by position."""
        number = transaction.owner
        assert isinstance(number, int)
        if self._counts_otherwise:
            return
        said = self._asked_for(number)
        for reply, kind in (
            (transaction.mail, "MAIL"),
            (transaction.data, "DATA"),
            (transaction.final, "CONTENT"),
        ):
            assert reply is None or [reply.code] == said.get(kind), f"{kind} of {number}: {said}"
        codes = [reply.code for reply in transaction.rcpt]
        assert codes == said.get("RCPT", [])[: len(codes)], f"RCPT of {number}: {said}"
        if transaction.final is not None and transaction.final.is_positive:
            assert transaction.has_recipients

    def _asked_for(self, number: int) -> dict[str, list[int]]:
        """Return what was said about the letter of this number, by what was asked."""
        found: dict[str, list[int]] = {}
        mails, contents = -1, iter(self.host.contents)
        for kind, code in zip(self.host.asked, self.codes, strict=False):
            mails += kind == "MAIL"
            has_content = kind in ("CONTENT", "BDAT")
            whose = number_of(next(contents)) if has_content else mails
            if whose == number:
                found.setdefault("CONTENT" if has_content else kind, []).append(code)
        return found


def number_of(content: bytes) -> int:
    """Return the number of the letter whose content this is; -1 when it is none's."""
    found = re.match(rb"EVIL: (\d+)\r\n", content)
    return int(found[1]) if found else -1


def whole(data: bytes) -> Iterator[bytes]:
    """Yield all at once."""
    if data:
        yield data


def drip(data: bytes) -> Iterator[bytes]:
    """Yield byte by byte."""
    for at in range(len(data)):
        yield data[at : at + 1]
