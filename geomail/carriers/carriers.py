"""The carriers: who does what is no mail, HTTP requests and calls, beside the lanes and never in
their way.

Each task that runs has a greenlet of its own, and a place: `url_concurrency` of them for requests,
`task_processes` for calls. What waits for a place is ready in its route (routes.py); what a route
has no room for is parked in Redis, as mail is.

Places are shared by need: a host that wants few leaves the rest to the others. One that has not
answered for a moment, or never, gets half of what is free at most, and a twentieth is kept for
hosts that have none: so a host that hangs leaves places to all that don't.

Promised: a task that was taken is reported once, or given back. Not promised: that a request or a
call is made only once. One that a drain can't wait for is given back without a try being counted.
"""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from geomail import log, metrics
from geomail.carriers.routes import CALL, URL, TaskRoute
from geomail.carriers.task import Task
from geomail.config import Settings
from geomail.delivery.lanes import Lanes
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.delivery.pace import Backoff, fair_share
from geomail.delivery.shown import LaneShown
from geomail.errors import PayloadError
from geomail.job import CallTask, HttpTask

if TYPE_CHECKING:
    from geomail.carriers.calls import Calls
    from geomail.carriers.requests import Requests

_MOST_ROUTES = 2_000
_MOST_SHOWN = 50
_FILES_OF_A_CALL = 4
_SHARE_EVERY_S = 0.05
_KEPT_OF = 20  # a place in so many is for hosts that have none

Report = Callable[[Task, Outcome, float | None], None]


class Places:
    """So many tasks of one kind at a time, and who waits for a place."""

    def __init__(self, most: int, strand: Callable[[TaskRoute], None]) -> None:
        self.most = most
        self.strand = strand
        self.taken = 0
        self.routes: dict[str, TaskRoute] = {}
        self._first: dict[TaskRoute, None] = {}  # waits, and has none
        self._more: dict[TaskRoute, None] = {}
        self._share, self._shared_at = most, float("-inf")

    @property
    def free(self) -> int:
        """How many are not taken."""
        return max(0, self.most - self.taken)

    def most_for(self, route: TaskRoute, now: float) -> int:
        """Return how many tasks of a route may run at a time."""
        if route.is_heard(now) or route.name == CALL:
            return max(1, min(self._fair(now), self.most))
        return max(1, (self.free + len(route.active)) // 2)

    def take(self, route: TaskRoute, now: float) -> bool:
        """Take a place for one more task of a route; if it has to wait, `next` names it."""
        if len(route.active) >= self.most_for(route, now):
            return False
        if self.free > (self._kept() if route.active else 0):
            self.taken += 1
            return True
        (self._more if route.active else self._first)[route] = None
        return False

    def next(self) -> TaskRoute | None:
        """Return who is to have the place that has become free, each in turn."""
        for waiting, kept in ((self._first, 0), (self._more, self._kept())):
            if waiting and self.free > kept:
                route = next(iter(waiting))
                del waiting[route]
                return route
        return None

    def room(self, now: float) -> int:
        """Return how many more tasks can be used soon, wherever they go to."""
        waiting = sum(len(route.ready) for route in self.routes.values() if route.is_heard(now))
        return self.free + max(0, self.most - waiting)

    def _kept(self) -> int:
        return max(1, self.most // _KEPT_OF) if self.most > 1 and URL in self.routes else 0

    def _fair(self, now: float) -> int:
        if now >= self._shared_at + _SHARE_EVERY_S:
            self._shared_at = now
            wants = [route.in_hand for route in self.routes.values() if route.in_hand]
            self._share = fair_share(wants, self.most)
        return self._share


class Carriers:
    """All tasks that this worker has in hand."""

    def __init__(
        self,
        settings: Settings,
        *,
        house: Lanes,
        report: Report,
        give_back: Callable[[list[Task]], None],
    ) -> None:
        """Take tasks beside the mail of `house`; what may be called is imported now.

        `report` gets the outcome of each, and how many seconds its host wants to be left alone;
        `give_back` gets what can't be kept, for another place or another time. Raises ConfigError
        where what may be called can't be had.
        """
        self.met = 0  # ever
        self.is_draining = False
        self._settings = settings
        self._house = house
        self._report = report
        self._give_back = give_back
        self._requests: Requests | None = None
        self._caller: Calls | None = None
        self._url = Places(settings.url_concurrency, self._strand)
        self._calls = Places(settings.task_processes, self._strand)
        self._rest = Event()
        self._rest.set()
        self._running = 0
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings; hosts that were left alone are tried at once."""
        if self._caller is not None:
            self._caller.configure(settings)
        elif settings.has_calls:
            from geomail.carriers.calls import Calls  # 20 ms, for who needs it alone

            self._caller = Calls(settings)
        self._settings = settings
        if self._requests is not None:
            self._requests.configure(settings)
        elif settings.url_hosts:
            from geomail.carriers.requests import Requests

            self._requests = Requests(settings, pause_s=self._pause_s)
        self._url.most, self._calls.most = settings.url_concurrency, settings.task_processes
        for route in self._url.routes.values():
            route.backoff.end()
        if settings.url_hosts:
            self._route(self._url, URL)

    @property
    def is_on(self) -> bool:
        """True when there are tasks that could be done."""
        return self._settings.has_tasks

    def room(self) -> int:
        """Return how many more tasks can be used soon."""
        now = time.monotonic()
        room = self._url.room(now) if self._settings.url_hosts else 0
        if self._settings.has_calls:
            room += self._calls.room(now)
        return room

    def route_of(self, job: HttpTask | CallTask) -> TaskRoute:
        """Return where a task goes. Raises PayloadError with the reason why it is dead."""
        if isinstance(job, CallTask):
            if self._caller is None:
                raise PayloadError(
                    "calls are off: set tasks, or [task.NAME], to what may be called"
                )
            if reason := self._caller.reason_against(job):
                raise PayloadError(reason)
            return self._route(self._calls, CALL)
        if self._requests is None:
            raise PayloadError("URL tasks are off: set url_hosts to the hosts that may be asked")
        reason = self._requests.reason_against(job)
        if reason is not None:
            raise PayloadError(reason)
        return self._route(self._url, f"{URL}/{self._requests.key(job)}")

    def put(self, task: Task, route: TaskRoute) -> bool:
        """Take a task, or return False where its route has no room."""
        self.met += 1
        if self.is_draining or not route.has_place(time.monotonic()):
            return False
        self._hold(task, 1)
        route.ready.append(task)
        self._staff(route)
        return True

    def shown(self, now: float) -> list[LaneShown]:
        """Return what people are shown of where tasks go: work, trouble and calls."""
        routes = [route for route in self._routes() if route.is_in_use or route.name == CALL]
        routes.sort(key=lambda route: (-route.strikes, -route.in_hand))
        return [route.shown(now) for route in routes[:_MOST_SHOWN] if route.name != URL]

    # ---- the end

    def stop(self) -> list[Task]:
        """Begin nothing more; return what was ready and not begun."""
        self.is_draining = True
        return [task for route in self._routes() for task in self._emptied(route)]

    def join(self, timeout_s: float) -> list[Task]:
        """Wait for what is under way; return what could not be waited for, whose ends count no
        more.
        """
        if self._running:
            self._rest.wait(max(0.0, timeout_s))
        left = [task for route in self._routes() for task in route.active]
        for route in self._routes():
            for task in tuple(route.active):
                self._let_go(route, task)
        if self._caller is not None:
            self._caller.stop(0.0)
        if self._requests is not None:
            self._requests.close()
        return left

    # ---- under way

    def _staff(self, route: TaskRoute) -> None:
        now = time.monotonic()
        while route.ready and not self.is_draining and route.places.take(route, now):
            task = route.ready.popleft()
            route.active[task] = now
            self._running += 1
            self._rest.clear()
            gevent.spawn(self._carry, route, task)

    def _carry(self, route: TaskRoute, task: Task) -> None:
        began, asked_s, host = time.monotonic(), None, None
        if not task.is_mine():
            self._let_go(route, task)
            self._give_back([task])
            return
        try:
            outcome, asked_s, host = self._do(task)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            log.error("task_broke", id=task.slot.id, why=repr(error))
            outcome = Outcome(Fate.LATER, Blame.MESSAGE, "internal", repr(error))
        if task not in route.active:
            return  # given back by a drain
        whose = self._whose(route, host)
        self._judge(whose, outcome, began=began, asked_s=asked_s)
        self._let_go(route, task)
        if outcome.fate is Fate.AGAIN:
            self._give_back([task])
        else:
            self._report(task, outcome, asked_s)

    def _do(self, task: Task) -> tuple[Outcome, float | None, str | None]:
        job, slot = task.job, task.slot
        if isinstance(job, HttpTask) and self._requests is not None:
            metrics.count("urls")
            answer = self._requests.fetch(job, job_id=slot.id, is_callback=slot.state.callback)
            return answer.outcome, answer.again_in_s, answer.host
        if isinstance(job, CallTask) and self._caller is not None:
            return self._caller.call(job, job_id=slot.id, tries=slot.state.tries), None, None
        raise TypeError(f"nobody is there for {type(job).__name__}")

    def _whose(self, route: TaskRoute, host: str | None) -> TaskRoute:
        """Return the route of the host that the end of a task was the doing of."""
        name = f"{URL}/{host}"
        if host is None or name == route.name:
            return route
        route.hear(time.monotonic())  # it has answered: with a redirect
        return self._route(self._url, name)

    def _pause_s(self, host: str) -> float:
        route = self._url.routes.get(f"{URL}/{host}")
        return 0.0 if route is None else route.opens_in_s(time.monotonic())

    def _judge(
        self, route: TaskRoute, outcome: Outcome, *, began: float, asked_s: float | None
    ) -> None:
        if outcome.fate is Fate.DELIVERED:
            route.delivered += 1
        else:
            route.failed += 1
        now = time.monotonic()
        chance = random.random()  # noqa: S311 - jitter is no secret
        pause_s = route.note(outcome, began=began, now=now, chance=chance, asked_s=asked_s)
        if pause_s is not None:
            self._strand(route)
            gevent.spawn_later(pause_s, self._house.news.set)

    def _let_go(self, route: TaskRoute, task: Task) -> None:
        del route.active[task]
        route.places.taken -= 1
        self._running -= 1
        self._hold(task, -1)
        if self._running == 0:
            self._rest.set()
        if self.is_draining:
            return
        self._staff(route)
        while (waiting := route.places.next()) is not None:
            self._staff(waiting)
        self._house.want_more()

    def _hold(self, task: Task, sign: int) -> None:
        house, weight = self._house, sign * task.slot.weight
        house.tasks_in_hand += sign
        house.bytes_in_hand += weight
        if house.bytes_of is not None:
            house.bytes_of[task.queue.name] += weight

    # ---- routes

    def _strand(self, route: TaskRoute) -> None:
        """Give back what is ready of a route that can't have it now."""
        if stranded := self._emptied(route):
            self._give_back(stranded)

    def _emptied(self, route: TaskRoute) -> list[Task]:
        tasks = list(route.ready)
        route.ready.clear()
        for task in tasks:
            self._hold(task, -1)
        return tasks

    def _routes(self) -> list[TaskRoute]:
        return [*self._url.routes.values(), *self._calls.routes.values()]

    def _route(self, places: Places, name: str) -> TaskRoute:
        route = places.routes.get(name)
        if route is None:
            if len(places.routes) >= _MOST_ROUTES:
                self._tidy(places)
            settings = self._settings
            backoff = Backoff(settings.backoff_base_s, settings.backoff_cap_s)
            route = TaskRoute(name, places, backoff)
            whole = places.routes.get(route.relay)
            route.is_held = whole is not None and whole.is_held
            places.routes[name] = self._house.guests[name] = self._house.routes[name] = route
        return route

    def _tidy(self, places: Places) -> None:
        """Forget hosts that nothing is to be known of; where all are in trouble, the first half."""
        idle = [route for route in places.routes.values() if not route.is_busy]
        unused = [route for route in idle if not route.is_in_use] or idle[: _MOST_ROUTES // 2]
        for name in (route.name for route in unused):
            if name not in (URL, CALL):
                del places.routes[name], self._house.guests[name], self._house.routes[name]


def carried(settings: Settings) -> int:
    """Return how many files tasks may have open at a time."""
    requests = settings.url_concurrency if settings.url_hosts else 0
    return requests + (_FILES_OF_A_CALL * settings.task_processes if settings.has_calls else 0)
