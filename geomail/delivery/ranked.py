"""Routes whose lanes have ranks: those of a later rank serve only when no earlier one can.

A rank is passed over when none of its hosts can be reached, and not when they are full: a host of
lower preference (RFC 5321 section 5.1), or of weight 0, is there for when others fail. Within a
rank there are no preferences:

    SiteRoute        equals: the least laden host gets the next delivery
    WeightedRoute    each host gets its share by weight, as even as can be (smooth weighted round
                     robin), and no more than its share later for having been away

Weights are kept as long as every host keeps up, also where others could take more. One that does
not, so that what it was given a second ago is not done, gets what it has room for, and the others
share the rest: then a relay is as fast as all its hosts together.
"""

from collections.abc import Callable, Sequence

from geomail.delivery.lane import Lane
from geomail.delivery.route import Route

_KEEPS_UP_S = 1.0


class RankedRoute(Route):
    """Lanes with their ranks: the lower the rank, the more preferred."""

    __slots__ = ("_ranked",)

    def __init__(
        self, name: str, lanes: Sequence[Lane], ranks: Sequence[int], *, relay: str | None = None
    ) -> None:
        super().__init__(name, lanes, relay=relay)
        by_rank: dict[int, list[Lane]] = {}
        for rank, lane in zip(ranks, lanes, strict=True):
            by_rank.setdefault(rank, []).append(lane)
        self._ranked = tuple(by_rank[rank] for rank in sorted(by_rank))

    def more_for(self, lane: Lane, now: float) -> int:  # noqa: ARG002
        """Return to how many `choose` gives `lane` at `now` for sure: the next may be another's."""
        return 0

    def room(self, now: float) -> int:
        """Return how many more deliveries the hosts can use soon whose turn it is."""
        return sum(lane.room(now) for lane in self._able(now))

    def _able(self, now: float) -> Sequence[Lane]:
        """Return the lanes of the rank whose turn it is.

        A rank is passed over when its hosts can't be reached; with a place for a probe it is not.
        """
        for lanes in () if self.is_held else self._ranked:
            for lane in lanes:
                if lane.is_open(now) and (lane.is_well or lane.has_place(now)):
                    return lanes
        return ()


class SiteRoute(RankedRoute):
    """The lanes of a site's hosts; of equal ones the least laden is chosen."""

    __slots__ = ()

    def choose(self, now: float) -> Lane | None:
        """Return the lane that takes the next delivery at `now`, or None."""
        chosen = None
        for lane in self._able(now):
            if lane.has_place(now) and (chosen is None or lane.in_hand < chosen.in_hand):
                chosen = lane
        return chosen


class _Share:
    """One lane's part: its weight, its credit, and whether it keeps up."""

    __slots__ = ("_given", "_mark", "_marked_at", "credit", "lane", "weight")

    def __init__(self, lane: Lane, weight: int) -> None:
        self.lane = lane
        self.weight = weight or 1
        self.credit = 0
        self._given = self._mark = lane.in_hand
        self._marked_at = 0.0

    def give(self) -> None:
        self._given += 1

    def keeps_up(self, now: float) -> bool:
        """Return whether all is done that had been given a while ago."""
        if self._given - self.lane.in_hand >= self._mark:
            self._mark, self._marked_at = self._given, now
        return now < self._marked_at + _KEEPS_UP_S


class WeightedRoute(RankedRoute):
    """The lanes of a relay with weights; those of weight 0 have the last rank."""

    __slots__ = ("_shares",)

    def __init__(self, name: str, lanes: Sequence[Lane], weights: Sequence[int]) -> None:
        super().__init__(name, lanes, [int(weight == 0) for weight in weights])
        pairs = zip(lanes, weights, strict=True)
        self._shares = {lane: _Share(lane, weight) for lane, weight in pairs}

    def choose(self, now: float) -> Lane | None:
        """Return the lane that takes the next delivery at `now`, or None."""
        able = self._able(now)
        if any(lane.is_paced and not lane.has_place(now) for lane in able):
            return None  # its mails wait for their time, which comes no sooner elsewhere
        willing = [lane for lane in able if self._is_willing(lane, now)]
        return self._draw(willing or [lane for lane in able if lane.has_place(now)])

    def overtake(self, name: str, now: float) -> Lane | None:
        """Return a lane that takes a delivery of a list that has few there, or None."""
        return self._draw([lane for lane in self._able(now) if lane.has_place_for(name, now)])

    def room(self, now: float) -> int:
        """Return how many more deliveries the hosts can use soon, each its share."""
        return self._evenly(now, lambda lane: lane.room(now))

    def room_for(self, name: str, share: float, now: float) -> int:
        """Return how many more of a list whose part is `share` may come, each host's share."""
        return self._evenly(now, lambda lane: lane.room_for(name, share, now))

    def _draw(self, lanes: Sequence[Lane]) -> Lane | None:
        if not lanes:
            return None
        shares = [self._shares[lane] for lane in lanes]
        for share in shares:
            share.credit += share.weight
        drawn = max(shares, key=_credit)
        drawn.credit -= sum(share.weight for share in shares)
        drawn.give()
        return drawn.lane

    def _evenly(self, now: float, room_of: Callable[[Lane], int]) -> int:
        even, total = [], 0
        for lane in self._able(now):
            room, share = room_of(lane), self._shares[lane]
            if lane.is_well and lane.is_open(now) and (room > 0 or share.keeps_up(now)):
                even.append((room, share))
            else:
                total += room  # a probe's, or nobody's
        if even:
            room, share = min(even, key=lambda pair: pair[0] / pair[1].weight)
            total += -(-room * sum(share.weight for _, share in even) // share.weight)
        return total

    def _is_willing(self, lane: Lane, now: float) -> bool:
        if lane.room(now) > 0:
            return True
        return lane.has_place(now) and self._shares[lane].keeps_up(now)


def _credit(share: _Share) -> int:
    return share.credit


def relay_route(name: str, lanes: Sequence[Lane], weights: Sequence[int]) -> Route:
    """Return the route of a relay with hosts of its own: in order, or by weight where it says."""
    return WeightedRoute(name, lanes, weights) if weights else Route(name, lanes)
