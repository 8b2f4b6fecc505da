"""What a person asks of a queue while it works: which hosts its workers see, where one job is.

Nothing here changes anything, and no call keeps Redis for more than some milliseconds, whatever
lies there: lists and hashes are read in pieces, up to limits, and what was not looked at is said.
A job that moves between two calls may be missed; then asking again is the answer.
"""

from collections.abc import Iterable

import msgspec

from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Link
from geomail.queue.status import ROUTES_A_CALL, read_held, read_parked, read_routes

_WORKERS_A_CALL = 16  # of 50 KB each


class Told(msgspec.Struct, frozen=True):
    """What the workers of one list tell: those with a lease, and what each of them says."""

    workers: tuple[str, ...]
    says: dict[str, tuple[float, bytes]]  # worker -> age in seconds, JSON
    held: tuple[tuple[str, str], ...]  # what people hold back: (relay or queue, its name)


class Lookout:
    """Somebody who looks at one list."""

    def __init__(self, link: Link, name: str) -> None:
        """Prepare to look; raises ConfigError for a name that can't be a queue's."""
        self.name = name
        self._keys = Keys(name)
        self._desk: Connection = link.open("desk", self._keys.list)

    def told(self) -> Told:
        """Return what the workers of this list told with their last beat."""
        now_ms = self._now_ms()
        found = self._desk.call("ZRANGEBYSCORE", self._keys.workers, now_ms, "+inf")
        workers = tuple(name.decode() for name in found)
        says = {}
        for start in range(0, len(workers), _WORKERS_A_CALL):
            names = workers[start : start + _WORKERS_A_CALL]
            values = self._desk.call("HMGET", self._keys.hosts, *names)
            for name, value in zip(names, values, strict=True):
                if value is not None:
                    at_ms, _, json = value.partition(b" ")
                    says[name] = max(0, now_ms - int(at_ms)) / 1000, json
        held = self._desk.call("SMEMBERS", self._keys.held)
        return Told(workers, says, tuple(sorted(read_held(held))))

    def parked(self, routes: Iterable[str]) -> tuple[dict[str, int], int]:
        """Return how many jobs wait for `routes`, and for others that come next, 1,000 in all.

        The second value is how many routes were not looked at.
        """
        names = dict.fromkeys(routes) | dict.fromkeys(read_routes(self._desk, self._keys, 0))
        asked = list(names)[:ROUTES_A_CALL]
        found = read_parked(self._desk, self._keys, asked)
        total = self._desk.call("ZCARD", self._keys.routes)
        return {name: jobs for name, jobs in found.items() if jobs}, max(0, total - len(asked))

    def close(self) -> None:
        """Hang up."""
        self._desk.close()

    def _now_ms(self) -> int:
        seconds, micros = self._desk.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000
