"""Routes: which hosts a delivery may go to, in order.

A route is a relay by its name, or one site of the relay `mx` (direct.py). Its members are lanes;
the first that is open and has room gets the delivery, so a later one serves while an earlier one
backs off or is full; with ranks or weights, ranked.py says which. Where none can take it, the
delivery is parked in Redis under the route's name, for whoever has room first.
"""

from collections.abc import Iterable, Sequence

from geomail.delivery.delivery import Delivery
from geomail.delivery.lane import Lane


class Route:
    """One relay: its name and its lanes, the preferred one first."""

    __slots__ = ("closed_since", "is_held", "lanes", "name", "relay", "used_at")

    def __init__(self, name: str, lanes: Sequence[Lane], *, relay: str | None = None) -> None:
        """`relay`: of which it is a part; None: it is a whole one."""
        self.name = name
        self.relay = relay or name
        self.used_at = 0.0
        self.lanes = tuple(lanes)
        self.closed_since: float | None = None
        self.is_held = False

    @property
    def is_whole(self) -> bool:
        """True for a relay, False for one of its sites."""
        return self.name == self.relay

    @property
    def most_recipients(self) -> int:
        """How many recipients a transaction may have here, as far as its owner says."""
        return self.lanes[0].most_recipients

    @property
    def is_busy(self) -> bool:
        """True when something is ready or under way."""
        return any(lane.in_hand for lane in self.lanes)

    @property
    def is_in_use(self) -> bool:
        """True when it is busy, or has a connection left."""
        return any(lane.in_hand or lane.senders for lane in self.lanes)

    def choose(self, now: float) -> Lane | None:
        """Return the lane that takes the next delivery at `now`, or None."""
        # The first one is it, for most mails: 0.2 us.
        if not self.is_held and (first := self.lanes[0]).limits is None and first.has_place(now):
            return first
        for lane in self._able(now):
            if lane.has_place(now):
                return lane
        return None

    def more_for(self, lane: Lane, now: float) -> int:
        """Return to how many `choose` gives `lane` at `now`, if nothing else is put there."""
        return lane.free_places(now) if lane.limits is None else 0

    def overtake(self, name: str, now: float) -> Lane | None:
        """Return a lane that takes a delivery of a list that has few there, or None.

        To be asked where `choose` finds none: full of other lists' mails is not full for this one.
        """
        return next((lane for lane in self._able(now) if lane.has_place_for(name, now)), None)

    def room_for(self, name: str, share: float, now: float) -> int:
        """Return how many more of a list whose part is `share` may come, however full it is."""
        return sum(lane.room_for(name, share, now) for lane in self._able(now))

    def refill_for(self, name: str, share: float, now: float) -> int:
        """Return how many of those that are parked for this route may come of such a list."""
        return self.room_for(name, share, now)

    def room(self, now: float) -> int:
        """Return how many more deliveries this route's lanes can use soon."""
        return sum(lane.room(now) for lane in self._able(now))

    def refill(self, now: float) -> int:
        """Return how many of those that are parked for this route may come."""
        return self.room(now)

    def opens_in_s(self, now: float) -> float:
        """Return the seconds until one of the lanes may be tried again; 0 when one is open."""
        return max(0.0, min(lane.opens_at(now) for lane in self.lanes) - now)

    def is_closed(self, now: float) -> bool:
        """Return whether every lane is backing off; also keeps the time since when."""
        if any(lane.is_open(now) for lane in self.lanes):
            return self.closed_since is not None and not self._has_recovered()
        if self.closed_since is None:
            self.closed_since = now
        return True

    def is_waiting(self, now: float) -> bool:
        """Return whether it is limits that keep its lanes closed."""
        return any(lane.limits is not None and not lane.limits.is_open(now) for lane in self.lanes)

    def hold(self, *, on: bool) -> list[Delivery]:
        """Take no deliveries until told otherwise; return those that have to leave their lanes."""
        self.is_held = on
        return [delivery for lane in self.lanes for delivery in lane.hold(on=on)]

    def last_error(self) -> str | None:
        """Return what the hosts of this route said last when they failed."""
        return next((lane.last_error for lane in self.lanes if lane.last_error), None)

    def _able(self, now: float) -> Sequence[Lane]:  # noqa: ARG002 of ranks
        """Return the lanes that may have the next delivery when they have room.

        None behind one that is full only since its mails wait for their time: elsewhere they would
        go no sooner, for the relay's rate is one for all its hosts.
        """
        if self.is_held:
            return ()
        if self.lanes[0].limits is None:
            return self.lanes
        paced = (i for i, lane in enumerate(self.lanes, 1) if lane.is_paced)
        return self.lanes[: next(paced, None)]

    def _has_recovered(self) -> bool:
        # A lane whose back-off has run out is open for its probe, and not yet well.
        if any(lane.is_well for lane in self.lanes):
            self.closed_since = None
            return True
        return False


def names(routes: Iterable[Route]) -> str:
    """Return the routes' names for a message to a person."""
    return ", ".join(sorted({route.relay for route in routes})) or "none"
