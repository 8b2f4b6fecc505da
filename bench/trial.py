"""One trial of hosts.py: hosts, a Redis, mails in front of a worker, and what became of them.

Rates are the hosts' own, taken between two looks at their counts, which cost Redis nothing. How
busy the worker's core was in between says whose limit a rate is: near 100 % it is the worker's.

The books are closed with the worker: every mail that was pushed has its own number, so what neither
arrived nor lies in Redis is lost, and what arrived again came twice.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import stand
import redis
from farm import Arrival, Farm, Plan, farm

from geomail.demo.processes import Worker
from geomail.queue import Counts, Queue

_AT_ONCE = 1000
_LOOK_S = 0.02
_PATIENCE_S = 60.0
_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """Mails a second that the hosts have taken, and how busy worker and hosts kept their cores."""

    rate: float
    busy: float
    hosts_busy: float

    def __str__(self) -> str:
        return f"{self.rate:>8,.0f} mails/s, core {self.busy:4.0%} busy"

    @property
    def cpu_us(self) -> float:
        """Return the worker's CPU time a mail in µs."""
        return self.busy / max(1.0, self.rate) * 1e6


@dataclass(frozen=True, slots=True)
class Books:
    """What became of the mails: `left` lie in Redis."""

    pushed: int
    left: int
    lost: int
    twice: int

    def __str__(self) -> str:
        return f"{self.pushed:,} pushed, {self.lost:,} lost, {self.twice:,} twice"


@dataclass(slots=True)
class Trial:
    """Who takes part; the worker comes with `hire`."""

    farm: Farm
    queue: Queue
    url: str
    folder: Path
    pushed: int = 0

    def push(self, mails: Iterable[bytes], queue: Queue | None = None) -> None:
        """Push mails to the trial's list, or to another one."""
        mails = iter(mails)
        while batch := list(islice(mails, _AT_ONCE)):
            (queue or self.queue).push(batch)
            self.pushed += len(batch)

    @contextmanager
    def hire(self, flags: Sequence[object], *, config: str = "") -> Iterator[Worker]:
        """Run a worker on its own core."""
        told = ["--redis", self.url, "--grace", _GRACE_S, *flags]
        with stand.worker(self.folder, list(map(str, told)), config=config) as worker:
            yield worker
            worker.drain()

    def wait_for(self, condition: Callable[[], bool], worker: Worker, what: str) -> None:
        """Wait until `condition()` holds, or end the bench."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if not worker.is_running() or time.monotonic() > deadline:
                raise SystemExit(f"waited in vain {what}: {worker.last_words()}")
            time.sleep(_LOOK_S)

    def pace(
        self, worker: Worker, names: Collection[str], *, warm_s: float, timed_s: float
    ) -> Pace:
        """Return the pace of the hosts of these names, `warm_s` after their first mail."""
        self.wait_for(lambda: self.farm.mails(names) > 0, worker, "for a first mail")
        time.sleep(warm_s)
        began_s, before = time.monotonic(), self.farm.mails(names)
        used_s = [stand.cpu_s(pid) for pid in (worker.pid, self.farm.pid)]
        time.sleep(timed_s)
        lasted_s, mails = time.monotonic() - began_s, self.farm.mails(names) - before
        now_s = [stand.cpu_s(pid) for pid in (worker.pid, self.farm.pid)]
        busy = [(now - used) / lasted_s for now, used in zip(now_s, used_s, strict=True)]
        return Pace(mails / lasted_s, *busy)

    def arrived(self, count: int, worker: Worker, *, within_s: float) -> list[Arrival]:
        """Wait until so many mails have arrived, and return them all."""
        names = tuple(self.farm.ports)
        deadline = time.monotonic() + within_s
        while self.farm.mails(names) < count and time.monotonic() < deadline:
            if not worker.is_running():
                raise SystemExit(f"the worker has ended: {worker.last_words()}")
            time.sleep(_LOOK_S)
        return self.farm.arrivals()

    def books(self, *queues: Queue, is_left_expected: bool = False) -> Books:
        """Close the books, once the worker has left; mails must be left where that is expected."""
        numbers = [arrival.number for arrival in self.farm.arrivals()]
        counts = [queue.counts() for queue in (self.queue, *queues)]
        left = sum(map(_left, counts))
        if is_left_expected and not sum(each.list + each.arrive for each in counts):
            print("  the list ran empty: too few were pushed, and these figures are no figures")
        lost = max(0, self.pushed - len(set(numbers)) - left)
        return Books(self.pushed, left, lost, len(numbers) - len(set(numbers)))


@contextmanager
def trial(plans: Sequence[Plan]) -> Iterator[Trial]:
    """Start hosts and a Redis."""
    with farm(plans) as hosts, stand.fresh_queue() as (queue, url, folder):
        # The file would be written anew amid the trial, and grows by less than there is room for.
        with redis.Redis.from_url(url) as server:
            server.config_set("auto-aof-rewrite-percentage", "0")
        yield Trial(hosts, queue, url, folder)


def mails(numbers: Iterable[int], *, size: int, relay: str = "") -> Iterator[bytes]:
    """Return the payloads of mails with these numbers."""
    body = stand.text_of(size)
    return (stand.mail(number, body, relay) for number in numbers)


def aim(what: str, *, is_met: bool) -> str:
    """Return an aim, and whether it is met."""
    return f"(aim {what}: {'met' if is_met else 'MISSED'})"


def _left(counts: Counts) -> int:
    places = (counts.list, counts.arrive, counts.pushed, counts.front, counts.suspects)
    held = sum(worker.jobs for worker in counts.workers.values())
    return sum(places) + counts.delayed + counts.dead + sum(counts.parked.values()) + held
