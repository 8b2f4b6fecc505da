"""The steps of a mail with nothing else around: for where.py.

    python bench/steps.py queue    REDIS_URL COUNT TAKEN SETTLED
    python bench/steps.py thinking REDIS_URL COUNT TAKEN SETTLED

COUNT mails are taken from a list, TAKEN at a time, and settled as delivered, SETTLED at a time. No
connection is made to any host. `queue` counts the CPU time of just that, with gevent's patches as
in a worker. `thinking` counts what lies between: a real worker's admission puts the batch into its
lane (decode, route), what is in the lane is composed, and that it was delivered is reported, which
makes a record, writes it into a journal and counts. It runs without the patches: no greenlet gets
its turn, and what is asked of Redis meanwhile is not counted. The last line is what was used, as
JSON, in seconds.
"""

import sys

if sys.argv[1] == "queue":
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

from geomail import config
from geomail.delivery.delivery import Delivery
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.letter import compose
from geomail.queue import Done, Link, Queue, Slot
from geomail.queue.journal import Journal
from geomail.worker.clock import RedisClock
from geomail.worker.life import Worker
from geomail.worker.settler import Settler

_ARRIVED = Outcome(Fate.DELIVERED, Blame.NOBODY, "content", "250 2.0.0 Ok: queued as 4711", 250)


def main(step: str, url: str, count: int, taken: int, settled: int) -> None:
    """Let COUNT mails pass, and tell."""
    link = Link(url)
    queue = Queue(link)
    queue.register()
    passing = _passing(queue, count, taken, settled)
    told = _queue(passing) if step == "queue" else _think(link, queue, passing)
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
    gc.collect()
    gc.freeze()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in passing:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    system_s = after.ru_stime - before.ru_stime
    return {"queue": after.ru_utime - before.ru_utime + system_s, "kernel": system_s}


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
        gc.collect()
        gc.freeze()
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
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
