"""The master dies under load, and sentinels make its replica the next: a worker follows by itself.

What the replica had not heard of when its master died is the price of asynchronous replication: a
mail whose settling it missed would go twice, but for the journal, which is said again.
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis
from redis_servers import Trio, find_binary

from geomail.queue import Link, Queue
from scenarios.stage import Stage, mail, until, users

COUNT = 3_000


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    with closing(Trio(find_binary("7"), tmp_path / "trio")) as running:
        yield running


def test_under_load(stage: Stage, trio: Trio, capsys: pytest.CaptureFixture[str]) -> None:
    host = stage.host(delay_s=0.01)
    old, new = trio.raws[:2]
    old.lpush("queue:email", *(json.dumps(mail(number)) for number in range(COUNT)))
    old.wait(1, 5_000)
    worker = stage.worker(relay=host, redis=trio.url, lease_s=30, beat_s=0.5)
    host.has_taken(500)
    trio.servers[0].process.send_signal(signal.SIGKILL)
    until(lambda: _is_master(new))
    host.has_taken(COUNT)
    with closing(Queue(Link(trio.url))) as queue:
        until(lambda: queue.counts().in_flight == queue.counts().list == 0)
        until(lambda: not new.hlen("{queue:email}:jobs"))
    arrivals = host.arrivals()
    assert arrivals.keys() == set(users(COUNT))
    twice = arrivals.total() - COUNT
    with capsys.disabled():
        sys.stdout.write(f"{twice} of {COUNT} arrived more than once after a change of masters\n")
    assert twice <= 2 * 20 * 8
    assert worker.is_running
    assert "redis_moved" in worker.stderr
    assert "greenlet_broke" not in worker.stderr


def _is_master(raw: "redis.Redis") -> bool:
    with suppress(redis.RedisError):
        return bool(raw.info("replication")["role"] == "master")
    return False
