"""A master that sentinels watch: found by its name, and followed when another takes its place."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_servers import Trio, find_binary, until
from traffic import Traffic

from geomail.errors import RedisUnusable
from geomail.queue import Link, Queue

JOBS = 3_000


@pytest.fixture(params=["7", "6.2"])
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trio]:
    running = Trio(find_binary(request.param), tmp_path)
    yield running
    running.close()


@pytest.fixture
def new_trio(tmp_path: Path) -> Iterator[Trio]:
    running = Trio(find_binary("7"), tmp_path)
    yield running
    running.close()


def test_killed_master_under_load(trio: Trio, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(trio.url)
    link.probe()
    queue = Queue(link, beat_s=0.1)
    queue.register()
    queue.push([b"%d" % number for number in range(JOBS)])
    trio.raws[0].wait(1, 5000)
    traffic = Traffic(queue)
    until(lambda: len(traffic.settled) > 100)
    trio.servers[0].process.send_signal(signal.SIGKILL)
    promotion_s = until(lambda: trio.raws[1].info("replication")["role"] == "master")
    until(lambda: len(traffic.settled) == JOBS)
    traffic.end()
    assert traffic.longest_stall_s < promotion_s + 3
    assert queue.beat()
    counts = queue.counts()
    assert (counts.list, counts.arrive, counts.front, counts.in_flight) == (0, 0, 0, 0)
    # What the replica had not heard of was done twice: some batches, not more.
    assert sum(traffic.settled.values()) - JOBS < 500
    assert queue.leave()
    queue.close()
    assert "redis_moved" in caplog.text
    assert "secret" not in caplog.text
    assert "guard" not in caplog.text


def test_deposed_master_that_comes_back_gets_nothing(new_trio: Trio) -> None:
    queue = Queue(Link(new_trio.url, reply_timeout_s=0.3))
    queue.register()
    queue.push([b"early"])
    slot = queue.take(1).slots[0]
    new_trio.raws[0].wait(1, 5000)
    new_trio.servers[0].process.send_signal(signal.SIGSTOP)
    assert queue.beat()
    new_trio.servers[0].process.send_signal(signal.SIGCONT)
    # For some seconds the old master takes itself for one, and these connections to it are open.
    assert new_trio.raws[0].info("replication")["role"] == "master"
    queue.push([b"late"])
    assert [job.payload for job in queue.take(9).slots] == [b"late"]
    assert new_trio.raws[0].llen("queue:email") == 0
    assert len(new_trio.raws[1].lrange(f"{{queue:email}}:batch:{queue.worker}:2", 0, -1)) == 1
    assert slot.payload == b"early"
    queue.close()


def test_sentinels_that_refuse(new_trio: Trio) -> None:
    for old, new, message in [
        ("?sentinel_password=guard", "", "sentinels have a login of their own"),
        ("=guard", "=wrong", "sentinels have a login of their own"),
        (":secret@", "", "wants a password"),
        ("/mail", "/post", "knows no such master"),
    ]:
        with pytest.raises(RedisUnusable, match=message):
            Link(new_trio.url.replace(old, new)).probe()
    with pytest.raises(RedisUnusable, match="not what the URL says"):
        Link(f"redis://:guard@127.0.0.1:{new_trio.ports[2]}").probe()


def test_sentinels_that_are_away(new_trio: Trio, caplog: pytest.LogCaptureFixture) -> None:
    sentinels = new_trio.sentinels
    sentinels[0].kill()
    queue = Queue(Link(new_trio.url))
    queue.register()
    for process in sentinels[1:]:
        process.kill()
        process.wait()
    new_trio.raws[0].client_kill_filter(_type="normal", skipme=True)
    assert queue.beat()
    queue.close()
    assert "no sentinel of mail of" in caplog.text
