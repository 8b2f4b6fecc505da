"""Where all jobs of a queue are, counted from its live keys.

The names of workers and routes are read first, then everything by one script: a job that moves in
between two keys is counted once. A worker that registers in that moment shows at the next call.
Behind the first thousand routes it is a script for each further thousand, so that Redis is not kept
for long by what is parked for a hundred thousand sites: what moves among those meanwhile may be
missed, or counted twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Script
from geomail.queue.records import Counts, Held
from geomail.queue.slots import LIVE_IN_REDIS

_COUNTS, _PARKED = Script("counts"), Script("parked")
ROUTES_A_CALL = 1_000
_LOOK_MS = 30_000


def read_counts(desk: Connection, keys: Keys) -> Counts:
    """Count all jobs of the queue; raises RedisUnusable when a key has another type."""
    workers = [name.decode() for name in desk.call("ZRANGE", keys.workers, 0, -1)]
    routes = read_routes(desk, keys, 0)
    names = [keys.list, keys.arrive, keys.pushed, keys.front, keys.suspects, keys.delayed]
    names += [keys.dead, keys.stats, keys.workers, keys.held, keys.pressure]
    names += [keys.park(route) for route in routes]
    names += [keys.open(worker) for worker in workers]
    now_ms, *lengths = desk.run(_COUNTS, names, (len(routes),))
    first_due, stats, leases_of, members, pressure, *rest = lengths[7:]
    leases = {name.decode(): float(score) for name, score in _pairs(leases_of)}
    parked, tables = dict(zip(routes, rest, strict=False)), rest[len(routes) :]
    parked |= _parked_further(desk, keys, len(routes))
    counters = {name.decode(): value for name, value in _pairs(stats)}
    since, looks = counters.pop(".since", None), counters.pop(".looks", b"")
    numbers = {name: int(value) for name, value in counters.items()}
    return Counts(
        list=lengths[0],
        arrive=lengths[1],
        pushed=lengths[2],
        front=lengths[3],
        suspects=lengths[4],
        delayed=lengths[5],
        dead=lengths[6],
        next_due_ms=int(float(first_due[1])) if first_due else None,
        parked={route: length for route, length in parked.items() if length},
        workers=_held(workers, tables, leases, now_ms),
        stats=numbers,
        now_ms=now_ms,
        held=tuple(sorted(read_held(members))),
        not_empty_since_ms=int(since) if since and lengths[0] + lengths[1] else None,
        pressure="high" if pressure == b"high" else "ok",
        delivered_per_minute=_rate(looks, numbers.get("delivered", 0), now_ms),
    )


def read_routes(desk: Connection, keys: Keys, start: int) -> list[str]:
    """Read the names of routes for which something may be parked, a thousand from `start` on."""
    names = desk.call("ZRANGE", keys.routes, start, start + ROUTES_A_CALL - 1)
    return [name.decode() for name in names]


def read_parked(desk: Connection, keys: Keys, routes: Sequence[str]) -> dict[str, int]:
    """Count what is parked for each of up to a thousand routes."""
    lengths = desk.run(_PARKED, [keys.park(route) for route in routes], ())
    return dict(zip(routes, lengths, strict=True))


def _parked_further(desk: Connection, keys: Keys, start: int) -> dict[str, int]:
    parked: dict[str, int] = {}
    while start and start % ROUTES_A_CALL == 0 and (routes := read_routes(desk, keys, start)):
        parked |= read_parked(desk, keys, routes)
        start += len(routes)
    return parked


def read_held(members: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Read the names that people hold back."""
    for member in members:
        kind, _, name = member.decode("utf-8", "replace").partition(":")
        yield kind, name


def _rate(looks: bytes, delivered: int, now_ms: int) -> float:
    """Return the deliveries a minute since a look that is half a minute old, or the oldest."""
    if not looks:
        return 0.0
    old_ms, old, new_ms, new = map(int, looks.split())
    at_ms, before = (new_ms, new) if now_ms - new_ms >= _LOOK_MS else (old_ms, old)
    return max(0, delivered - before) * 60_000 / max(1000, now_ms - at_ms)


def _held(
    workers: list[str], tables: list[Any], leases: dict[str, float], now_ms: int
) -> dict[str, Held]:
    """Workers with a lease, or with jobs; tombstones that are empty are nobody's business."""
    held = {}
    for worker, table in zip(workers, tables, strict=True):
        lease = leases.get(worker, 0)
        jobs = sum(_live(entry) for seq, entry in _pairs(table) if seq != b"last")
        if lease > 0 or jobs:
            is_fenced = lease <= 0
            held[worker] = Held(0 if is_fenced else int(lease - now_ms), jobs, is_fenced)
    return held


def _live(entry: bytes) -> int:
    return sum(entry.count(character) for character in LIVE_IN_REDIS)


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
