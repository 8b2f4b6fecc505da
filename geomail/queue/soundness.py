"""Whether a Redis can be trusted with mail: its version, its shape, what it drops, what it keeps.

Too old, or a part of a cluster that was named as if it were alone: RedisUnusable. That it may drop
keys, or keeps nothing on disk, is a warning each, for those who want to hear it. What a server
forbids to ask is not held against it.
"""

from collections.abc import Callable
from typing import Any

from geomail import log
from geomail.errors import RedisUnusable

_OLDEST = (6, 2)

Call = Callable[..., Any]


def judge(call: Call, address: str, *, is_single: bool, warns: bool = True) -> None:
    """Look at the Redis that `call` asks; `is_single`: the URL says that it is no cluster."""
    facts = _info(call)
    if not facts:
        if warns:
            log.warning("redis_unchecked", redis=address, reason="INFO is not allowed")
        return
    version = tuple(int(number) for number in facts.get("redis_version", "0").split(".")[:2])
    if version < _OLDEST:
        raise RedisUnusable(
            f"Redis at {address} is {facts.get('redis_version')}: needs 6.2 or later"
        )
    if is_single and _has_shards(facts, call):
        raise RedisUnusable(
            f"Redis at {address} is one of a cluster: use redis+cluster://{address}"
        )
    if warns:
        _warn(facts, call, address)


def _warn(facts: dict[str, str], call: Call, address: str) -> None:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        log.warning(
            "redis_may_drop_mail",
            redis=address,
            maxmemory_policy=policy,
            advice="set maxmemory-policy noeviction",
        )
    if facts.get("aof_enabled") != "1" and not _saves(call):
        log.warning(
            "redis_keeps_nothing",
            redis=address,
            advice="set appendonly yes, else a restart of Redis loses all mail",
        )


def _info(call: Call) -> dict[str, str]:
    try:
        reply: bytes = call("INFO")
    except RedisUnusable:
        return {}  # hosted servers, and careful people, forbid the question
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _saves(call: Call) -> bool:
    try:
        reply = call("CONFIG", "GET", "save")
    except RedisUnusable:
        return True  # hosted servers forbid the question
    return len(reply) > 1 and bool(reply[1])


def _has_shards(facts: dict[str, str], call: Call) -> bool:
    if facts.get("cluster_enabled") != "1":
        return False
    return len({row[2][2] for row in call("CLUSTER", "SLOTS")}) > 1
