"""Relays that take nothing for now: what is met for them is parked at a glance, unread.

The first mail that finds a relay closed or full is read like any other, and parked. Those behind it
are parked by the name of their relay alone: in the same batch, and in later ones as long as a look
at the relay says the same, one for each batch. While its hosts back off `_TRUSTED_S` pass without
one. So a mail for a relay that is down, or hangs, costs the worker 3 us, where reading it and
parking it alone cost 12 to 16.

What is parked unread is read when it is taken for its relay: what is wrong with it shows then. Jobs
that were tried before, in PHP's format, with times of their own or with a `dedupe_key`, and what
goes by [[route]] or DNS, are always read.
"""

from collections.abc import Iterator

from geomail.delivery.lanes import Lanes
from geomail.delivery.route import Route
from geomail.job import relay_of
from geomail.queue import FRESH, TOLD, Park, Queue, Slot
from geomail.worker.settlement import parked_state

FULL_AGAIN_S = 1.0
_TRUSTED_S = 0.25  # one that opens sooner, since people say so, finds those that were parked


class _Relay:
    """One that is shut: until when for sure, and what was met for it in this batch."""

    __slots__ = ("name", "route", "slots", "told", "until")

    def __init__(self, name: str, route: Route, until: float) -> None:
        self.name = name
        self.route = route
        self.until = until
        self.slots: list[Slot] = []
        self.told: list[Slot] = []


class Shut:
    """The relays of one worker that were found closed or full just now."""

    def __init__(self, lanes: Lanes) -> None:
        self.relays: dict[str, _Relay] = {}
        self._in_payloads: dict[bytes, _Relay] = {}  # the same, by what stands there
        self._lanes = lanes
        self._now = 0.0

    def note(self, name: str, now: float) -> None:
        """Note that a mail was parked for a route; of a relay `mx` the next may go elsewhere."""
        route = self._lanes.routes.get(name)
        if route is None or name in self._lanes.guests or name in self.relays:
            return  # guests are those of tasks, where no mail goes
        if name not in self._lanes.directs or route.is_held:
            relay = self.relays[name] = _Relay(name, route, _trusted_until(route, now))
            self._in_payloads[name.encode()] = relay

    def begin(self, queue: Queue, now: float) -> None:
        """Forget, before a batch of a list, what is not so any more."""
        self._now = now
        for name, relay in list(self.relays.items()) if self.relays else ():
            if relay.until <= now or self._lanes.routes.get(name) is not relay.route:
                if self._is_shut(name, relay.route, queue, now):
                    relay.until = _trusted_until(relay.route, now)
                else:
                    del self.relays[name], self._in_payloads[name.encode()]

    def takes(self, slot: Slot, default: str | None) -> bool:
        """Return whether the relay of a mail is shut: it will be parked; else it has to be read.

        `default`: the relay of those that name none; None: that takes reading.
        """
        state, payload = slot.state, slot.payload
        if state is not FRESH and state is not TOLD:
            return False
        # Most are others' mails: a guess, 0.3 us, spares them the glance, which then is exact.
        if (at := payload.find(b'"relay"')) < 0:
            relay = self.relays.get(default or "")
        else:
            begin = payload.find(b'"', at + 7) + 1
            relay = self._in_payloads.get(payload[begin : payload.find(b'"', begin)])
        if relay is None or (name := relay_of(payload)) is None:
            return False
        if (name or default) != relay.name:
            return False
        (relay.slots if state is FRESH else relay.told).append(slot)
        return True

    def end(self) -> Iterator[Park]:
        """Return what the batch has brought for relays that are shut."""
        for relay in self.relays.values():
            if relay.slots:
                yield self._record(relay.route, relay.slots)
                relay.slots = []
            if relay.told:
                yield self._record(relay.route, relay.told)
                relay.told = []

    def _record(self, route: Route, slots: list[Slot]) -> Park:
        again_in_s = route.opens_in_s(self._now) or FULL_AGAIN_S
        state = parked_state(route.name, route.last_error(), told=slots[0].state.told)
        return Park(slots, route.name, int(again_in_s * 1000), state)

    def _is_shut(self, name: str, route: Route, queue: Queue, now: float) -> bool:
        if self._lanes.routes.get(name) is not route:
            return False
        if route.is_held:
            return True
        if name in self._lanes.directs:
            return False
        if any(lane.has_place(now) for lane in route.lanes):
            return False
        several = self._lanes.has_several_lists
        return not (several and any(lane.has_place_for(queue.name, now) for lane in route.lanes))


def _trusted_until(route: Route, now: float) -> float:
    return now + min(route.opens_in_s(now), _TRUSTED_S)  # `now` where it is only full
