"""Where all jobs of a queue are, counted from its live keys.

The names of workers and routes are read first, then everything in one MULTI: a job that moves in
between two keys is counted once. A worker that registers in that moment shows at the next call.
"""

from typing import Any

from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Word
from geomail.queue.records import Counts, Held


def read_counts(desk: Connection, keys: Keys) -> Counts:
    """Count all jobs of the queue; raises RedisUnusable when a key has another type."""
    workers = [name.decode() for name in desk.call("ZRANGE", keys.workers, 0, -1)]
    routes = [name.decode() for name in desk.call("ZRANGE", keys.routes, 0, -1)]
    commands: list[tuple[Word, ...]] = [("TIME",)]
    commands += [("LLEN", key) for key in (keys.list, keys.arrive, keys.pushed, keys.front)]
    commands += [("LLEN", keys.suspects), ("ZCARD", keys.delayed), ("ZCARD", keys.dead)]
    commands += [("ZRANGE", keys.delayed, 0, 0, "WITHSCORES"), ("HGETALL", keys.stats)]
    commands += [("ZRANGE", keys.workers, 0, -1, "WITHSCORES")]
    commands += [("LLEN", keys.park(route)) for route in routes]
    commands += [("HGETALL", keys.open(worker)) for worker in workers]
    replies = desk.atomically(commands)
    now, arrived, first_due, stats = replies[0], replies[1:5], replies[8], replies[9]
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    leases = {name.decode(): float(score) for name, score in _pairs(replies[10])}
    parked, tables = replies[11 : 11 + len(routes)], replies[11 + len(routes) :]
    return Counts(
        list=arrived[0],
        arrive=arrived[1],
        pushed=arrived[2],
        front=arrived[3],
        suspects=replies[5],
        delayed=replies[6],
        dead=replies[7],
        next_due_ms=int(float(first_due[1])) if first_due else None,
        parked={route: length for route, length in zip(routes, parked, strict=True) if length},
        workers=_held(workers, tables, leases, now_ms),
        stats={name.decode(): int(number) for name, number in _pairs(stats)},
        now_ms=now_ms,
    )


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
    return entry.count(b".") + entry.count(b"s")


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
