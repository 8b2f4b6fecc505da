"""Large mails, which move from list to batch unread, and everything that can fail in that moment.

A proxy in front of Redis sees each command of the MULTI: it cuts the connection before EXEC or
behind it, kills the worker, or kills Redis. Each mail arrives exactly once.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from scenarios.at_rest import check
from scenarios.meddler import RedisMeddler, Talk, cut_off, let_through
from scenarios.stage import Host, Stage, mail, once_each, until, users

COUNT = 300
TEXT = "It was the best of times, it was the worst of times.\n" * 1_000


@pytest.fixture
def redis_proxy(stage: Stage) -> Iterator[RedisMeddler]:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        yield proxy


class Turns:
    """Does `what` at every third EXEC of a lift, `times` in all, and lets the others through."""

    def __init__(self, what: Callable[[], None] = lambda: None, *, times: int = 1000) -> None:
        self.struck = 0
        self._seen = 0
        self._what, self._times = what, times

    def __call__(self, _talk: Talk, verb: str, data: bytes) -> bytes | None:
        if verb != "EXEC" or len(data) in (len(b"+QUEUED\r\n"), len(b"+OK\r\n")):
            return data
        self._seen += 1
        if self._seen % 3 or self.struck >= self._times:
            return data
        self.struck += 1
        self._what()
        return None


def push(stage: Stage) -> None:
    stage.push(json.dumps(mail(number, text=TEXT)).encode() for number in range(COUNT))


def all_arrive(stage: Stage, host: Host) -> None:
    until(stage.is_clean, within_s=60)
    once_each(host.arrivals(), users(COUNT))
    check(stage, pushed=0, delivered=0)
    assert stage.counts().stats["delivered"] == COUNT
    assert not stage.counts().stats.get("reconciled")


@pytest.mark.parametrize("side", ["asked", "answered"])
def test_the_connection_is_cut(stage: Stage, redis_proxy: RedisMeddler, side: str) -> None:
    turns = Turns()
    setattr(redis_proxy, side, turns)
    push(stage)
    host = stage.host()
    stage.worker(relay=host, redis=redis_proxy.url, lease_s=30)
    all_arrive(stage, host)
    assert turns.struck >= 2


@pytest.mark.parametrize("side", ["asked", "answered"])
def test_the_worker_is_killed(stage: Stage, redis_proxy: RedisMeddler, side: str) -> None:
    push(stage)
    host = stage.host(delay_s=0.01)

    def strike() -> None:
        worker.signal(signal.SIGKILL)
        redis_proxy.asked = cut_off
        worker.wait()
        redis_proxy.asked = redis_proxy.answered = let_through

    turns = Turns(strike, times=1)
    worker = stage.worker("--concurrency", "2", relay=host, redis=redis_proxy.url, lease_s=30)
    until(lambda: stage.counts().workers)
    setattr(redis_proxy, side, turns)
    until(lambda: not worker.is_running)
    assert turns.struck == 1
    check(stage, pushed=COUNT, delivered=stage.counts().stats.get("delivered", 0))
    stage.worker(relay=host, redis=redis_proxy.url, lease_s=30)
    until(stage.is_clean, within_s=60)
    arrivals = host.arrivals()
    assert arrivals.keys() == set(users(COUNT))
    # What the host had taken, and nobody had read that it had.
    assert sum(arrivals.values()) <= COUNT + 2


@pytest.mark.parametrize("side", ["asked", "answered"])
def test_redis_is_killed(stage: Stage, redis_proxy: RedisMeddler, side: str) -> None:
    stage.redis.config_set("appendfsync", "always")

    def strike() -> None:
        os.kill(stage.server.pid, signal.SIGKILL)
        stage.server.kill()
        stage.restart_redis()

    turns = Turns(strike, times=2)
    setattr(redis_proxy, side, turns)
    push(stage)
    host = stage.host()
    stage.worker(relay=host, redis=redis_proxy.url, lease_s=30)
    all_arrive(stage, host)
    assert turns.struck == 2
