"""A popper, a settler and a beat use one Queue at the same time, each over its own connection."""

import queue as waiting
import threading
import time
from collections.abc import Callable

from redis_servers import NewQueue

from geomail.queue import Done, Queue, Slot

pytest_plugins = ("queue_fixtures",)
JOBS = 3000


def test_three_roles_at_once(new_queue: NewQueue) -> None:
    worker, producer = new_queue(), new_queue()
    hands: waiting.SimpleQueue[list[Slot]] = waiting.SimpleQueue()
    seen: list[bytes] = []
    over = threading.Event()

    def pop() -> None:
        while not over.is_set():
            slots = worker.take(50).slots
            hands.put(slots)
            if not slots:
                worker.wait(5)

    def settle() -> None:
        deadline = time.monotonic() + 30
        while len(seen) < JOBS and time.monotonic() < deadline:
            slots = hands.get(timeout=30)
            worker.settle([Done(slot) for slot in slots])
            seen.extend(slot.payload for slot in slots)
        over.set()
        worker.wake()

    def beat() -> None:
        while not over.wait(0.001):
            assert worker.beat()

    _run_together(pop, settle, beat, lambda: _push(producer))
    assert sorted(map(int, seen)) == list(range(JOBS))
    assert "reconciled" not in worker.counts().stats
    assert worker.leave()


def _push(producer: Queue) -> None:
    for start in range(0, JOBS, 100):
        producer.push([b"%d" % number for number in range(start, start + 100)])


def _run_together(*acts: Callable[[], None]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
