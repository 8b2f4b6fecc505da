"""Queues in a cluster: each on the shard of its slot, and followed when that moves."""

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot
from redis_servers import RedisCluster, find_binary, until
from traffic import Traffic

from geomail.errors import RedisUnusable
from geomail.queue import FRESH, Dead, Done, Link, Park, Part, Queue, Split

NAMES = ["queue:email", "queue:news", "queue:bulk", "{mail}:out", "queue:b", "queue:c"]
JOBS = 2_000
Clusters = dict[str, RedisCluster]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Start both at once: each waits two seconds until it dares to serve."""
    versions = ("7", "6.2")
    running = {
        version: RedisCluster(find_binary(version), tmp_path_factory.mktemp("cluster"))
        for version in versions
    }
    for cluster in running.values():
        cluster.wait()
    yield running
    for cluster in running.values():
        cluster.close()


@pytest.fixture(params=["7", "6.2"])
def cluster(request: pytest.FixtureRequest, clusters: Clusters) -> RedisCluster:
    chosen = clusters[request.param]
    for raw in chosen.raws:
        with contextlib.suppress(redis.exceptions.ReadOnlyError):
            raw.flushall()
    return chosen


def _queue(cluster: RedisCluster, name: str = "queue:email") -> Queue:
    queue = Queue(Link(cluster.url), name)
    queue.register()
    return queue


def test_large_payloads_are_lifted_on_their_shard(cluster: RedisCluster) -> None:
    for name in NAMES:
        queue = _queue(cluster, name)
        table = queue._keys.open(queue.worker)
        raw = cluster.raws[cluster.master_of(key_slot(name.encode()))]
        for number in range(3):  # one shows how large they are, one loads the script
            queue.push([b"large" * 10_000] * 2)
            slots = queue.take(2).slots
            is_lifted = raw.hget(table, slots[0].seq).endswith(b" bb")
            assert is_lifted or number < 2
            queue.settle([Done(slot) for slot in slots])
        queue.close()


def test_several_lists_over_several_shards(cluster: RedisCluster) -> None:
    link = Link(cluster.url)
    link.probe()
    shards = {cluster.master_of(key_slot(name.encode())) for name in NAMES}
    assert shards == {0, 1, 2}
    for name in NAMES:
        queue = Queue(link, name)
        queue.register()
        queue.push([b"%d" % number for number in range(5)])
        queue.wait(1)
        assert cluster.raws[cluster.master_of(key_slot(name.encode()))].llen(name) == 4
        slots = queue.take(9).slots
        parts = queue.settle(
            [
                Done(slots[0]),
                Dead(slots[1], FRESH),
                Park([slots[2]], "r", 0, FRESH),
                Split(slots[3], [Part(FRESH), Part(FRESH, "dead")]),
            ]
        )
        queue.settle([Done(part) for part in parts])
        assert queue.beat()
        counts = queue.counts()
        assert (counts.dead, counts.parked, counts.in_flight) == (2, {"r": 1}, 1)
        assert queue.dead_retry(every=True) == 2
        other = _queue(cluster, name)
        assert other.reap([queue.worker]) == 1
        slots = other.take(9).slots + other.take(9, route="r").slots
        assert len(slots) == 4
        other.settle([Done(slot) for slot in slots])
        assert other.leave()
        other.close()
        queue.close()


def test_slot_that_moves_under_load(cluster: RedisCluster) -> None:
    queue = _queue(cluster)
    queue.push([b"%d" % number for number in range(JOBS)])
    slot = key_slot(b"queue:email")
    source = cluster.master_of(slot)
    target = (source + 1) % 3
    traffic = Traffic(queue)
    until(lambda: len(traffic.settled) > 100)
    _migrate(cluster, slot, source, target)
    _migrate(cluster, slot, target, source)
    moved_at = time.monotonic()
    until(lambda: traffic.settled_at > moved_at)
    assert traffic.settled_at - moved_at < 2
    until(lambda: len(traffic.settled) == JOBS)
    traffic.end()
    assert sum(traffic.settled.values()) == JOBS
    assert queue.counts().stats["taken"] == JOBS
    assert queue.leave()
    queue.close()


@pytest.mark.parametrize("act", ["push", "beat"])
def test_slot_that_is_on_its_way_for_a_while(
    cluster: RedisCluster, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = _queue(cluster)
    slot = key_slot(b"queue:email")
    source = cluster.master_of(slot)
    target = (source + 1) % 3
    _begin_to_move(cluster, slot, source, target)
    timer = threading.Timer(0.2, _end_move, (cluster, slot, source, target))
    timer.start()
    if act == "push":
        queue.push([b"a"])
    else:
        assert queue.beat()
    timer.join()
    assert re.search("ASK|TRYAGAIN", caplog.text)
    assert len(queue.take(9).slots) == (act == "push")
    _migrate(cluster, slot, target, source)
    queue.close()


def test_wait_on_a_slot_that_moves(cluster: RedisCluster) -> None:
    queue = _queue(cluster)
    slot = key_slot(b"queue:email")
    source = cluster.master_of(slot)
    target = (source + 1) % 3
    traffic = Traffic(queue)
    until(lambda: cluster.raws[source].info("clients")["blocked_clients"] == 1)
    _migrate(cluster, slot, source, target)
    queue.push([b"a"])
    until(lambda: traffic.settled)
    traffic.end()
    _migrate(cluster, slot, target, source)
    assert queue.leave()
    queue.close()


def test_killed_master_under_load(clusters: Clusters) -> None:
    cluster = clusters["7"]
    name = next(name for name in NAMES if cluster.master_of(key_slot(name.encode())) == 0)
    queue = _queue(cluster, name)
    queue.push([b"%d" % number for number in range(JOBS)])
    cluster.raws[0].wait(1, 5000)
    traffic = Traffic(queue)
    until(lambda: len(traffic.settled) > 100)
    cluster.servers[0].process.send_signal(signal.SIGKILL)
    promotion_s = until(lambda: cluster.raws[3].info("replication")["role"] == "master")
    until(lambda: len(traffic.settled) == JOBS)
    traffic.end()
    assert traffic.longest_stall_s < promotion_s + 3
    assert queue.beat()
    assert queue.counts().in_flight == 0
    assert sum(traffic.settled.values()) - JOBS < 500
    assert queue.leave()
    queue.close()
    cluster.servers[0].kill()
    cluster.servers[0].start()
    cluster.wait()


def test_node_of_a_cluster_alone(clusters: Clusters) -> None:
    cluster = clusters["7"]
    with pytest.raises(RedisUnusable, match="use redis\\+cluster://"):
        Link(f"redis://127.0.0.1:{cluster.ports[1]}").probe()


def _migrate(cluster: RedisCluster, slot: int, source: int, target: int) -> None:
    """Move a slot with all its keys, as redis-cli does."""
    _begin_to_move(cluster, slot, source, target)
    _end_move(cluster, slot, source, target)


def _begin_to_move(cluster: RedisCluster, slot: int, source: int, target: int) -> None:
    names = cluster.names
    cluster.raws[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    cluster.raws[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])


def _end_move(cluster: RedisCluster, slot: int, source: int, target: int) -> None:
    old, port = cluster.raws[source], cluster.ports[target]
    while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        old.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
    for at in (target, source, *({0, 1, 2} - {source, target})):
        raw = cluster.raws[at]
        raw.execute_command("CLUSTER", "SETSLOT", slot, "NODE", cluster.names[target])
