"""Jobs that go through a queue while something breaks: a taker, a settler and a beat."""

import threading
import time
from collections import Counter

from geomail.queue import Done, Queue, Slot


class Traffic:
    """One worker at work, whose every settled payload is counted, with the time of the last."""

    def __init__(self, queue: Queue, *, batch: int = 10) -> None:
        self.queue, self.batch = queue, batch
        self.settled: Counter[bytes] = Counter()
        self.settled_at = time.monotonic()
        self.longest_stall_s = 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=act) for act in (self._work, self._beat)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop taking, and wait until what was taken is settled."""
        self._over.set()
        while self._threads[0].is_alive():
            self.queue.wake()
            self._threads[0].join(0.05)
        self._threads[1].join()

    def _work(self) -> None:
        while not self._over.is_set():
            slots = self.queue.take(self.batch).slots
            if slots:
                self._settle(slots)
            else:
                self.queue.wait(1)

    def _settle(self, slots: list[Slot]) -> None:
        time.sleep(0.002)  # about what a host would take
        self.queue.settle([Done(slot) for slot in slots])
        now = time.monotonic()
        self.longest_stall_s = max(self.longest_stall_s, now - self.settled_at)
        self.settled_at = now
        self.settled.update(slot.payload for slot in slots)

    def _beat(self) -> None:
        while not self._over.wait(0.1):
            if not self.queue.beat():
                self.queue.register()
