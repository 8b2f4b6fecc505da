"""Two reapers of one dead worker, and a reaper that is killed in between: each job comes back once.

What is back in front has one death more, whoever brought it there and how often he was interrupted.
"""

import json
from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest

from geomail.queue import Link, Queue, journal
from scenarios.at_rest import check
from scenarios.meddler import RedisMeddler, Talk, let_through
from scenarios.stage import Process, Stage, mail, once_each, until, users

BATCHES, EACH = 20, 3
COUNT = BATCHES * EACH


@pytest.fixture
def redis_proxy(stage: Stage) -> Iterator[RedisMeddler]:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        yield proxy


def leave_behind(stage: Stage) -> str:
    """Take all jobs in many batches, die, and return the name under which that was done."""
    with closing(Queue(Link(stage.server.url))) as victim:
        victim.register()
        stage.push(map(mail, range(COUNT)))
        for _ in range(BATCHES):
            victim.take(EACH)
        return victim.worker


def test_at_once(stage: Stage, redis_proxy: RedisMeddler) -> None:
    calls: list[str] = []

    def take_turns(_talk: Talk, verb: str, data: bytes) -> bytes:
        calls.append(verb)
        gevent.sleep(0.002)  # so that the other's call is next
        return data

    redis_proxy.asked = take_turns
    victim = leave_behind(stage)
    reapers = [Queue(Link(redis_proxy.url)) for _ in range(2)]
    both = [gevent.spawn(reaper.reap, [victim]) for reaper in reapers]
    back = [reaping.get(timeout=20) for reaping in both]
    assert sum(back) == COUNT
    assert calls.count("reap") >= 6
    check(stage, pushed=COUNT, delivered=0)
    counts = stage.counts()
    assert (counts.front, counts.suspects, counts.stats["reaped"]) == (COUNT, 0, COUNT)
    with closing(reapers[0]), closing(reapers[1]) as heir:
        heir.register()
        slots = heir.take(COUNT).slots
    expected = [json.dumps(mail(n)).encode() for n in range(COUNT)]
    assert [slot.payload for slot in slots] == expected
    assert {slot.deaths for slot in slots} == {1}


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_is_killed_in_between(
    stage: Stage, redis_proxy: RedisMeddler, call: int, moment: str
) -> None:
    victim = leave_behind(stage)
    ours = journal.Journal(stage.folder / "data" / "journal")
    ours.enlist("queue:email", victim)  # tells the next start of this machine who has died
    ours.close()
    calls = 0
    reaper: Process | None = None

    def kill(_talk: Talk, verb: str, data: bytes) -> bytes | None:
        nonlocal calls
        calls += verb == "reap"
        if verb != "reap" or calls < call:
            return data
        assert reaper is not None
        reaper.kill()
        return None

    if moment == "before":
        redis_proxy.asked = kill
    else:
        redis_proxy.answered = kill
    host = stage.host()
    reaper = stage.worker(relay=host, redis=redis_proxy.url)
    until(lambda: not reaper.is_running)
    assert calls == call
    check(stage, pushed=COUNT, delivered=0)
    assert not host.look()

    redis_proxy.asked = redis_proxy.answered = let_through
    stage.worker(relay=host, redis=redis_proxy.url)
    until(stage.is_clean)
    once_each(host.arrivals(), users(COUNT))
    stats = stage.counts().stats
    assert (stats["reaped"], stats["delivered"]) == (COUNT, COUNT)
    assert not stats.get("suspects")
