"""The routes of tasks: `url/<host:port>`, one for each host, and `call`.

To the popper, and to what is parked, they are routes like those of mail, but have no lanes: what
is ready waits here, and carriers.py starts it. A host that fails is left alone:

    three tries in a row that the host failed, or at which it said to slow down
                    closed for 1, 2, 4, 8 … seconds, or as long as it asked for, an hour at most;
                    what was ready goes back to Redis, parked, and none of its tries is counted
    the pause over  one task finds out whether the host is back
    any answer      all of it is forgotten

Tries that were under way together fail together, and count once. The host of calls is this machine:
it fails where no process can be made.
"""

from collections import deque
from typing import TYPE_CHECKING

from geomail import log, metrics
from geomail.carriers.task import Task
from geomail.delivery.delivery import Delivery
from geomail.delivery.outcome import Blame, Outcome
from geomail.delivery.pace import Backoff
from geomail.delivery.route import Route
from geomail.delivery.shown import LaneShown, State

if TYPE_CHECKING:
    from geomail.carriers.carriers import Places

URL, CALL = "url", "call"

_STRIKES = 3
_LONGEST_ASKED_S = 3600.0
_HEARD_S = 5.0
_OVERFLOW = 2
_SLOW_DOWN = frozenset({429, 503})


class TaskRoute(Route):
    """Where tasks of one kind go: to one host, or to the programs that do calls."""

    __slots__ = (
        "active",
        "backoff",
        "delivered",
        "error",
        "failed",
        "failed_at",
        "heard_at",
        "is_probing",
        "places",
        "ready",
        "strikes",
    )

    def __init__(self, name: str, places: "Places", backoff: Backoff) -> None:
        """`places`: how many tasks may run at a time, with all others of their kind."""
        super().__init__(name, (), relay=name.partition("/")[0])
        self.places = places
        self.backoff = backoff
        self.ready: deque[Task] = deque()
        self.active: dict[Task, float] = {}  # since when
        self.strikes = 0
        self.is_probing = False
        self.heard_at = self.failed_at = float("-inf")
        self.error: str | None = None
        self.delivered = self.failed = 0  # for people only

    # ---- questions

    @property
    def in_hand(self) -> int:
        """How many tasks are ready or under way."""
        return len(self.ready) + len(self.active)

    @property
    def is_busy(self) -> bool:
        """True when something is ready or under way."""
        return bool(self.ready or self.active)

    @property
    def is_in_use(self) -> bool:
        """True when it is busy, or more is known of its host than that it is there."""
        return self.is_busy or self.is_held or self.strikes > 0

    def is_heard(self, now: float) -> bool:
        """Return whether the host has answered something lately."""
        return now < self.heard_at + _HEARD_S

    def room(self, now: float) -> int:
        """Return how many more tasks can be used soon."""
        return max(0, self._wanted(now) - self.in_hand)

    def room_for(self, name: str, share: float, now: float) -> int:  # noqa: ARG002 - of no lane
        """Return how many more of a list may come: as many as of all."""
        return self.room(now)

    def has_place(self, now: float) -> bool:
        """Return whether one more may wait here; some more than `room()` says."""
        most = self._wanted(now)
        return self.in_hand < (most if self.is_probing else most * _OVERFLOW)

    def opens_in_s(self, now: float) -> float:
        """Return the seconds until it may be tried again; 0 when it is open."""
        return max(0.0, self.backoff.until - now)

    def is_closed(self, now: float) -> bool:
        """Return whether the host is left alone; also keeps the time since when."""
        if self.strikes == 0:
            self.closed_since = None
        elif self.closed_since is None and self.backoff.is_closed(now):
            self.closed_since = now
        return self.closed_since is not None

    def last_error(self) -> str | None:
        """Return what was the matter when the host failed last."""
        return self.error

    def hold(self, *, on: bool) -> list[Delivery]:
        """Start nothing more until told otherwise; what is ready goes back to its owner."""
        whole = self.name == self.relay
        for route in self.places.routes.values() if whole else (self,):
            route.is_held = on
            if on:
                self.places.strand(route)
        return []

    def shown(self, now: float) -> LaneShown:
        """Return what people are shown of it."""
        closed_s = self.opens_in_s(now)
        return LaneShown(
            self.name.partition("/")[2] or self.name,
            self.relay,
            self.name,
            self._state(now),
            self.error,
            round(closed_s, 1) if closed_s else None,
            connections=len(self.active),
            window=self.places.most_for(self, now),
            ready=len(self.ready),
            in_hand=self.in_hand,
            binding="concurrency" if self.ready else None,
            delivered=self.delivered,
            failed=self.failed,
        )

    def _state(self, now: float) -> State:
        if self.is_held:
            return "held"
        if self.backoff.is_closed(now):
            return "closed"
        if self.is_probing:
            return "probing"
        return "open" if self.has_place(now) else "full"

    # ---- what happens

    def note(
        self,
        outcome: Outcome,
        *,
        began: float,
        now: float,
        chance: float,
        asked_s: float | None = None,
    ) -> float | None:
        """Note how a try that began at `began` has ended; return how long to leave the host alone.

        None: it goes on. `asked_s`: for how long the host itself has asked.
        """
        is_told_off = self.relay == URL and outcome.code in _SLOW_DOWN
        if outcome.blame not in (Blame.HOST, Blame.BOTH) and not is_told_off:
            self.hear(now)
            return None
        self.error = outcome.text
        if began < self.failed_at or self.backoff.is_closed(now):
            return None
        self.failed_at = now
        self.strikes += 1
        if self.strikes < _STRIKES:
            return None
        self.is_probing = True
        at_least_s = min(asked_s or 0.0, _LONGEST_ASKED_S)
        delay_s = self.backoff.fail(now, chance, at_least_s=at_least_s)
        metrics.count("host_failures")
        log.warning("host_failed", host=self.name, why=outcome.text, again_in_s=delay_s)
        return delay_s

    def hear(self, now: float) -> None:
        """Note that the host has answered: it is well."""
        if self.backoff.failures:
            log.info("host_back", host=self.name)
        self.heard_at = now
        self.strikes = 0
        self.is_probing = False
        self.error = None
        self.backoff.succeed()

    def _wanted(self, now: float) -> int:
        if self.is_held or self.backoff.is_closed(now):
            return 0
        if self.is_probing:
            return 1
        at_once = self.places.most_for(self, now)
        return at_once + (at_once if self.is_heard(now) else at_once // 2)
