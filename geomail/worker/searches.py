"""Searches: mails that wait for DNS, beside all others.

A search is a greenlet that asks for the hosts of some domains (delivery/direct.py, which bounds how
many there are). What waits counts as held in memory, and is given back when the worker leaves.
"""

from collections.abc import Callable

import gevent

from geomail.delivery.delivery import Delivery
from geomail.delivery.direct import Direct
from geomail.delivery.dns.sites import Found
from geomail.delivery.lanes import Lanes
from geomail.queue import Queue, Slot

Then = Callable[[dict[str, Found] | Exception], None]


class Searches:
    """Those that are under way."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._waiting: dict[int, tuple[Queue, Slot]] = {}

    def begin(self, direct: Direct, delivery: Delivery, domains: set[str], then: Then) -> bool:
        """Ask for `domains`, and call `then` with what was found; False where too much is asked."""
        if not direct.begin_search(domains, delivery.queue.name):
            return False
        self._waiting[id(delivery)] = delivery.queue, delivery.slot
        self._lanes.bytes_in_hand += delivery.slot.weight
        gevent.spawn(self._find, direct, delivery, domains, then)
        return True

    def stop(self) -> list[tuple[Queue, Slot]]:
        """Wait for none of them any more; return what has waited."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        return waiting

    def _find(self, direct: Direct, delivery: Delivery, domains: set[str], then: Then) -> None:
        found: dict[str, Found] | Exception
        try:
            found = direct.find(domains, delivery.queue.name)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            found = error
        self._lanes.bytes_in_hand -= delivery.slot.weight
        if self._waiting.pop(id(delivery), None) is not None:  # else given back meanwhile
            then(found)
