"""A take that was held up on its way, and reaches Redis long after its sender asked again.

Its name is its token: what it takes is found by whoever has the same name, and nobody else's, or it
takes nothing.
"""

import json
import signal
from collections.abc import Iterator
from contextlib import closing

import gevent.event
import pytest
from gevent import socket

from scenarios.at_rest import check
from scenarios.meddler import RedisMeddler, Talk, let_through
from scenarios.stage import Host, Process, Stage, mail, once_each, until, users


class Detour:
    """Holds up one take until it is let go, and has its sender believe that the network failed."""

    def __init__(self, proxy: RedisMeddler, *, after: int) -> None:
        self._proxy = proxy
        self._left = after
        self._held: Talk | None = None
        self._may_go = gevent.event.Event()
        self._reply: gevent.event.AsyncResult[bytes] = gevent.event.AsyncResult()
        proxy.asked, proxy.answered = self._hold_up, self._listen

    @property
    def has_one(self) -> bool:
        """True when a take is held up."""
        return self._held is not None

    def let_go(self) -> bytes:
        """Let the take reach Redis, and return what Redis said to nobody."""
        self._may_go.set()
        reply: bytes = self._reply.get(timeout=10) or b""
        return reply

    def _hold_up(self, talk: Talk, verb: str, data: bytes) -> bytes | None:
        if verb != "take" or self._held is not None:
            return data
        self._left -= 1
        if self._left >= 0:
            return data
        self._held, self._proxy.asked = talk, let_through
        talk.client.shutdown(socket.SHUT_RDWR)
        self._may_go.wait()
        talk.server.sendall(data)
        self._reply.wait()
        return None

    def _listen(self, talk: Talk, _verb: str, data: bytes) -> bytes | None:
        if talk is not self._held:
            return data
        self._reply.set(data)
        return None


@pytest.fixture
def redis_proxy(stage: Stage) -> Iterator[RedisMeddler]:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        yield proxy


def hold_up(stage: Stage, proxy: RedisMeddler, *, after: int = 1) -> tuple[Process, Host, Detour]:
    """Start a worker, and hold up its next take but `after`: the second finds the list empty."""
    host = stage.host()
    worker = stage.worker(relay=host, redis=proxy.url, lease_s=0.5, beat_s=0.1)
    until(lambda: stage.redis.info("clients")["blocked_clients"])
    detour = Detour(proxy, after=after)
    stage.push([mail(0)])
    until(lambda: detour.has_one)
    until(stage.is_clean)
    return worker, host, detour


def test_after_the_same_take_was_answered_and_settled(
    stage: Stage, redis_proxy: RedisMeddler
) -> None:
    _, host, detour = hold_up(stage, redis_proxy, after=0)
    assert b"USED" in detour.let_go()
    check(stage, pushed=1, delivered=1)
    once_each(host.arrivals(), users(1))


def test_it_takes_what_its_sender_then_finds(stage: Stage, redis_proxy: RedisMeddler) -> None:
    _, host, detour = hold_up(stage, redis_proxy)
    until(lambda: stage.redis.info("clients")["blocked_clients"])
    # Into the list that nobody waits at: so the old take is the first to come by.
    stage.redis.lpush("{queue:email}:arrive", json.dumps(mail(1)))
    assert b"u1@example.org" in detour.let_go()
    stage.push([mail(2)])  # has the worker ask, if it doesn't anyway
    host.has_taken(3)
    until(stage.is_clean)
    once_each(host.arrivals(), users(3))


def test_after_its_sender_was_killed_and_reaped(stage: Stage, redis_proxy: RedisMeddler) -> None:
    worker, _, detour = hold_up(stage, redis_proxy)
    [name] = stage.counts().workers
    worker.kill()
    stage.queue.reap([name])
    stage.push([mail(1)])
    assert b"FENCED" in detour.let_go()
    check(stage, pushed=1, delivered=0)
    assert stage.counts().list == 1


def test_after_its_sender_has_left(stage: Stage, redis_proxy: RedisMeddler) -> None:
    worker, _, detour = hold_up(stage, redis_proxy)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    stage.push([mail(1)])
    assert b"FENCED" in detour.let_go()
    check(stage, pushed=1, delivered=0)
