"""The invariant at rest: where Redis keeps each job, and that it is in one place only.

Read straight from the keys, without the queue's own counting, so that the two check each other. The
keys are read one after the other: where a worker moves something in between, they are read again.
"""

import re
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from scenarios.stage import Stage

PREFIX = "{queue:email}:"
LISTS = ("front", "pushed", "suspects")
_MOVES_S = 5.0


def whereabouts(stage: Stage) -> Counter[tuple[str, str]]:
    """Return (id, place) of every job in Redis that a key names; fresh payloads have no id yet."""
    raw = stage.redis
    found: Counter[tuple[str, str]] = Counter()
    routes = [name.decode().removeprefix(PREFIX) for name in raw.keys(f"{PREFIX}park:*")]
    for place in (*LISTS, *routes):
        found.update((_id(item), place) for item in raw.lrange(PREFIX + place, 0, -1))
    for place in ("delayed", "dead"):
        found.update((item.decode(), place) for item in raw.zrange(PREFIX + place, 0, -1))
    for place in ("queue:email", PREFIX + "arrive"):
        found.update((f"{place}#{n}", place) for n in range(raw.llen(place)))
    for key in raw.keys(f"{PREFIX}open:*"):
        found.update(_live(raw, key.decode().rpartition(":")[2]))
    kept = {field.decode() for field in raw.hkeys(PREFIX + "jobs")}
    # A reference whose job is gone was delivered by somebody else, and is dropped when it is met.
    return Counter({pair: n for pair, n in found.items() if pair[0] in kept or _is_bytes(pair)})


def _live(raw: Any, worker: str) -> list[tuple[str, str]]:
    found = []
    for seq, entry in raw.hgetall(f"{PREFIX}open:{worker}").items():
        if seq == b"last":
            continue
        batch = f"batch:{worker}:{seq.decode()}"
        items = raw.lrange(PREFIX + batch, 0, -1)
        states = entry.split(b" ", 1)[1]
        assert len(items) == len(states), (batch, len(items), states)
        for index, (item, state) in enumerate(zip(items, states, strict=True)):
            if state in b".bs":
                is_reference = item[:1] == b"\x01" and state != ord("b")
                own = f"{worker}.{seq.decode()}.{index}"
                found.append((_id(item), batch) if is_reference else (own, batch + " bytes"))
    return found


def _is_bytes(pair: tuple[str, str]) -> bool:
    return pair[1].endswith(" bytes") or "#" in pair[0]


def _id(item: bytes) -> str:
    return item.removeprefix(b"\x01").decode()


def check(stage: Stage, *, pushed: int, delivered: int) -> None:
    """Check the invariant: nothing is lost, nothing in two places, nothing that no key names.

    `pushed` jobs, none of them split, of which `delivered` are no longer Redis's business.
    """
    deadline = time.monotonic() + _MOVES_S
    while time.monotonic() < deadline:
        with suppress(AssertionError):
            return _check(stage, pushed, delivered)
        time.sleep(0.05)
    return _check(stage, pushed, delivered)


def _check(stage: Stage, pushed: int, delivered: int) -> None:
    places = whereabouts(stage)
    by_id = Counter(job_id for job_id, _ in places.elements())
    twice = [(pair, n) for pair, n in places.items() if by_id[pair[0]] > 1]
    assert not twice, f"in two places: {twice[:5]}"
    kept = {field.decode() for field in stage.redis.hkeys(PREFIX + "jobs")}
    unnamed = {re.sub(r"/-?$", "", job_id) for job_id in kept} - by_id.keys()
    assert not unnamed, f"in jobs, and named by no key: {sorted(unnamed)[:5]}"
    batches = {key.decode().removeprefix(PREFIX) for key in stage.redis.keys(f"{PREFIX}batch:*")}
    opened = {
        f"batch:{key.decode().rpartition(':')[2]}:{seq.decode()}"
        for key in stage.redis.keys(f"{PREFIX}open:*")
        for seq in stage.redis.hkeys(key)
        if seq != b"last"
    }
    assert batches == opened, f"batches that no table names, or the reverse: {batches ^ opened}"
    assert by_id.total() == stage.held(), (by_id.total(), stage.counts())
    assert pushed == delivered + by_id.total(), f"{pushed} != {delivered} + {by_id.total()}"
