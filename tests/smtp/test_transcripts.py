"""Golden transcripts, replayed whole, byte by byte and at random splits.

Each file of transcripts/ is one conversation:

    # why it stands here
    policy: tls=may login=ann:secret pipeline=overlap     fields of Policy, all optional, and token=
    letter: a@a.example -> b@b.example c@b.example         what is sent, in order (or `none`);
            8bit and utf8 behind it say what the content and the addresses need
    text: .one\\ntwo                                        the content of the letter above
    dsn: RET=HDRS | NOTIFY=NEVER                           its parameters of MAIL and of RCPT
    under tls                                              TLS from the first byte
    whole                                                  lines S: come at once: cut, they differ

    S: a line of the server             S> the same without its end
    C: a line of the client             ! TLS, ! close, ! quit: a handshake, the server's end, ours
    E: an event that the lines before have caused, or have with the lines that follow

The lines C: between two lines S: are one write, neither more nor less, and nothing is written
before the last byte of the lines S: in front of them. The owner does what a sender does: content
when it is wanted, together with the next envelope where the conversation overlaps, and with
chunks as many messages as there is room for.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomail.letter import Letter
from geomail.smtp.auth import Login
from geomail.smtp.client import Client
from geomail.smtp.events import (
    ContentWanted,
    Event,
    Finished,
    HandshakeWanted,
    Lost,
    Policy,
    Ready,
    Transaction,
)

FOLDER = Path(__file__).parent / "transcripts"
PATHS = sorted(FOLDER.glob("*.txt"))

Cut = Callable[[bytes], list[bytes]]


class Step(msgspec.Struct):
    """Lines of one kind that belong together: what comes, what is written, what is done."""

    kind: str
    wire: bytes


class Transcript(msgspec.Struct):
    """One file, read."""

    policy: Policy
    letters: list[Letter]
    steps: list[Step]
    events: list[str]
    under_tls: bool
    is_cuttable: bool


class Owner:
    """Drives a conversation as a sender does, and notes what happens."""

    def __init__(self, script: Transcript) -> None:
        self.client = Client(script.policy, under_tls=script.under_tls)
        self.seen: list[str] = []
        self._letters = list(enumerate(script.letters, 1))
        self._wanted: Transaction | None = None

    def hear(self, received: bytes) -> None:
        """Hand over what came; act where nothing more is awaited."""
        for event in self.client.receive(received):
            self._note(event)
        if self._is_ready and self.client.chunks:
            while self._letters and self.client.may_begin:
                self._begin()
        elif self._is_ready and not self.client.awaited:
            self._go_on()

    @property
    def _is_ready(self) -> bool:
        return "ready" in self.seen and not self.client.is_lost

    def _note(self, event: Event) -> None:
        if isinstance(event, ContentWanted):
            self._wanted = event.transaction
        elif not isinstance(event, HandshakeWanted):
            self.seen.append(shown(event))

    def _go_on(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self.client.content(wanted)
        if self._letters and (wanted is None or self.client.overlaps):
            self._begin()

    def _begin(self) -> None:
        number, letter = self._letters.pop(0)
        assert self.client.may_begin
        assert self.client.refusal(letter) is None
        self.client.begin(letter, number)

    def write(self) -> bytes:
        """Take what there is to write, as if the kernel had taken it."""
        out = self.client.output()
        self.client.wrote(len(out))
        return out


def shown(event: Event) -> str:
    """Return an event as a transcript names it."""
    if isinstance(event, Ready):
        return "ready"
    if isinstance(event, Lost):
        phase = event.phase.value if event.phase else "nothing"
        return f"lost awaiting {phase}: {event.cause.value}: {event.text}"
    assert isinstance(event, Finished)
    t = event.transaction
    replies = [("MAIL", t.mail), *(("RCPT", r) for r in t.rcpt), ("DATA", t.data), ("", t.final)]
    codes = [f"{name} {reply.code}".strip() for name, reply in replies if reply is not None]
    return f"finished {t.owner}: {', '.join(codes)}"


# ---- reading the files


def load(path: Path) -> Transcript:
    """Read one file."""
    script = Transcript(Policy("client.example"), [], [], [], False, True)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    said = [line for line in lines if line[:2] in ("S:", "S>", "C:", "! ")]
    for line in lines:
        if line.startswith("E: "):
            script.events.append(line[3:])
        elif line not in said:
            _read_header(script, line)
    for (kind, _), group in groupby(said, key=lambda line: (line[0], line[:1] == "!" and line)):
        script.steps.append(Step(kind, b"".join(_wire(line) for line in group)))
    return script


def _read_header(script: Transcript, line: str) -> None:
    key, _, rest = line.partition(": ")
    if key == "policy":
        fields: dict[str, str] = dict(word.split("=", 1) for word in rest.split())
        user, _, password = fields.pop("login", "").partition(":")
        login = Login(user, password, fields.pop("token", None)) if user else None
        known = msgspec.structs.asdict(Policy("client.example", login=login)) | fields
        script.policy = msgspec.convert(known, Policy, strict=False)
    elif key == "letter":
        if rest != "none":
            script.letters.append(_letter(len(script.letters) + 1, rest))
    elif key == "text":
        content = rest.encode().decode("unicode_escape").encode("latin-1")
        script.letters[-1] = msgspec.structs.replace(script.letters[-1], content=content)
    elif key == "dsn":
        for_mail, _, for_rcpt = rest.partition("|")
        dsn = (for_mail.strip(), for_rcpt.strip())
        script.letters[-1] = msgspec.structs.replace(script.letters[-1], dsn=dsn)
    elif line == "under tls":
        script.under_tls = True
    else:
        assert line == "whole", f"a line that says nothing: {line!r}"
        script.is_cuttable = False


def _letter(number: int, line: str) -> Letter:
    mail_from, _, rest = line.partition(" -> ")
    words = rest.split()
    recipients = tuple(word for word in words if "@" in word)
    content = f"Subject: {number}\r\n\r\nHello\r\n".encode()
    return Letter(mail_from.strip("<>"), recipients, content, "8bit" in words, "utf8" in words)


def _wire(line: str) -> bytes:
    if line[0] == "!":
        return line[2:].encode()
    return line[3:].encode() + (b"" if line[1] == ">" else b"\r\n")


# ---- replaying them


def replay(script: Transcript, cut: Cut) -> None:
    """Replay a transcript, the server's bytes cut as `cut` says."""
    owner = Owner(script)
    assert owner.write() == b"", "nothing is said before the greeting"
    for step, following in _with_next(script.steps):
        if step.kind == "S":
            _come(owner, cut(step.wire), answer=following)
        elif step.kind == "!":
            _ACTIONS[step.wire.decode()](owner)
            _check_written(owner, following)
    assert owner.seen == script.events


def _come(owner: Owner, chunks: list[bytes], *, answer: Step | None) -> None:
    for chunk in chunks[:-1]:
        owner.hear(chunk)
        assert owner.write() == b"", f"written too early, at {chunk!r}"
    owner.hear(chunks[-1])
    _check_written(owner, answer)


def _check_written(owner: Owner, expected: Step | None) -> None:
    written = owner.write()
    assert written == (expected.wire if expected and expected.kind == "C" else b"")


def _with_next(steps: list[Step]) -> Iterator[tuple[Step, Step | None]]:
    return zip(steps, [*steps[1:], None], strict=True)


_ACTIONS: dict[str, Callable[[Owner], None]] = {
    "TLS": lambda owner: owner.client.tls_started(),
    "quit": lambda owner: owner.client.quit(),
    "close": lambda owner: owner.hear(b""),
}


def byte_by_byte(wire: bytes) -> list[bytes]:
    """Cut everywhere."""
    return [bytes([byte]) for byte in wire]


def name(path: Path) -> str:
    """Name a test after its file."""
    return path.stem


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_transcript_whole(path: Path) -> None:
    replay(load(path), lambda wire: [wire])


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_a_transcript_byte_by_byte(path: Path) -> None:
    script = load(path)
    if script.is_cuttable:
        replay(script, byte_by_byte)


@pytest.mark.parametrize("script", [load(path) for path in PATHS], ids=map(name, PATHS))
@settings(max_examples=20)
@given(data=st.data())
def test_a_transcript_at_random_splits(script: Transcript, data: st.DataObject) -> None:
    def cut(wire: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(wire)), max_size=5)) - {len(wire)})
        return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    if script.is_cuttable:
        replay(script, cut)


def test_there_are_transcripts() -> None:
    assert len(PATHS) >= 140
