"""How many connections hosts take: asked for and kept beside whatever goes on.

A lane asks when it wants to grow past its start for the first time, and tells when it has learnt
something. Nothing waits for the answer, and where Redis does not answer nothing is lost but that.
"""

import time
from typing import TYPE_CHECKING, Protocol

import gevent

from geomail import log

if TYPE_CHECKING:
    from geomail.delivery.lane import Lane


class Shelf(Protocol):
    """Where they are kept. Both may wait, and raise."""

    def recall(self, relay: str, host: str) -> int | None:
        """Return how many `host` took the last time."""

    def keep(self, relay: str, host: str, ceiling: int) -> None:
        """Keep it for the next time."""


class CeilingsOf:
    """The ceilings of all lanes of a worker, on a shelf; without one they are not kept."""

    def __init__(self, shelf: Shelf | None) -> None:
        self._shelf = shelf

    def recall(self, lane: "Lane") -> None:
        """Ask what the host of `lane` took the last time, and have the lane know."""
        if self._shelf is not None:
            gevent.spawn(self._recall, self._shelf, lane)

    def keep(self, lane: "Lane", ceiling: int) -> None:
        """Keep what the host of `lane` takes."""
        if self._shelf is not None:
            gevent.spawn(self._keep, self._shelf, lane, ceiling)

    def _recall(self, shelf: Shelf, lane: "Lane") -> None:
        try:
            ceiling = shelf.recall(lane.terms.relay.name, lane.name)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            self._give_up(error)
            return
        if ceiling is not None:
            lane.health.know(ceiling, time.monotonic())

    def _keep(self, shelf: Shelf, lane: "Lane", ceiling: int) -> None:
        try:
            shelf.keep(lane.terms.relay.name, lane.name, ceiling)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        # Refused for good, as where a user of Redis has no right to those keys: once is enough.
        if self._shelf is not None:
            self._shelf = None
            log.warning("ceilings_not_kept", why=str(error) or repr(error))
