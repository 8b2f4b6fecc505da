"""The steps of a mail with nothing else around: for where.py.

    python bench/steps.py queue    REDIS_URL COUNT TAKEN SETTLED
    python bench/steps.py thinking REDIS_URL COUNT TAKEN SETTLED
    python bench/steps.py lanes    REDIS_URL COUNT CONNECTIONS PORT

`queue`: COUNT mails are taken from a list, TAKEN at a time, and settled as delivered, SETTLED at a
time, with gevent's patches as in a worker; counted is the CPU time of just that.

`thinking`: what lies between. A real worker's admission puts the batch into its lane (decode,
route), what is in the lane is composed, and that it was delivered is reported, which makes a
record, writes it into a journal and counts. It runs without the patches: no greenlet gets its turn,
no connection is made, and what is asked of Redis meanwhile is not counted.

`lanes`: all between the ready queue and the outcome, composing and the conversation with the host
at PORT included: real lanes and senders, which get the same few mails again whenever they were
delivered.

The last line is what was used, as JSON, in seconds.
"""

import sys

if sys.argv[1] != "thinking":
    import geomail.__main__  # noqa: F401 - patches, before all else

import gc
import json
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stand import SENDER
from gevent.event import Event

from geomail import config
from geomail.delivery.delivery import Delivery
from geomail.delivery.lane import Lane
from geomail.delivery.lanes import Lanes
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import Address, Email, decode
from geomail.letter import compose
from geomail.queue import Done, Link, Queue, Slot
from geomail.queue.journal import Journal
from geomail.worker.clock import RedisClock
from geomail.worker.life import Worker
from geomail.worker.settler import Settler

_WARM = 2_000
_ROUND = 3  # mails for each connection
_PATIENCE_S = 60.0
_ARRIVED = Outcome(Fate.DELIVERED, Blame.NOBODY, "content", "250 2.0.0 Ok: queued as 4711", 250)


def main(step: str, url: str, count: int, *numbers: int) -> None:
    """Let COUNT mails pass, and tell."""
    link = Link(url)
    queue = Queue(link)
    queue.register()
    if step == "queue":
        told = _queue(_passing(queue, count, *numbers))
    elif step == "thinking":
        told = _think(link, queue, _passing(queue, count, *numbers))
    else:
        told = _Round(count).run(queue, *numbers)
    print(json.dumps(told))


def _passing(queue: Queue, count: int, taken: int, settled: int) -> Iterator[list[Slot]]:
    """Give batch after batch; what was given is settled."""
    passed, records = 0, []
    while passed < count:
        slots = queue.take(taken).slots
        if not slots:
            raise SystemExit("the list ran empty")
        yield slots
        passed += len(slots)
        records += [Done(slot) for slot in slots]
        while len(records) >= settled:
            queue.settle(records[:settled])
            del records[:settled]
    queue.settle(records)


def _queue(passing: Iterator[list[Slot]]) -> dict[str, float]:
    before = _settled_down()
    for _ in passing:
        pass
    return _since(before, "queue")


def _settled_down() -> resource.struct_rusage:
    """Leave what is there to itself, and return what was used until now."""
    gc.collect()
    gc.freeze()
    return resource.getrusage(resource.RUSAGE_SELF)


def _since(before: resource.struct_rusage, name: str) -> dict[str, float]:
    after = resource.getrusage(resource.RUSAGE_SELF)
    system_s = after.ru_stime - before.ru_stime
    used_s = after.ru_utime - before.ru_utime + system_s
    return {name: used_s, f"kernel's part of {name}": system_s}


def _think(link: Link, queue: Queue, passing: Iterator[list[Slot]]) -> dict[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
        worker = _worker(link, queue, folder)
        lane = worker.lanes.routes["default"].lanes[0]
        lane.health.heard_at = time.monotonic()  # before that it wants less than a batch
        journal = Journal(Path(folder))
        journal.enlist(queue.name, queue.worker)
        if not journal.is_open:
            raise SystemExit("no journal can be kept in the temporary folder")
        settler = Settler(
            worker.settings,
            RedisClock(),
            journal=journal,
            parts=lambda *_: None,
            delayed=lambda: None,
            parked=lambda _: None,
        )
        _settled_down()
        for slots in passing:
            with _timed(spent, "admit"):
                worker.admission.admit_batch(queue, slots)
            deliveries = lane.empty()
            if len(deliveries) < len(slots):
                raise SystemExit(f"of {len(slots)} mails {len(deliveries)} came into the lane")
            with _timed(spent, "compose"):
                for delivery in deliveries:
                    _compose(delivery)
            with _timed(spent, "report"):
                for delivery in deliveries:
                    settler.report(delivery, [_ARRIVED], lane)
            journal.settled(journal.appended)
    return dict(spent)


class _Round:
    """Mails that go round in real lanes until COUNT were delivered, some more before them."""

    def __init__(self, count: int) -> None:
        self._left = count + _WARM
        self._count = count
        self._before: resource.struct_rusage | None = None
        self._told: dict[str, float] | None = None
        self._is_over = Event()
        self._trouble = ""

    def run(self, queue: Queue, connections: int, port: int) -> dict[str, float]:
        """Deliver to `port`, and return what was used."""
        given = {"--relay": [f"smtp://127.0.0.1:{port}"], "--from": SENDER}
        given["--concurrency"] = str(connections)
        settings = config.load(given, {}, places=())
        lanes = Lanes(
            settings,
            report=self._report,
            progress=self._complain,
            stranded=self._complain,
            split=self._complain,
        )
        lane = lanes.routes["default"].lanes[0]
        for slot in queue.take(_ROUND * connections).slots:
            email = decode(slot.payload)
            assert isinstance(email, Email)
            lane.put(Delivery(queue, slot, email, email.recipients, Address(SENDER), "default"))
        if not self._is_over.wait(_PATIENCE_S) or self._told is None:
            raise SystemExit(self._trouble or "the lanes have stopped")
        return self._told

    def _report(self, delivery: Delivery, outcomes: list[Outcome], lane: Lane) -> None:
        if outcomes[0].fate is not Fate.DELIVERED:
            self._complain(outcomes[0])
            return
        self._left -= 1
        if self._left == self._count:
            self._before = _settled_down()
        if self._left:
            lane.put(delivery)
        else:
            assert self._before is not None
            self._told = _since(self._before, "lanes")
            self._is_over.set()

    def _complain(self, *what: object) -> None:
        self._trouble = repr(what)
        self._is_over.set()


def _worker(link: Link, queue: Queue, folder: str) -> Worker:
    given = {"--relay": ["smtp://127.0.0.1:9"], "--from": SENDER, "--data": folder}
    return Worker(config.load(given, {}, places=()), link, [queue])


def _compose(delivery: Delivery) -> None:
    compose(
        delivery.email,
        id=delivery.slot.id,
        first_seen_ms=delivery.slot.first_seen_ms,
        sender=delivery.sender,
        eight_bit=True,
        recipients=delivery.recipients,
    )


@contextmanager
def _timed(spent: defaultdict[str, float], name: str) -> Iterator[None]:
    began_s = time.process_time()
    yield
    spent[name] += time.process_time() - began_s


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
