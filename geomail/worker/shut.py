"""Relays that take nothing for now: what is met for them is parked at a glance, unread.

The first mail that finds a relay closed or full is read like any other, and parked. Those behind it
in the same batch are parked with it by the name of their relay alone, and those of later batches as
long as its hosts back off, `_TRUSTED_S` at a time. So a relay that is down costs another one on the
same list a few percent where the worker's core is the limit, instead of a quarter.

What is parked unread is read when it is taken for its relay: what is wrong with it shows then. Jobs
that were touched before, in PHP's format, with times of their own or with a `dedupe_key`, and what
goes by [[route]] or DNS, are always read.
"""

from typing import Self

from geomail.delivery.lanes import Lanes
from geomail.job import relay_of
from geomail.queue import FRESH, JobState, Park, Slot

_TRUSTED_S = 0.25  # one that opens sooner, since people say so, finds those that were parked


class Shut:
    """The relays of one worker that were found closed or full just now."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.relays: dict[str, tuple[float, int, JobState]] = {}
        """Until when that is so for sure, and what their mails are parked with: ms, and a state."""

    def note(self, record: Park, now: float) -> None:
        """Note that a mail was parked; of a relay `mx` the next one may go elsewhere."""
        route = self._lanes.routes.get(record.route)
        if route is None or record.slot.state is not FRESH or route.name in self._lanes.guests:
            return  # among them those of tasks, where no mail goes
        if route.name not in self._lanes.directs or route.is_held:
            until = now + min(route.opens_in_s(now), _TRUSTED_S)  # `now` where it is only full
            self.relays[route.name] = until, record.retry_in_ms, record.state

    def begin(self, now: float) -> Self:
        """Forget, before a batch, what need not be so any more."""
        if self.relays:
            self.relays = {name: told for name, told in self.relays.items() if told[0] > now}
        return self

    def park(self, slot: Slot, default: str | None) -> Park | None:
        """Return the record of a mail whose relay is shut, or None: it has to be read.

        `default`: the relay of those that name none; None: that takes reading.
        """
        if slot.state is not FRESH:
            return None
        name = relay_of(slot.payload)
        if name == "":
            name = default
        told = self.relays.get(name) if name is not None else None
        return None if name is None or told is None else Park(slot, name, told[1], told[2])
