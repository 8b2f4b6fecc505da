"""Staffing: who gets a sender, of all lanes that could use one more.

The lanes together share one gevent Pool. A lane's share is what is left to it when lanes that want
less have had what they want; a tenth of the Pool is kept for lanes that hold nothing. A lane that
only the Pool keeps from one more is needy: whenever a sender has left, the lanes that need a first
one are served, then the others, each kind in turn. When the Pool is full and a lane with work has
no sender, the connection that is idle longest is closed, or else the lane furthest above its share
gives one up after the message in hand: a slow host can't starve a healthy one.
"""

import time
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING

from gevent.pool import Pool

from geomail.delivery.lane import Lane
from geomail.delivery.pace import fair_share
from geomail.delivery.sender import Sender

if TYPE_CHECKING:
    from geomail.delivery.lanes import Lanes

_MAKING_PLACE_S = 1.0
_IN_VAIN_S = 0.25


class Staffing:
    """The senders of all lanes."""

    def __init__(self, house: "Lanes") -> None:
        self._house = house
        self._pool = Pool(house.settings.concurrency)
        self._needy: tuple[dict[Lane, None], dict[Lane, None]] = ({}, {})  # of a first, of more
        self._making_place_until, self._asked = 0.0, 0
        self._dismissed: set[Sender] = set()
        self._staffed, self._closed = 0, 0  # lanes with a sender; without, and closed

    @property
    def is_full(self) -> bool:
        """True when only the Pool is in the way of some lane."""
        return any(self._needy)

    def share(self) -> int:
        """Return how many senders a lane may have now: what is left where others want less.

        What a lane wanted a moment ago still counts by half: one that is done with all it had in
        hand gets more in the next moment, and would find its places given away.
        """
        lanes, now = self._house.lanes, time.monotonic()
        for lane in lanes:
            if lane.in_hand or lane.demand:
                lane.demand = max(min(lane.in_hand, lane.health.window.size), lane.demand // 2)
        self._closed = sum(not (lane.senders or lane.is_open(now)) for lane in lanes)
        demands = (lane.demand for lane in lanes if lane.demand)
        return fair_share(demands, self._house.settings.concurrency)

    def staff_up(self, lane: Lane) -> None:
        """Start senders for `lane` while it has work for more and may have more."""
        # Each connection under way will take one of the ready deliveries.
        while self._may_have_one_more(lane):
            sender = Sender(lane)
            self._staffed += not lane.senders
            lane.add(sender)
            self._pool.start(sender)
            sender.rawlink(self._sender_left)  # behind the Pool's own link: it counts no more

    def _may_have_one_more(self, lane: Lane) -> bool:
        if not self._can_use_one_more(lane):
            return False
        senders = len(lane.senders)
        if not lane.may_connect():
            return False
        if self._pool.free_count() > (self._reserve() if senders else 0):
            return True
        self._needy[senders > 0][lane] = None
        self._make_place(for_first=senders == 0)
        return False

    def _can_use_one_more(self, lane: Lane) -> bool:
        if len(lane.ready) <= lane.connecting or lane.has_window_full:
            return False
        return len(lane.senders) < self._house.share and lane.health.may_connect(time.monotonic())

    def staff_needy(self) -> None:
        """Start senders where only the Pool was in the way, each lane once: it may be so again."""
        for needy, kept in zip(self._needy, (0, self._reserve()), strict=True):
            for _ in range(len(needy)):
                lane = next(iter(needy))
                is_needy = self._can_use_one_more(lane)
                if is_needy and self._pool.free_count() <= kept:
                    self._make_place(for_first=needy is self._needy[0])
                    break
                del needy[lane]
                if is_needy:
                    self._house.staff(lane)

    def _sender_left(self, sender: Sender) -> None:
        lane = sender.lane
        lane.discard(sender)
        self._dismissed.discard(sender)
        self._staffed -= not lane.senders
        self._asked -= 1
        if self._asked <= 0:
            self._making_place_until = 0.0
        if self._house.is_draining:
            return
        if lane.limits is not None:
            lane.limits.note_end(time.monotonic())
        if lane.ready and not lane.is_open(time.monotonic()):
            self._house.stranded(lane.empty())
        if lane.ready:
            self._needy[len(lane.senders) > 0][lane] = None  # behind those that wait already
        self.staff_needy()
        self._house.news.set()

    def _reserve(self) -> int:
        """Return how many places are kept for lanes that hold nothing."""
        without = len(self._house.lanes) - self._staffed - self._closed
        if without <= 0 and not self._house.directs:
            return 0
        tenth = max(1, self._house.settings.concurrency // 10)
        return tenth if self._house.directs else min(tenth, without)

    def _make_place(self, *, for_first: bool) -> None:
        """Ask senders to leave: the longest idle, else one each of the lanes that have most.

        As many as lanes wait, a tenth of the Pool at most; the next are asked when they have left,
        or take too long. `for_first`: who needs it has none at all, and with more lanes than
        connections they have to take turns; else only those above their share are asked.
        """
        now = time.monotonic()
        if now < self._making_place_until:
            return
        self._making_place_until = now + _IN_VAIN_S  # in vain, not again at once: many lanes
        waiting = len(self._needy[0 if for_first else 1])
        most = min(max(1, waiting), max(1, self._house.settings.concurrency // 10))
        if self._house.idle:
            self._asked = self._dismiss_idle(most)
        else:
            self._asked = self._ask_rich(most, for_first)
        if self._asked:
            self._making_place_until = now + _MAKING_PLACE_S

    def _dismiss_idle(self, most: int) -> int:
        more = max(0, most - len(self._dismissed))
        for sender in tuple(islice(self._house.idle, more)):
            self._dismissed.add(sender)
            sender.dismiss()
        return 1

    def _ask_rich(self, most: int, for_first: bool) -> int:
        least = 0 if for_first else self._house.share
        rich = [lane for lane in self._house.lanes if _left(lane) > least]
        asked = nlargest(most, rich, key=_left)
        for lane in asked:
            lane.leaving += 1
        return len(asked)


def _left(lane: Lane) -> int:
    """Return how many senders a lane has when those have left that were asked to."""
    return len(lane.senders) - lane.leaving
