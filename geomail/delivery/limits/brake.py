"""The brake of one lane: its host has said that mails come too fast (slowing.py).

One timer at a time wakes a sender when the next mail may go. What can't go soon leaves the lane,
for another host or for Redis. When the rate is whole again the brake goes, and nothing is left of
it.
"""

import math
import time
from typing import TYPE_CHECKING

import gevent

from geomail import log, metrics
from geomail.delivery.limits.slowing import Slowing

if TYPE_CHECKING:
    from geomail.delivery.lane import Lane

_WORTH_S = 2.0


def slow_down(lane: "Lane", text: str) -> None:
    """The host of `lane` says that mails come too fast."""
    now = time.monotonic()
    if lane.brake is None:
        rate = lane.pulse.rate(now, lane.begun, since=lane.busy_since)
        lane.brake = Brake(lane, Slowing(now, rate=rate))
    elif not lane.brake.slowing.cut(now):
        return
    lane.brake.tell(now, text)
    most = lane.brake.most_in_hand(now)
    if len(lane.ready) > most:
        lane.house.stranded(lane.empty(but=most))


class Brake:
    """Keeps a lane to what its host takes."""

    def __init__(self, lane: "Lane", slowing: Slowing) -> None:
        self.slowing = slowing
        self._lane = lane
        self._is_timed = False

    def tell(self, now: float, text: str) -> None:
        """Tell people that it is slower from now on."""
        metrics.count("slowed_down")
        rate = round(self.slowing.rate(now), 2)
        log.warning("slowed_down", host=self._lane.name, to_rate=rate, why=text)

    def is_off(self, now: float) -> bool:
        """Return whether a mail may go now; if not, a sender is woken when one may."""
        if self.slowing.wait_s(now) == 0.0:
            return True
        self.stir(now)
        return False

    def spend(self, now: float) -> None:
        """Note that a mail goes."""
        self.slowing.spend(now)
        if self.slowing.is_over(now):
            log.info("slowed_no_more", host=self._lane.name)
            self._lane.brake = None
            self._lane.house.wake(self._lane, len(self._lane.ready))
        elif self._lane.ready:
            self.stir(now)

    def most_in_hand(self, now: float) -> int:
        """Return how many deliveries can be used within about two seconds."""
        return max(1, math.ceil(self.slowing.rate(now) * _WORTH_S))

    def stir(self, now: float) -> None:
        """Wake a sender when the next mail may go."""
        if self._is_timed:
            return
        self._is_timed = True
        gevent.spawn_later(self.slowing.wait_s(now), self._wake)

    def _wake(self) -> None:
        self._is_timed = False
        lane = self._lane
        if lane.ready and not lane.house.is_draining and not lane.house.wake(lane, 1):
            lane.house.staffing.staff_up(lane)
