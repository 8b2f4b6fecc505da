"""Alarms: when to look at which lane again, by one timer for all of them.

A lane that is forgotten meanwhile is not kept for its alarm's sake: a hundred thousand hosts that
are closed for five minutes cost a hundred bytes each. An alarm rings at its time or a moment later,
never before. What it rings for may fail: that is logged, and the others ring.
"""

import heapq
import itertools
import time
import weakref
from collections.abc import Callable

import gevent
from gevent.event import Event

from geomail import log
from geomail.delivery.lane import Lane


class Alarms:
    """The alarms of all lanes, the next one first."""

    def __init__(self, ring: Callable[[Lane], None]) -> None:
        self._ring = ring
        self._set: list[tuple[float, int, weakref.ref[Lane]]] = []
        self._numbers = itertools.count()
        self._earlier = Event()
        self._waiting: gevent.Greenlet[[], None] | None = None

    def __len__(self) -> int:
        return len(self._set)

    def set(self, lane: Lane, delay_s: float) -> None:
        """Ring for `lane` in so many seconds, if it is there then."""
        at = time.monotonic() + delay_s
        is_earlier = not self._set or at < self._set[0][0]
        heapq.heappush(self._set, (at, next(self._numbers), weakref.ref(lane)))
        if self._waiting is None:
            self._waiting = gevent.spawn(self._wait)
        elif is_earlier:
            self._earlier.set()

    def _wait(self) -> None:
        while self._set:
            self._earlier.clear()
            left_s = self._set[0][0] - time.monotonic()
            if left_s > 0.0:
                self._earlier.wait(left_s)
                continue
            lane = heapq.heappop(self._set)[2]()
            if lane is not None:
                self._ring_for(lane)
            del lane  # or the last one would be kept until the next
        self._waiting = None

    def _ring_for(self, lane: Lane) -> None:
        try:
            self._ring(lane)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            log.error("alarm_broke", host=lane.name, why=repr(error))
