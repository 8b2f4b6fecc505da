"""Redis has done what it was asked to, and its reply never arrives: for every kind of request.

A proxy passes the request on, waits for the reply, and cuts the connection instead. Nothing is
lost, nothing goes twice, nothing is counted twice.
"""

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from geomail.queue import Link, Queue
from scenarios.at_rest import check
from scenarios.meddler import RedisMeddler, Talk
from scenarios.stage import Stage, mail, once_each, until, users


class Loser:
    """Loses the reply of each request of one kind that falls on its turn."""

    def __init__(self, verbs: set[str], *, every: int) -> None:
        self.lost: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._verbs, self._every = verbs, every
        self._chance = random.Random(7)

    def __call__(self, _talk: Talk, verb: str, data: bytes) -> bytes | None:
        if verb not in self._verbs:
            return data
        self._seen[verb] += 1
        if self._seen[verb] % self._every:
            return data
        self.lost[verb] += 1
        return None


@pytest.fixture
def redis_proxy(stage: Stage) -> Iterator[RedisMeddler]:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        yield proxy


@pytest.mark.parametrize("verb", ["take", "settle", "beat"])
def test_of_one_kind(stage: Stage, redis_proxy: RedisMeddler, verb: str) -> None:
    host = stage.host(delay_s=0.005)
    redis_proxy.answered = loser = Loser({verb}, every=2)
    worker = stage.worker(relay=host, redis=redis_proxy.url, lease_s=30, beat_s=0.1)
    stage.push(map(mail, range(1_000)))
    until(lambda: loser.lost[verb] >= 5 and stage.is_clean(), f"{verb}: {loser.lost}")
    check(stage, pushed=1_000, delivered=len(host.arrivals()))
    once_each(host.arrivals(), users(1_000))
    stats = stage.counts().stats
    assert (stats["taken"], stats["delivered"]) == (1_000, 1_000)
    assert not stats.get("reconciled")
    assert "lease_lost" not in worker.stderr


def test_of_a_wait(stage: Stage, redis_proxy: RedisMeddler) -> None:
    host = stage.host()
    redis_proxy.answered = loser = Loser({"BLMOVE"}, every=1)
    stage.worker(relay=host, redis=redis_proxy.url)
    for number in range(5):
        until(lambda: any(talk.verb == "BLMOVE" for talk in redis_proxy.talks))
        until(lambda: stage.redis.info("clients")["blocked_clients"])
        stage.push([mail(number)])
        host.has_taken(number + 1, within_s=2)
    until(stage.is_clean)
    assert loser.lost["BLMOVE"] == 5
    once_each(host.arrivals(), users(5))


def test_of_a_reap(stage: Stage, redis_proxy: RedisMeddler) -> None:
    victim = Queue(Link(stage.server.url))
    victim.register()
    stage.push(map(mail, range(60)))
    for _ in range(30):
        victim.take(2)
    redis_proxy.answered = loser = Loser({"reap"}, every=2)
    reaper = Queue(Link(redis_proxy.url))
    reaper.register()
    reaper.reap([victim.worker])
    check(stage, pushed=60, delivered=0)
    assert loser.lost["reap"] >= 4
    counts = stage.counts()
    assert (counts.front, counts.suspects) == (60, 0), "one death was counted twice"
    slots = reaper.take(60).slots
    assert [slot.payload for slot in slots] == [json.dumps(mail(n)).encode() for n in range(60)]
    assert {slot.deaths for slot in slots} == {1}
    victim.close()
    reaper.close()


def test_of_all_kinds_at_random(stage: Stage, redis_proxy: RedisMeddler) -> None:
    host = stage.host(delay_s=0.002)
    kinds = {"take", "settle", "beat", "reap", "BLMOVE"}
    redis_proxy.answered = loser = Loser(kinds, every=3)
    stage.worker(relay=host, redis=redis_proxy.url, beat_s=0.1)
    stage.push(map(mail, range(2_000)))
    until(stage.is_clean)
    once_each(host.arrivals(), users(2_000))
    assert loser.lost.total() >= 10, loser.lost
    assert stage.counts().stats["delivered"] == 2_000


def test_of_the_worker_that_leaves(stage: Stage, redis_proxy: RedisMeddler) -> None:
    host = stage.host()
    worker = stage.worker(relay=host, redis=redis_proxy.url)
    worker.says("running")
    lost: list[str] = []

    def lose_once(_talk: Talk, verb: str, data: bytes) -> bytes | None:
        if verb != "leave" or lost:
            return data
        lost.append(verb)
        return None

    redis_proxy.answered = lose_once
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert lost == ["leave"]
    assert not stage.counts().workers
    assert "left_in_hand" not in worker.stderr
