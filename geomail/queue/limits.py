"""Limits over all workers: who may have how many connections to a route, and when mails may go.

A `Limiter` is one process's client of what lies in Redis for each route: `{geomail:<route>}:conns`
says who holds how many connections, `{geomail:<route>}:rate:<rate>` which times are given away. A
key's tag is the route, so in a cluster routes spread by themselves.

Promised: the sum of what all hold is never above the limit, each time at which a mail may go is
given to one worker, and what a dead worker of this machine held is free at the next question.
Redis's times are told in seconds of our monotonic clock, never too early. A call ends when Redis
has answered, and may run twice: then times are lost, or what went unused of a quota is taken off
twice. Not promised: limits beyond what Redis has forgotten, where it lost its last second, or when
its clock is set forward, until all have renewed their leases.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geomail import log
from geomail.queue.holders import Holder
from geomail.queue.keys import connections_key, rate_key
from geomail.queue.link import Connection, Link, Script, Word
from geomail.queue.topology import Place
from geomail.relays import Rate

_CONNECT, _GRANT = Script("connect"), Script("grant")
_MOST_CONNECTIONS = 100  # a cluster has 16,384 slots, and a route may be in any
_OUTAGE_S = 0.5
_DRIFT = 1e-4


@dataclass(frozen=True, slots=True)
class Grant:
    """`n` mails from `start_s` on; none: ask again then."""

    start_s: float
    n: int


@dataclass(frozen=True, slots=True)
class Permit:
    """So many connections until a time; so many others wait for some: come down to `share`.

    `left`: how many nobody has.
    """

    granted: int
    share: int
    waiting: int
    left: int
    until_s: float


class Offset:
    """How far our monotonic clock is from a server's: learnt from its answers.

    The truth lies between what is so if it answered at once, and if it had all the round trip been
    under way. The least that is not refuted keeps times of one answer after those of the other, and
    is never earlier than the truth by more than the clocks drift.
    """

    __slots__ = ("_at_s", "_offset_s")

    def __init__(self) -> None:
        self._offset_s = float("inf")
        self._at_s = 0.0

    def learn(self, server_s: float, *, sent_s: float, received_s: float) -> float:
        """Return what to add to the server's times, after it said that it is `server_s`."""
        latest = received_s - server_s
        known = self._offset_s + _DRIFT * (received_s - self._at_s)
        is_known = known >= sent_s - server_s and received_s - sent_s < _OUTAGE_S
        self._offset_s = min(known, latest) if is_known else latest
        self._at_s = received_s
        return self._offset_s


class Limiter:
    """One process's client for all limited routes; the answers of one server come in turn."""

    def __init__(self, link: Link, *, folder: Path | None, lease_s: float) -> None:
        """`folder`: where holders on this machine have their locks; None: nowhere."""
        self.lease_s = lease_s
        self._link = link
        self._folder = folder
        self._holder: Holder | None = None
        self._connections: dict[Place, Connection] = {}
        self._offsets: dict[Place, Offset] = {}

    def grant(self, route: str, rates: Sequence[Rate], n: int, *, unused: int = 0) -> Grant:
        """Ask for the times of up to `n` mails; `unused`: of earlier ones, how many went unused.

        `rates`: the pace, then quotas. Fewer are given, or none. Raises RedisUnusable where Redis
        refuses us for good, as for a key that is somebody else's.
        """
        keys = [rate_key(route, str(rate)) for rate in rates]
        limits = [number for rate in rates for number in (rate.count, rate.per_s * 1_000_000)]
        place = self._link.place_of(keys[0])
        sent_s = time.monotonic()
        reply = self._connection(place, keys[0]).run(_GRANT, keys, (n, unused, *limits))
        now_us, start_us, granted = reply
        offset_s = self._offsets.setdefault(place, Offset()).learn(
            now_us / 1e6, sent_s=sent_s, received_s=time.monotonic()
        )
        return Grant(start_us / 1e6 + offset_s, granted)

    def connect(self, route: str, limit: int, *, has: int, wanted: int) -> Permit:
        """Say that we have `has` connections and want `wanted`; return how many we may have.

        What is not wanted any more is given back by it. Raises RedisUnusable as `grant` does.
        """
        permit, others = self._connect(route, limit, has, max(has, wanted), [])
        if permit.granted < wanted and (dead := self._me().dead_of(others)):
            log.warning("limits_freed", route=route, holders=len(dead))
            permit, _ = self._connect(route, limit, has, max(has, wanted), dead)
        return permit

    def close(self) -> None:
        """Hang up, and give up our name: the caller has given back all."""
        for connection in self._connections.values():
            connection.close()
        if self._holder is not None:
            self._holder.leave()
            self._holder = None

    def _connect(
        self, route: str, limit: int, has: int, wanted: int, dead: list[str]
    ) -> tuple[Permit, list[str]]:
        key = connections_key(route)
        self._me().touch()
        sent_s = time.monotonic()
        arguments: tuple[Word, ...]
        arguments = (self._me().name, has, wanted, limit, int(self.lease_s * 1000), *dead)
        connection = self._connection(self._link.place_of(key), key)
        granted, share, waiting, left, *others = connection.run(_CONNECT, [key], arguments)
        permit = Permit(granted, share, waiting, left, sent_s + self.lease_s)
        return permit, [name.decode() for name in others]

    def _me(self) -> Holder:
        if self._holder is None:
            self._holder = Holder(self._folder)
        return self._holder

    def _connection(self, place: Place, key: bytes) -> Connection:
        connection = self._connections.pop(place, None) or self._link.open("limits", key)
        self._connections[place] = connection
        if len(self._connections) > _MOST_CONNECTIONS:
            del self._connections[next(iter(self._connections))]  # hangs up after its last call
        return connection
