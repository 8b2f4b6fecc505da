"""What is known to be parked in Redis, by list and route, and which routes to look at now.

A route is added when this worker parks mail for it, or when Redis tells that it may be tried, for
another worker may have parked it. It is forgotten when a take finds nothing there.

    awake     may have room: looked at in turn, some each round, however many there are
    asleep    closed or held: looked at again when it opens, in 5 s at the latest, or when somebody
              says that things have changed (`wake`)

A site of the relay `mx` whose route is forgotten is not looked at until Redis says that it is due,
and not while its hosts are known to be closed: then what is parked there is taken to be judged.

What a worker meets for routes without room, on its way to mails that others have room for, it parks
at a bounded rate for each list (`Meetings`): so nobody's Redis is busy with mails that can't go
anyway, and a list full of them stops no other.

So what is parked costs nothing while it waits: no timer a job, none a route, and no look at routes
that can't have room. That is so with any number of mails, and of routes.
"""

import heapq
import time
from collections import OrderedDict
from collections.abc import Iterable

from geomail.delivery.direct import Direct
from geomail.delivery.lanes import Lanes
from geomail.queue import Queue

_LOOKS = 64
_LONGEST_SLEEP_S = 5.0
_WINDOW_S = 0.1
_MOST_MET, _FOR_ONE_OF_USE = 500, 4
_WIDEST = 3.0  # if all of them are of use: lanes let wait a little more than they want


class _Routes:
    """The routes of one list; `due`: those of which Redis has said so."""

    __slots__ = ("asleep", "awake", "due", "heap")

    def __init__(self) -> None:
        self.awake: OrderedDict[str, None] = OrderedDict()
        self.asleep: dict[str, float] = {}
        self.heap: list[tuple[float, str]] = []
        self.due: set[str] = set()

    def add(self, name: str) -> None:
        if name not in self.asleep:
            self.awake[name] = None

    def forget(self, name: str) -> None:
        self.awake.pop(name, None)
        self.asleep.pop(name, None)
        self.due.discard(name)

    def sleep(self, name: str, until: float) -> None:
        self.asleep[name] = until
        heapq.heappush(self.heap, (until, name))

    def wake(self, now: float) -> None:
        while self.heap and self.heap[0][0] <= now:
            until, name = heapq.heappop(self.heap)
            if self.asleep.get(name) == until:
                del self.asleep[name]
                self.awake[name] = None


class Parked:
    """Which routes of which lists have mail in Redis that waits for them."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._by_list: dict[Queue, _Routes] = {}

    def __bool__(self) -> bool:
        return any(routes.awake or routes.asleep for routes in self._by_list.values())

    def add(self, queue: Queue, name: str) -> None:
        """Note that mail of a list is, or will be, parked for the route `name`."""
        self._of(queue).add(name)

    def note_due(self, queue: Queue, names: Iterable[str]) -> None:
        """Note that Redis says of these routes that they may be tried."""
        routes = self._of(queue)
        for name in names:
            if name not in self._lanes.routes:
                routes.due.add(name)
            routes.add(name)

    def forget(self, queue: Queue, name: str) -> None:
        """Note that nothing is parked there any more."""
        self._of(queue).forget(name)

    def wake(self) -> None:
        """Look at all of them again: something has changed."""
        for routes in self._by_list.values():
            routes.wake(float("inf"))

    def lists(self) -> list[Queue]:
        """Return the lists of which something is parked."""
        return [queue for queue, routes in self._by_list.items() if routes.awake or routes.asleep]

    def names(self) -> set[str]:
        """Return the routes for which something is parked."""
        return {
            name for routes in self._by_list.values() for name in (*routes.awake, *routes.asleep)
        }

    def turn(self, queue: Queue) -> list[str]:
        """Return the routes of a list that are to be asked now whether they have room."""
        routes = self._by_list.get(queue)
        if routes is None:
            return []
        now = time.monotonic()
        routes.wake(now)
        looks = [routes.awake.popitem(last=False)[0] for _ in range(min(_LOOKS, len(routes.awake)))]
        return [name for name in looks if self._is_to_be_asked(routes, name, now)]

    def _is_to_be_asked(self, routes: _Routes, name: str, now: float) -> bool:
        route = self._lanes.routes.get(name)
        if route is None:
            direct = self._lanes.directs.get(name.partition("/")[0])
            is_due = direct is None or (name in routes.due and _may_be_asked(direct, name, now))
            routes.due.discard(name)
            if is_due:
                routes.add(name)
            return is_due
        closed_s = _LONGEST_SLEEP_S if route.is_held else route.opens_in_s(now)
        if closed_s > 0.0:
            routes.sleep(name, now + min(closed_s, _LONGEST_SLEEP_S))
            return False
        routes.add(name)
        return True

    def _of(self, queue: Queue) -> _Routes:
        routes = self._by_list.get(queue)
        if routes is None:
            routes = self._by_list[queue] = _Routes()
        return routes


def _may_be_asked(direct: Direct, name: str, now: float) -> bool:
    return not direct.is_held and not direct.is_left_alone(name, now)


class Meetings:
    """How many mails of a list may be met in vain: some in 0.1 s, and four for each of use.

    So where mails of several routes lie mixed, those that can go are not kept waiting by the rest.
    Where many were met in vain just now, more are taken at once, so that as many are of use.
    """

    def __init__(self) -> None:
        self.in_vain = 0  # ever
        self._until = 0.0
        self._taken_before = self._in_vain_before = 0
        self._wider = 1.0

    def left(self, now: float, taken: int) -> int:
        """Return how many more may be taken at `now`, `taken` having been so far."""
        if now >= self._until:
            self._until = now + _WINDOW_S
            self._taken_before, self._in_vain_before = taken, self.in_vain
        in_vain = self.in_vain - self._in_vain_before
        of_use = max(0, taken - self._taken_before - in_vain)
        return max(0, _MOST_MET + _FOR_ONE_OF_USE * of_use - in_vain)

    def note(self, taken: int, in_vain: int) -> None:
        """Note how many a take of the list has brought, and how many of them in vain."""
        if taken:
            self._wider = min(_WIDEST, taken / max(1, taken - in_vain))

    def widened(self, room: int) -> int:
        """Return how many to take for `room` that are of use, if it is as it was just now."""
        return int(room * self._wider)

    def again_in_s(self, now: float) -> float:
        """Return the seconds until there are some left for sure."""
        return max(0.001, self._until - now)
