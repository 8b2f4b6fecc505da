"""The popper: takes what the lanes can use soon, and waits without polling when there is nothing.

It takes only while some open lane has room: first what was parked for such a lane, then from the
lists by turns, each by its weight, unused shares passed on. A suspect (a job that two workers have
died with) is taken alone, when nothing else is in hand.
"""

import time

import gevent

from geomail import log
from geomail.config import Settings
from geomail.delivery.lanes import Lanes
from geomail.queue import Batch, Counts, Queue
from geomail.worker.admission import Admission
from geomail.worker.clock import RedisClock
from geomail.worker.settler import Settler

TAKE_LIMIT = 256
_IDLE_S = 5.0
_FULL_S = 1.0
_CLOSED_S = 30.0


class Popper:
    """Takes batches from the lists for as long as the worker runs."""

    def __init__(
        self,
        settings: Settings,
        queues: list[Queue],
        *,
        lanes: Lanes,
        admission: Admission,
        settler: Settler,
        clock: RedisClock,
    ) -> None:
        self.is_draining = False
        self.taken = 0
        self._settings = settings
        self._queues = queues
        self._weights = dict(zip(queues, (weight for _, weight in settings.queues), strict=True))
        self._deficits = dict.fromkeys(queues, 0)
        self._lanes = lanes
        self._admission = admission
        self._settler = settler
        self._clock = clock
        self._waiters: dict[Queue, gevent.Greenlet[..., None]] = {}
        self._next_due_ms: int | None = None
        self._suspects: set[Queue] = set()

    def run(self) -> None:
        """Take until the drain, the last message of --max-messages, or the end of a --burst."""
        self._look_for_parked()
        while not self.is_draining:
            room = self._room()
            if room <= 0:
                if self._settings.burst and self._is_stuck():
                    return
                self._lanes.wait_for_room(_FULL_S)
            elif self._take_suspect():
                continue
            elif not self._take_round(room):
                if self._settings.burst and self._is_done():
                    return
                self._wait()
            if 0 < self._settings.max_messages <= self.taken:
                return

    # ---- taking

    def _room(self) -> int:
        room = min(self._lanes.room(), TAKE_LIMIT)
        most = self._settings.max_messages
        return min(room, most - self.taken) if most else room

    def _take_round(self, room: int) -> int:
        """Take up to `room` slots, parked ones first; return how many were taken."""
        taken = self._take_parked()
        room -= taken
        for queue in self._by_turns():
            if room <= 0:
                break
            share = min(room, max(1, self._deficits[queue]))
            got = self._take(queue, share)
            self._deficits[queue] = 0 if got < share else max(0, self._deficits[queue] - got)
            room -= got
            taken += got
        return taken

    def _by_turns(self) -> list[Queue]:
        if len(self._queues) == 1:
            self._deficits[self._queues[0]] = TAKE_LIMIT
            return self._queues
        quantum = max(1, TAKE_LIMIT // sum(self._weights.values()))
        for queue in self._queues:
            most = TAKE_LIMIT * self._weights[queue]
            gained = self._deficits[queue] + quantum * self._weights[queue]
            self._deficits[queue] = min(gained, most)
        return sorted(self._queues, key=lambda queue: -self._deficits[queue])

    def _take_parked(self) -> int:
        taken = 0
        now = time.monotonic()
        for queue, name in tuple(self._admission.parked):
            route = self._lanes.routes.get(name)
            room = min(route.room(now), TAKE_LIMIT) if route is not None else 0
            if room > 0:
                got = self._take(queue, room, route=name)
                if got == 0:
                    self._admission.parked.discard((queue, name))
                taken += got
        return taken

    def _take_suspect(self) -> bool:
        """Take one suspect when there is one and nothing else is in hand; else make way for it."""
        if not self._suspects:
            return False
        if not self._is_empty_handed():
            self._lanes.wait_for_room(0.05)
            return True
        for queue in tuple(self._suspects):
            self._suspects.discard(queue)
            if self._take(queue, 1):
                while not self.is_draining and not self._is_empty_handed():
                    self._lanes.wait_for_room(0.05)
                return True
        return False

    def _take(self, queue: Queue, n: int, *, route: str | None = None) -> int:
        batch = queue.take(n, max_bytes=self._settings.take_mb * 1_000_000, route=route)
        self._note(queue, batch)
        self.taken += len(batch.slots)
        for slot in batch.slots:
            if self.is_draining:
                self._admission.release(queue, slot)
            else:
                self._admission.admit(queue, slot)
        return len(batch.slots)

    def _note(self, queue: Queue, batch: Batch) -> None:
        if batch.fenced:
            log.warning("lease_lost", list=queue.name, worker=queue.worker)
            queue.register()
            return
        if batch.slots or not batch.suspects_waiting:
            self._clock.set(batch.now_ms)
        if batch.next_due_ms is not None:
            known = self._next_due_ms
            self._next_due_ms = min(known, batch.next_due_ms) if known else batch.next_due_ms
        if batch.suspects_waiting:
            self._suspects.add(queue)
        self._admission.parked.update((queue, route) for route in batch.routes_due)

    def _look_for_parked(self) -> None:
        for queue in self._queues:
            for route in queue.counts().parked:
                self._admission.parked.add((queue, route))

    # ---- waiting

    def _wait(self) -> None:
        """Wait for the first payload of any list, the next due time, or room in another lane."""
        timeout_s = _IDLE_S
        if self._next_due_ms is not None:
            timeout_s = min(
                timeout_s, max(0.001, (self._next_due_ms - self._clock.now_ms()) / 1000)
            )
            self._next_due_ms = None
        if self._settings.burst:
            timeout_s = min(timeout_s, 0.05)
        elif self._admission.parked:
            timeout_s = min(timeout_s, _FULL_S)  # another worker may have parked them
        for queue in self._queues:
            waiter = self._waiters.get(queue)
            if waiter is None or waiter.dead:
                self._waiters[queue] = gevent.spawn(self._wait_for, queue, _IDLE_S)
        self._lanes.wait_for_news(timeout_s)

    def _wait_for(self, queue: Queue, timeout_s: float) -> None:
        queue.wait(timeout_s)
        self._lanes.news.set()

    # ---- the end of a burst

    def _is_empty_handed(self) -> bool:
        return self._lanes.in_hand() == 0 and self._settler.is_idle

    def _is_done(self) -> bool:
        """Return whether a burst has nothing left that it could do."""
        if not self._is_empty_handed() or self._parked_wait():
            return False
        return not any(_is_left_behind(queue.counts()) for queue in self._queues)

    def _is_stuck(self) -> bool:
        """Return whether all lanes have been closed for long: a burst does not wait for them."""
        return self._is_empty_handed() and not self._parked_wait()

    def _parked_wait(self) -> bool:
        """Return whether something parked may still move: its route has not been closed long."""
        now = time.monotonic()
        for _, name in self._admission.parked:
            route = self._lanes.routes.get(name)
            if route is None:
                continue
            if not route.is_closed(now) or now - (route.closed_since or now) < _CLOSED_S:
                return True
        return False


def _is_left_behind(counts: Counts) -> bool:
    """Return whether a worker that has stopped beating still holds jobs, or jobs wait."""
    stopped = any(
        held.jobs and (held.fenced or held.lease_left_ms <= 0) for held in counts.workers.values()
    )
    return stopped or counts.waiting > 0
