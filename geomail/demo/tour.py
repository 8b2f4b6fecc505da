"""The order of events in the demo, and the figures that come of it.

1. A Redis and a catcher are started; a backlog of `count` mails is pushed, as producers do it.
2. A worker is started, and watched until the backlog is through. Its CPU time is counted from the
   first look at which it is on Redis's books: Python's own start is not in it.
3. On the idle list, mails are pushed one by one, each when the one before has arrived.
4. The worker drains (SIGTERM) and leaves; what arrived is compared with what was pushed.

Two times from LPUSH to 250 come of it, and they mean different things: in the backlog a mail mostly
waits for its turn, and for the worker to start; alone it shows how fast one mail can be. Both end
when the catcher has the whole mail, in the instant before it writes its 250.
"""

import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from geomail.demo.figures import BACKLOG, SINGLE, Figures, compare
from geomail.demo.interrupts import Interrupts
from geomail.demo.mails import SENDER, payload
from geomail.demo.processes import Catcher, Worker
from geomail.demo.screen import Moment, Progress, Screen
from geomail.errors import ConfigError, GeomailError
from geomail.queue import Link, Queue, embedded
from geomail.queue.records import Counts

CONCURRENCY = 20

_SINGLES = 200
_PUSH_AT_ONCE = 100
_LOOK_S = 0.1
_FIRST_LOOK_S = 0.005
_RATE_OVER = 10  # looks
_PATIENCE_S = 30.0
_LEAST_CPU_S = 0.1  # /proc counts in hundredths


@dataclass(frozen=True, slots=True)
class Spent:
    """What the worker needed, where /proc tells: CPU time a mail in µs, and memory in MB."""

    cpu_us: float | None
    peak_mb: float | None


def run(count: int = 10_000) -> int:
    """Show `count` mails (and some more) on their way; return 0 if each arrived exactly once.

    Raises ConfigError where no Redis is installed, GeomailError when something does not start.
    """
    screen = Screen()
    screen.title(f"geomail demo: {count:,} mails from Redis to SMTP")
    with (
        Interrupts() as interrupts,
        _folder() as folder,
        ExitStack() as stack,
    ):
        try:
            stage = _set_up(Path(folder), stack, interrupts, screen)
            return _tour(count, stage, screen)
        finally:
            interrupts.end()


def _folder() -> "TemporaryDirectory[str]":
    try:
        return TemporaryDirectory(prefix="geomail-demo-")
    except OSError as error:
        raise ConfigError(f"no folder for temporary files ({error}): set TMPDIR") from None


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a tour plays on; `start_worker` is the curtain."""

    queue: Queue
    catcher: Catcher
    start_worker: Callable[[], Worker]
    interrupts: Interrupts


def _set_up(folder: Path, stack: ExitStack, interrupts: Interrupts, screen: Screen) -> _Stage:
    redis = stack.enter_context(embedded.start_private(folder / "redis"))
    interrupts.check()
    screen.step("Redis", f"127.0.0.1:{redis.port}, append-only, its own")
    catcher = stack.enter_context(Catcher(folder))
    interrupts.check()
    screen.step("sink", f"127.0.0.1:{catcher.port}, an SMTP server that takes all")
    queue = Queue(Link(redis.url))
    stack.callback(queue.close)
    flags = ["--relay", f"smtp://127.0.0.1:{catcher.port}", "--redis", redis.url]
    flags += ["--from", SENDER, "--concurrency", str(CONCURRENCY)]

    def start_worker() -> Worker:
        screen.step("worker", shlex.join(["geomail", "run", *flags]))
        return stack.enter_context(Worker(folder / "worker", flags))

    return _Stage(queue, catcher, start_worker, interrupts)


def _tour(count: int, stage: _Stage, screen: Screen) -> int:
    pushed_at = _push_backlog(stage, count, screen)
    worker = stage.start_worker()
    with screen.progress() as progress:
        cpu_us = _watch(stage, worker, count, progress)
    if not worker.is_running():
        raise GeomailError(f"the worker has ended by itself: {worker.last_words()}")
    singles = _push_singles(stage, count)
    spent = Spent(cpu_us, worker.peak_mb())
    worker.drain()
    stage.catcher.stop()
    figures = compare(pushed_at, singles, stage.catcher.arrivals())
    _show(screen, figures, spent, stage.catcher.last_single())
    return 0 if not figures.lost and not figures.twice else 1


def _push_backlog(stage: _Stage, count: int, screen: Screen) -> list[float]:
    """Push the backlog; return when each mail was pushed (Unix time)."""
    pushed_at: list[float] = []
    size, spent_s = 0, 0.0
    for first in range(0, count, _PUSH_AT_ONCE):
        numbers = range(first, min(first + _PUSH_AT_ONCE, count))
        payloads = [payload(BACKLOG, number) for number in numbers]
        size += sum(map(len, payloads))
        now = time.time()
        stage.interrupts.check()
        stage.queue.push(payloads)
        spent_s += time.time() - now
        pushed_at += [now] * len(payloads)
    php = count // 2
    kinds = f"{count - php:,} in JSON and {php:,} by PHP's serialize()"
    screen.step("LPUSH", f"{kinds}, {size // count:,} bytes each, in {spent_s:.2f} s")
    return pushed_at


def _watch(stage: _Stage, worker: Worker, count: int, progress: Progress) -> float | None:
    """Show how the backlog goes until it is through or stuck; return the CPU time a mail in µs."""
    looks: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)
    first: tuple[float | None, int] | None = None
    moved_at = time.monotonic()
    while True:
        stage.interrupts.check()
        counts = stage.queue.counts()
        cpu_s, now = worker.cpu_s(), time.monotonic()
        delivered = counts.stats.get("delivered", 0)
        if first is None and counts.workers:
            first = cpu_s, delivered
        if not looks or looks[-1][1] != delivered:
            moved_at = now
        looks.append((now, delivered))
        progress.show(_moment(counts, looks, count))
        is_over = delivered + counts.dead >= count or not worker.is_running()
        if is_over or now - moved_at > _PATIENCE_S:
            return _cpu_us(first, (cpu_s, delivered))
        time.sleep(_LOOK_S if first else _FIRST_LOOK_S)


def _moment(counts: Counts, looks: Sequence[tuple[float, int]], count: int) -> Moment:
    (then, had), (now, delivered) = looks[0], looks[-1]
    return Moment(
        rate=(delivered - had) / (now - then) if now > then else 0.0,
        in_flight=counts.in_flight,
        delivered=delivered,
        waiting=counts.waiting,
        dead=counts.dead,
        total=count,
    )


def _cpu_us(first: tuple[float | None, int] | None, last: tuple[float | None, int]) -> float | None:
    """Return the CPU time a mail between two looks; None where it is unknown or too short."""
    if first is None or first[0] is None or last[0] is None:
        return None
    spent_s, mails = last[0] - first[0], last[1] - first[1]
    return spent_s / mails * 1e6 if spent_s >= _LEAST_CPU_S else None


def _push_singles(stage: _Stage, count: int) -> list[float]:
    """Push mails one by one, each when the last has arrived; return when each was pushed."""
    pushed_at: list[float] = []
    while len(pushed_at) < min(_SINGLES, count):
        job = payload(SINGLE, len(pushed_at))
        pushed_at.append(time.time())
        stage.queue.push([job])
        if not _arrives(stage):
            break
    return pushed_at


def _arrives(stage: _Stage) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        stage.interrupts.check()
        if stage.catcher.next_line(_LOOK_S):
            return True
    return False


def _rows(figures: Figures, spent: Spent) -> Iterator[tuple[str, str, str]]:
    yield "delivered", f"{figures.delivered:,}", f"of {figures.pushed:,} pushed"
    yield "lost", f"{figures.lost:,}", ""
    yield "twice", f"{figures.twice:,}", ""
    rate = "?" if figures.rate is None else f"{figures.rate:,.0f} mails/s"
    yield "speed", rate, "backlog, first to last arrival"
    if spent.cpu_us is None:
        yield "CPU time", "?", "of the worker: too little to tell"
    else:
        yield "CPU time", f"{spent.cpu_us:,.0f} µs a mail", "of the worker, in the backlog"
    memory = "?" if spent.peak_mb is None else f"{spent.peak_mb:,.0f} MB"
    yield "peak memory", memory, "of the worker"


def _time_rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    for name, times, note in (
        ("all at once", figures.backlog, "a backlog: each waits its turn"),
        ("one by one", figures.single, "each after the last had arrived"),
    ):
        if times is not None:
            shown = f"{_ms(times.p50_s)} / {_ms(times.p99_s)} ms"
            yield name, shown, note


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.{0 if seconds >= 0.1 else 1}f}"


def _show(screen: Screen, figures: Figures, spent: Spent, last: bytes) -> None:
    screen.mail("one of the mails, as it arrived", last.decode("utf-8", "replace"))
    screen.table(_rows(figures, spent))
    screen.table(_time_rows(figures), title="Time from LPUSH to 250, p50 / p99")
    if figures.lost or figures.twice:
        said = f"{figures.lost:,} lost, {figures.twice:,} delivered twice"
        screen.verdict(said, is_good=False)
    else:
        screen.verdict("nothing lost, nothing delivered twice", is_good=True)
