"""How many connections hosts take, as workers have learnt it: kept for the next one to start with.

A hash a relay, `{geomail:RELAY}:ceiling`: HOST:PORT → the number, and when it was learnt. It is
forgotten after a day, for hosts change their minds, and whoever learns it anew loses little.

Promised: no call takes longer than a few seconds, whatever Redis does. Not promised: that anything
is kept. Nothing that is delivered depends on it.
"""

import time

from geomail.queue.keys import ceiling_key
from geomail.queue.link import Connection, Link

_KEPT_S = 86_400
_WITHIN_S = 2.0


class Ceilings:
    """The ceilings of all hosts, in one Redis."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connections: dict[str, Connection] = {}  # a relay: in a cluster each has its place

    def recall(self, relay: str, host: str) -> int | None:
        """Return how many connections `host` took when that was learnt last, None if unknown.

        Raises RedisUnusable where Redis refuses us for good.
        """
        key = ceiling_key(relay)
        found = self._connection(relay).attempt("HGET", key, host, timeout_s=_WITHIN_S)
        number, _, learnt_at = found.partition(b" ") if isinstance(found, bytes) else (b"",) * 3
        if not (number.isdigit() and learnt_at.isdigit()):
            return None
        is_fresh = time.time() < int(learnt_at) + _KEPT_S
        return max(1, int(number)) if is_fresh else None

    def keep(self, relay: str, host: str, ceiling: int) -> None:
        """Keep that `host` takes `ceiling` connections. Raises RedisUnusable as `recall` does."""
        key, value = ceiling_key(relay), f"{ceiling} {time.time():.0f}"
        connection = self._connection(relay)
        if connection.attempt("HSET", key, host, value, timeout_s=_WITHIN_S) is not None:
            connection.attempt("EXPIRE", key, _KEPT_S, timeout_s=_WITHIN_S)

    def _connection(self, relay: str) -> Connection:
        if relay not in self._connections:
            self._connections[relay] = self._link.open("ceilings", ceiling_key(relay))
        return self._connections[relay]
