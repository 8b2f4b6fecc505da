"""The popper: takes what the lanes can use soon, and waits without polling when there is nothing.

It takes only while some open lane has room. Several lists share the lanes by weight: each that has
work is owed its part of what a lane wants ready, however full the lane is of others' mails, and
what it has no use for goes to the others, to who has had least for its weight first. So a list that
something has come to is asked at once: its mail overtakes thousands. What is parked for a lane that
has room again is taken at its own list's expense, and leaves half of the room to what is fresh.

A suspect (a job that two workers have died with) is taken alone, when nothing else is in hand, of
any list: now and then the popper holds back for a moment to let that come about.
"""

import math
import time
from collections.abc import Callable

import gevent

from geomail import log
from geomail.config import Settings
from geomail.delivery.lanes import Lanes
from geomail.delivery.route import Route
from geomail.errors import RedisUnusable
from geomail.queue import Batch, Counts, Queue
from geomail.worker.admission import Admission
from geomail.worker.appetite import Appetite
from geomail.worker.clock import RedisClock
from geomail.worker.settler import Settler

TAKE_LIMIT = 256
_IDLE_S = 5.0
_FULL_S = 1.0
_LAPSED_S = 0.1
_CLOSED_S = 30.0
_MAKE_WAY_S = 2.0
_WITH_SUSPECT_S = 0.05
_MAKE_WAY_EVERY_S = 10.0
_MOST_LOOKED_FOR = 1_000  # at the start; of others Redis tells when they are due
_LARGEST_TAKE = 1000
_TAKES = 8  # a second, where as many mails as there are connections are through in one
_UNSETTLED = 4  # takes, that is

Wait = Callable[[Queue], bool]


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
        unusable: Callable[[RedisUnusable], None],
        retire: Callable[[], bool],
        appetite: Appetite,
    ) -> None:
        """Take from `queues`.

        `unusable` is told why Redis can't be used; `retire` is asked when `max_messages` are taken
        whether to take no more.
        """
        self.is_draining = False
        self.taken = 0
        self._settings = settings
        self._queues = queues
        self._weights = dict(zip(queues, (weight for _, weight in settings.queues), strict=True))
        self._taken_of = dict.fromkeys(queues, 0)
        self._had = dict.fromkeys(queues, 0.0)  # mails for its weight
        self._now = 0.0  # of that, the part that everybody has had
        self._lanes = lanes
        self._appetite = appetite
        self._admission = admission
        self._parked = admission.parked
        self._settler = settler
        self._clock = clock
        self._unusable = unusable
        self._retire = retire
        self._most = settings.max_messages
        self._at_once = TAKE_LIMIT
        if len(queues) == 1:  # else an urgent mail waits behind its admissions, for 20 ms
            # Thousands of connections may all be answered before it is a popper's turn again.
            self._at_once = max(TAKE_LIMIT, min(_LARGEST_TAKE, settings.concurrency // _TAKES))
        self._rounds = 0
        self._empty: set[Queue] = set()
        self._rests = False  # until somebody tells, and not when a lane has room
        self._calls = 0  # how often somebody said that a list may have something
        self._waits: dict[tuple[Queue, Wait], gevent.Greenlet[..., None]] = {}
        self._next_due_ms: int | None = None
        self._suspects: set[Queue] = set()
        self._first: set[Queue] = set()  # those whose suspects may be taken in this round
        self._has_suspect = False
        self._make_way_until = 0.0

    def run(self) -> None:
        """Take until the drain, the last message of --max-messages, or the end of a --burst."""
        self._look_for_parked()
        while not self.is_draining:
            room = self._room()
            if room <= 0:
                if self._is_stuck():
                    return
                self._overtake()
                self._lanes.wait_for_room(self._full_s())
            elif self._makes_way():
                self._lanes.wait_for_room(_MAKE_WAY_S / 10)
            elif not self._take_round(room):
                if self._settings.burst and self._is_done():
                    return
                self._wait()
            if 0 < self._most <= self.taken:
                if self._retire():
                    self._finish()
                    return
                self._most = 0

    def _finish(self) -> None:
        """Wait until what was taken is settled: delivered, delayed, parked or dead."""
        while not self.is_draining and not self._is_empty_handed():
            self._lanes.wait_for_room(0.05)

    # ---- taking

    def _room(self) -> int:
        left = max(map(self._left, self._busy()), default=self._at_once)
        return min(self._appetite.room(time.monotonic()), self._limit(), left)

    def _limit(self) -> int:
        """Return how many may be taken at once, whatever the lanes have room for."""
        if self._settler.backlog > _UNSETTLED * self._at_once:
            return 0  # Redis does not take outcomes: send nothing that could not be crossed off
        if self._is_with_suspect():
            return 0
        return min(self._at_once, self._most - self.taken) if self._most else self._at_once

    def _left(self, queue: Queue) -> int:
        """Return how many of a list may be taken to be met in vain."""
        return self._admission.meetings[queue].left(time.monotonic(), self._taken_of[queue])

    def _full_s(self) -> float:
        """Return how long to wait for room at most."""
        if self._is_with_suspect():
            return _WITH_SUSPECT_S
        now, meetings = time.monotonic(), self._admission.meetings
        met = [meetings[queue].again_in_s(now) for queue in self._busy() if not self._left(queue)]
        return min(*met, _FULL_S, self._appetite.again_in_s(now))

    def _busy(self) -> list[Queue]:
        """Return the lists that may have something, fresh or parked."""
        parked = self._parked.lists()
        return [queue for queue in self._queues if queue not in self._empty or queue in parked]

    def _take_round(self, room: int) -> int:
        """Take up to `room` slots, or what is owed to the lists; return how many were taken."""
        self._look_at_what_is_due()
        self._rounds += 1
        taken = self._take_owed() if self._lanes.has_several_lists else 0
        if taken < room:
            for queue in self._by_turns():
                taken += self._take_from(queue, room - taken)
        self._first.clear()
        return taken

    def _overtake(self) -> None:
        """Take what is owed to lists that have little in lanes which are full of others' mails."""
        if self._lanes.has_several_lists and not self._makes_way():
            self._look_at_what_is_due()
            self._take_owed()

    def _take_owed(self) -> int:
        """Take of each list what the lanes lack of its part; return how many were taken."""
        taken = 0
        shares = self._shares()
        owed = {queue: self._lanes.room_for(queue.name, part) for queue, part in shares.items()}
        total = max(1, sum(owed.values()))
        for queue, part in shares.items():
            # More than one round can bring is brought in the same proportions.
            wanted = min(owed[queue], math.ceil(self._at_once * owed[queue] / total))
            taken += self._take_from(queue, wanted, part)
        return taken

    def _by_turns(self) -> list[Queue]:
        """Return the lists that may have something, who has had least for its weight first."""
        busy = self._busy()
        if len(busy) > 1:
            busy.sort(
                key=lambda queue: (
                    queue not in self._first,
                    self._had[queue],
                    -self._weights[queue],
                )
            )
        return busy

    def _shares(self) -> dict[Queue, float]:
        """Return the part of each list that may be taken from, by turns."""
        busy = [queue for queue in self._by_turns() if self._may_take(queue)]
        total = sum(self._weights[queue] for queue in busy)
        return {queue: self._weights[queue] / total for queue in busy}

    def _hungry(self) -> list[Queue]:
        """Return the lists that are not known to be empty, and that we may take from."""
        return [queue for queue in self._queues if self._is_hungry(queue)]

    def _is_hungry(self, queue: Queue) -> bool:
        return queue not in self._empty and self._may_take(queue)

    def _take_from(self, queue: Queue, room: int, share: float | None = None) -> int:
        """Take up to `room` of one list, as much of what is parked as of the rest.

        `share`: its part of lanes that may be full of others' mails. Without, what is free counts.
        """
        room = min(room, self._limit(), self._left(queue)) if room > 0 else 0
        if room <= 0:
            return 0
        taken = self._take_parked(queue, self._room_for_parked(queue, room), share)
        if taken < room and self._is_hungry(queue):
            taken += self._take_fresh(queue, room - taken)
        # What the list left is for the other half of what is parked, not for the next second.
        return taken + (self._take_parked(queue, room - taken, share) if taken < room else 0)

    def _room_for_parked(self, queue: Queue, room: int) -> int:
        """Return the half of `room`, rounded now up and now down: a probe is one or the other."""
        if not self._is_hungry(queue):
            return room
        return (room + self._rounds % 2) // 2

    def _may_take(self, queue: Queue) -> bool:
        if not self._lanes.bytes_to_take(queue.name):
            return False  # a list before this one has used it up, or it holds too much itself
        return queue.lease_is_mine() and ("queue", queue.name) not in queue.held

    def _take_fresh(self, queue: Queue, room: int) -> int:
        calls = self._calls
        wanted = self._admission.meetings[queue].widened(room)
        # What was parked may have used up the rest: then nobody asks whether the list is empty.
        wanted = min(wanted, self._limit(), self._left(queue))
        if wanted <= 0:
            return 0
        got = self._take(queue, wanted)
        if got == 0 and calls == self._calls:
            self._empty.add(queue)
            for wait in (_wait_for_producers, _wait_for_doors):
                if (queue, wait) not in self._waits:
                    self._waits[queue, wait] = gevent.spawn(self._wait_for, queue, wait)
        return got

    def _charge(self, queue: Queue, got: int) -> None:
        """Note what a list has had. One that had nothing for long has saved nothing."""
        if not self._lanes.has_several_lists:
            return
        self._now = max(self._now, min(self._had[each] for each in (queue, *self._hungry())))
        self._had[queue] = max(self._had[queue], self._now) + got / self._weights[queue]

    def _take_parked(self, queue: Queue, room: int, share: float | None) -> int:
        taken = 0
        for name in self._parked.turn(queue) if room > 0 and self._may_take(queue) else ():
            wanted = min(self._refill(queue, name, share, room), room - taken)
            if wanted > 0 and self._may_take(queue):
                taken += self._take_parked_for(queue, name, wanted)
        return taken

    def _refill(self, queue: Queue, name: str, share: float | None, room: int) -> int:
        """Return how many of those that are parked for the route `name` may come."""
        route, now = self._lanes.routes.get(name), time.monotonic()
        if route is None:
            return room  # a relay that nobody names any more: they are taken to be judged
        return route.refill(now) if share is None else route.refill_for(queue.name, share, now)

    def _take_parked_for(self, queue: Queue, name: str, wanted: int) -> int:
        calls = self._calls
        got = self._take(queue, wanted, route=name)
        if got < wanted:
            self._settler.hurry(queue, name)
        # What is being parked just now may have come too late for this take.
        if got == 0 and calls == self._calls and not self._settler.is_parking:
            self._parked.forget(queue, name)
        return got

    def _makes_way(self) -> bool:
        """Return whether to take nothing for now, so that a suspect can be taken alone."""
        if not self._suspects:
            return False
        now = time.monotonic()
        if self._is_empty_handed():
            self._first, self._suspects = self._suspects, set()
            self._empty -= self._first
            self._make_way_until = 0.0
        elif now > self._make_way_until + _MAKE_WAY_EVERY_S:
            self._make_way_until = now + _MAKE_WAY_S
        return now < self._make_way_until

    def _is_with_suspect(self) -> bool:
        if self._has_suspect and self._is_empty_handed():
            self._has_suspect = False
        return self._has_suspect

    def _take(self, queue: Queue, n: int, *, route: str | None = None) -> int:
        is_alone = len(self._queues) == 1 or self._is_empty_handed()
        most = self._lanes.bytes_to_take(queue.name)
        batch = queue.take(n, max_bytes=most, route=route, suspects=is_alone)
        self._note(queue, batch)
        self._charge(queue, len(batch.slots))
        self.taken += len(batch.slots)
        self._taken_of[queue] += len(batch.slots)
        if self.is_draining:
            for slot in batch.slots:
                self._admission.release(queue, slot)
        else:
            meetings = self._admission.meetings[queue]
            before = meetings.in_vain
            self._admission.admit_batch(queue, batch.slots)
            if route is None:
                meetings.note(len(batch.slots), meetings.in_vain - before)
        self._appetite.note(len(batch.slots), time.monotonic(), is_fresh=route is None)
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
        if len(self._queues) > 1:  # from others of its own list the queue keeps it apart
            self._has_suspect = self._has_suspect or any(slot.suspect for slot in batch.slots)
        self._parked.note_due(queue, batch.routes_due)

    def _look_for_parked(self) -> None:
        for queue in self._queues:
            for route in queue.parked_routes(_MOST_LOOKED_FOR):
                self._parked.add(queue, route)

    # ---- waiting

    def look_again(self) -> None:
        """Ask every list again, for something came that no list tells of."""
        self._calls += 1  # a take that is under way may have looked too early
        self._empty.clear()
        self._parked.wake()
        self._lanes.news.set()

    def note_parked(self, names: set[str]) -> None:
        """Look for what has been parked for these routes, if there is room for it by now."""
        self._calls += 1
        now, routes = time.monotonic(), self._lanes.routes
        # Woken for what can't go, as many a host is closed, it would take a few mails at a time.
        if self._rests or any(name not in routes or routes[name].refill(now) for name in names):
            self.look_again()

    def _wait(self) -> None:
        """Wait for the first payload of any list, the next due time, or room in another lane."""
        timeout_s = _IDLE_S
        if self._settings.burst:
            timeout_s = 0.05
        elif self._parked:
            timeout_s = _FULL_S  # another worker may have parked them
        if self._next_due_ms is not None:
            due_in_s = (self._next_due_ms - self._clock.now_ms()) / 1000
            timeout_s = min(timeout_s, max(0.001, due_in_s))
        if not all(queue.lease_is_mine() for queue in self._queues):
            timeout_s = min(timeout_s, _LAPSED_S)  # the next beat that comes through renews it
        # What is parked may wait for room in its own lane, while another has some to spare; and a
        # list that holds too much for the place of others until some of that is done.
        is_short = self._parked or self._is_shut_out()
        self._rests = not is_short
        wait = self._lanes.wait_for_room if is_short else self._lanes.wait_for_news
        is_told = wait(timeout_s)
        self._rests = False
        if not is_told:
            self._empty.clear()

    def _is_shut_out(self) -> bool:
        fresh = [queue for queue in self._queues if queue not in self._empty]
        return any(not self._lanes.bytes_to_take(queue.name) for queue in fresh)

    def _look_at_what_is_due(self) -> None:
        if self._next_due_ms is not None and self._next_due_ms <= self._clock.now_ms():
            self._next_due_ms = None
            self._empty.clear()

    def _wait_for(self, queue: Queue, wait: Wait) -> None:
        try:
            # A door has nothing to say for hours: then the other wait is what looks now and then.
            while not wait(queue) and queue in self._empty and not self.is_draining:
                pass
        except RedisUnusable as error:
            self._unusable(error)
        finally:
            del self._waits[queue, wait]
            self._calls += 1
            self._empty.discard(queue)
            self._lanes.news.set()

    # ---- the end of a burst

    def _is_empty_handed(self) -> bool:
        return self._lanes.in_hand() == 0 and self._settler.is_idle

    def _is_done(self) -> bool:
        """Return whether a burst has nothing left that it could do."""
        if not self._is_empty_handed() or self._parked_wait():
            return False
        asked = [queue for queue in self._queues if ("queue", queue.name) not in queue.held]
        return not any(_is_left_behind(queue.counts()) for queue in asked)

    def _is_stuck(self) -> bool:
        """Return whether a burst can do no more: all its routes have been closed for long."""
        if not self._settings.burst or not self._is_empty_handed():
            return False
        now = time.monotonic()
        return all(_is_given_up(route, now) for route in self._lanes.routes.values())

    def _parked_wait(self) -> bool:
        """Return whether something parked may still move: its route has not been closed long."""
        now = time.monotonic()
        names = self._parked.names()
        routes = [route for name, route in self._lanes.routes.items() if name in names]
        return any(not _is_given_up(route, now) for route in routes)


def _wait_for_producers(queue: Queue) -> bool:
    queue.wait(_IDLE_S)
    return True  # for all we know


def _wait_for_doors(queue: Queue) -> bool:
    return queue.wait_for_push(_IDLE_S)


def _is_given_up(route: Route, now: float) -> bool:
    since = route.closed_since or now
    return route.is_held or (route.is_closed(now) and now - since >= _CLOSED_S)


def _is_left_behind(counts: Counts) -> bool:
    """Return whether a worker that has stopped beating still holds jobs, or jobs wait."""
    stopped = any(
        held.jobs and (held.fenced or held.lease_left_ms <= 0) for held in counts.workers.values()
    )
    return stopped or counts.waiting > 0
