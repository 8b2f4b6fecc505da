"""What owners allow themselves, brought to the lanes it is for.

What concerns one connection or one message is a number in the lane. What workers have to agree on
is a RouteLimits, one for each limited route; a route without has None there, and pays nothing.
"""

import sys
from typing import TYPE_CHECKING

from geomail.delivery.limits.limits import RouteLimits
from geomail.queue import Limiter
from geomail.relays import Limits

if TYPE_CHECKING:
    from geomail.delivery.lanes import Lanes
    from geomail.delivery.route import Route


class Limited:
    """The limited routes of a worker."""

    def __init__(self, limiter: Limiter | None, house: "Lanes") -> None:
        """Without a `limiter` no worker agrees with others: what needs that is not limited."""
        self._limiter = limiter
        self._house = house
        self._routes: dict[str, RouteLimits] = {}

    def apply(self, route: "Route", limits: Limits) -> None:
        """Have `limits` hold for a route from now on."""
        for lane in route.lanes:
            lane.most_allowed = limits.messages_per_connection or sys.maxsize
            lane.most_recipients = limits.max_recipients or sys.maxsize
        found = self._routes.get(route.name)
        if limits.are_shared and self._limiter is not None:
            if found is None:
                found = self._routes[route.name] = RouteLimits(
                    route.name, self._limiter, self._house
                )
            found.configure(limits, route.lanes)
        elif found is not None:
            self.forget(route.name)
            found.end()

    def forget(self, name: str) -> None:
        """Drop what is known of a route that is no more."""
        self._routes.pop(name, None)

    def stir(self) -> None:
        """Look at once whether somebody who has died held what we wait for."""
        for limits in self._routes.values():
            limits.look_again()

    def leave(self) -> None:
        """Give back what is held, and our name."""
        for limits in self._routes.values():
            limits.leave()
        if self._limiter is not None:
            self._limiter.close()
