"""kill -9 at one exact point of a mail's way, and exactly what comes of it.

A proxy in front of Redis or of the host kills the worker when it sees the bytes of that point. One
mail is on its way then, so the result is exact: how often it arrives, and whether the journal makes
a difference.
"""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from scenarios.at_rest import check
from scenarios.meddler import Meddler, RedisMeddler, Talk, cut_off, let_through
from scenarios.stage import Process, Stage, mail, until, users

FINAL_250 = b"250 2.0.0"
DONE_BEFORE = 5


class Ambush:
    """Kills a worker once, where it is told to."""

    def __init__(self, stage: Stage) -> None:
        self.redis, self.host = RedisMeddler(stage.server.port), stage.host()
        self.smtp = Meddler(self.host.port)
        self.victim: Process | None = None

    def close(self) -> None:
        self.redis.close()
        self.smtp.close()

    def strike(self) -> None:
        """End the worker as a crash would."""
        assert self.victim is not None
        self.victim.signal(signal.SIGKILL)
        self.redis.asked = self.smtp.asked = cut_off  # its last words come too late
        self.victim.wait()
        self.redis.asked = self.redis.answered = let_through
        self.smtp.asked = self.smtp.answered = let_through

    # ---- the points; each returns nothing, and has the proxies wait for its moment

    def after_take(self) -> None:
        self.redis.answered = self._when("take", b"This is mail", goes_on=True)

    def taken_and_never_told(self) -> None:
        self.redis.answered = self._when("take", b"This is mail")

    def before_mail(self) -> None:
        self.smtp.asked = self._when("MAIL", b"MAIL FROM")

    def before_data(self) -> None:
        self.smtp.answered = self._when("*", b"354 ")

    def in_data(self) -> None:
        self.smtp.asked = self._when("*", b"This is mail", half=True)

    def before_250(self) -> None:
        self.smtp.answered = self._when("*", FINAL_250, after=b"\r\n.\r\n")

    def after_250(self) -> None:
        self.smtp.answered = self._when("*", FINAL_250, after=b"\r\n.\r\n", goes_on=True)

    def before_settle(self) -> None:
        self.redis.asked = self._when("settle", b"")

    def half_a_settle(self) -> None:
        self.redis.asked = self._when("settle", b"", half=True)

    def in_settle(self) -> None:
        self.redis.answered = self._when("settle", b"")

    def _when(
        self,
        verb: str,
        words: bytes,
        *,
        after: bytes = b"",
        half: bool = False,
        goes_on: bool = False,
    ) -> Callable[[Talk, str, bytes], bytes | None]:
        is_near = not after

        def note(_talk: Talk, _verb: str, data: bytes) -> bytes:
            nonlocal is_near
            is_near = is_near or after in data
            return data

        def look(talk: Talk, said: str, data: bytes) -> bytes | None:
            if verb not in ("*", said) or words not in data or not is_near:
                return data
            if half:
                talk.server.sendall(data[: len(data) // 2])
            if goes_on:
                talk.client.sendall(data)
            self.strike()
            return None

        if after:
            self.smtp.asked = note
        return look


@pytest.fixture
def ambush(stage: Stage) -> Iterator[Ambush]:
    with closing(Ambush(stage)) as prepared:
        yield prepared


EXACT = {  # how often the mail arrives: with the journal, and without it
    Ambush.after_take: ({1}, {1}),
    Ambush.taken_and_never_told: ({1}, {1}),
    Ambush.before_mail: ({1}, {1}),
    Ambush.before_data: ({1}, {1}),
    Ambush.in_data: ({1}, {1}),
    Ambush.before_250: ({2}, {2}),  # the host has it, and nobody was told
    Ambush.after_250: ({1, 2}, {2}),  # read and in the journal, or not read yet
    Ambush.before_settle: ({1}, {2}),
    Ambush.half_a_settle: ({1}, {2}),
    Ambush.in_settle: ({1}, {1}),
}
CASES = [
    (point, has_journal, results[0 if has_journal else 1])
    for (point, results), has_journal in itertools.product(EXACT.items(), (True, False))
]


@pytest.mark.parametrize(
    ("point", "has_journal", "times"),
    CASES,
    ids=[f"{point.__name__}-{'journal' if kept else 'none'}" for point, kept, _ in CASES],
)
def test_killed(
    stage: Stage,
    ambush: Ambush,
    point: Callable[[Ambush], None],
    has_journal: bool,
    times: set[int],
) -> None:
    relay = f"smtp://127.0.0.1:{ambush.smtp.port}"
    settings = {"redis": ambush.redis.url, "lease_s": 30, "beat_s": 5, "journal": has_journal}
    ambush.victim = stage.worker("--concurrency", "1", relay=relay, **settings)
    stage.push(map(mail, range(DONE_BEFORE)))
    ambush.host.has_taken(DONE_BEFORE)
    until(stage.is_clean)
    [name] = stage.counts().workers

    point(ambush)
    stage.push([mail(DONE_BEFORE)])
    until(lambda: ambush.victim is not None and not ambush.victim.is_running, point.__name__)
    is_crossed_off = point is Ambush.in_settle
    check(stage, pushed=1, delivered=int(is_crossed_off))

    # The same machine starts again. Without a journal only the lease would tell that it is dead.
    other = stage.worker(relay=relay, journal=has_journal, redis=ambush.redis.url, lease_s=30)
    other.says("running")
    if not has_journal:
        stage.queue.reap([name])
        stage.push([mail("wakes")])
    until(stage.is_clean)
    check(stage, pushed=0, delivered=0)
    arrivals = ambush.host.arrivals()
    arrivals.pop("uwakes@example.org", None)
    last = arrivals.pop(users(DONE_BEFORE + 1)[-1])
    assert arrivals == dict.fromkeys(users(DONE_BEFORE), 1)
    assert last in times
    ids = {taken.id for taken in ambush.host.look() if f"u{DONE_BEFORE}@example.org" in taken.to}
    assert len(ids) == 1  # a receiver can tell
