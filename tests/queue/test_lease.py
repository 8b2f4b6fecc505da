"""Beats, fences, reaping: who may act, and what becomes of the jobs of a worker that is gone."""

import time
import tracemalloc
from typing import Any

import pytest
from redis_servers import NewQueue, dump

from geomail.queue import FRESH, Done, JobState, Part, Queue, Release, Retry, Slot, Split
from geomail.queue.lease import Lease, find_leaks

pytest_plugins = ("queue_fixtures",)
Raw = Any


def die(victim: Queue, other: Queue) -> int:
    """Let `other` reap a worker that died, and start it again."""
    back = other.reap([victim.worker])
    victim.register()
    return back


def test_register_makes_a_new_name_each_time(queue: Queue, raw: Raw) -> None:
    first = queue.worker
    queue.register()
    assert first != queue.worker
    assert len(queue.worker) == 16
    assert raw.zcard("{queue:email}:workers") == 2


def test_beat_renews_the_lease(queue: Queue, raw: Raw) -> None:
    raw.zadd("{queue:email}:workers", {queue.worker: 1})
    assert queue.beat()
    assert raw.zscore("{queue:email}:workers", queue.worker) > 1000


@pytest.mark.parametrize("score", [None, 0, -5])
def test_beat_of_an_unknown_or_fenced_name_is_refused(
    queue: Queue, raw: Raw, score: int | None
) -> None:
    raw.delete("{queue:email}:workers")
    if score is not None:
        raw.zadd("{queue:email}:workers", {queue.worker: score})
    assert not queue.beat()
    assert not queue.lease_is_mine()
    assert raw.zscore("{queue:email}:workers", queue.worker) == score


def test_lease_ends_by_the_monotonic_clock(new_queue: NewQueue) -> None:
    short = new_queue(lease_s=0.06, beat_s=0.01)
    assert short.lease_is_mine()
    deadline = time.monotonic() + 5
    while short.lease_is_mine():
        assert time.monotonic() < deadline
    assert short.beat()
    assert short.lease_is_mine()


def test_leave_of_an_empty_worker(queue: Queue, raw: Raw) -> None:
    queue.push([b"a"])
    slot = queue.take(1).slots[0]
    assert not queue.leave()
    queue.settle([Done(slot)])
    assert queue.leave()
    assert dump(raw) == {}
    assert raw.zcard("{queue:email}:workers") == 0


def test_leave_keeps_a_tombstone(queue: Queue, new_queue: NewQueue, raw: Raw) -> None:
    new_queue().reap([queue.worker])
    assert queue.leave()
    assert raw.zscore("{queue:email}:workers", queue.worker) < 0


def test_reap_brings_back_everything_in_the_old_order(
    queue: Queue, new_queue: NewQueue, raw: Raw
) -> None:
    other = new_queue()
    queue.push([b"%d" % number for number in range(40)])
    for _ in range(20):
        queue.take(2)
    assert other.reap([queue.worker]) == 40
    now = dump(raw)
    assert sorted(now) == ["front", "jobs"]
    assert all(value.startswith(b"1 ") for value in now["jobs"].values())
    assert raw.zscore("{queue:email}:workers", queue.worker) < 0
    assert [slot.payload for slot in other.take(99).slots] == [b"%d" % n for n in range(40)]


def test_reap_twice_and_half_way(queue: Queue, new_queue: NewQueue) -> None:
    first, second = new_queue(), new_queue()
    queue.push([b"%d" % number for number in range(20)])
    for _ in range(20):
        queue.take(1)
    assert first._reap_call(queue.worker, True, [])[0] == 1
    assert first._reap_call(queue.worker, True, [20, 19, 18]) == [3, 3]
    assert second.reap([queue.worker]) == 17
    assert first.reap([queue.worker]) == 0
    assert [slot.payload for slot in first.take(99).slots] == [b"%d" % n for n in range(20)]


def test_reap_of_a_half_reaped_worker_needs_no_force(
    queue: Queue, new_queue: NewQueue, raw: Raw
) -> None:
    other = new_queue()
    queue.push([b"a"])
    queue.take(1)
    other._reap_call(queue.worker, True, [])
    other._lease.unbroken_since_s = float("-inf")
    assert other.reap() == 1


def test_reap_needs_unbroken_beats_of_its_own(queue: Queue, new_queue: NewQueue, raw: Raw) -> None:
    other = new_queue()
    queue.push([b"a"])
    queue.take(1)
    raw.zadd("{queue:email}:workers", {queue.worker: 1})
    assert not other.may_reap()
    assert other.reap() == 0
    other._lease.unbroken_since_s = time.monotonic() - 35
    assert other.may_reap()
    assert other.reap() == 1


def test_reap_leaves_living_workers_alone(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    queue.push([b"a"])
    queue.take(1)
    other._lease.unbroken_since_s = float("-inf")
    assert other.reap() == 0
    assert queue.beat()


def test_large_batches_are_reaped_in_several_calls(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    queue.push([b"x" * 600_000] * 6)
    for _ in range(3):
        queue.take(2)
    assert other._reap_call(queue.worker, True, [])[0] == 1
    assert other._reap_call(queue.worker, True, [3, 2, 1]) == [2, 1]
    assert other.reap([queue.worker]) == 4


def test_only_a_death_alone_makes_a_job_dead(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    queue.push([b"poison", b"bystander"])
    for _ in range(2):
        assert len(queue.take(2).slots) == 2
        assert die(queue, other) == 2
    counts = other.counts()
    assert (counts.suspects, counts.front) == (2, 0)
    first = queue.take(2)
    assert [(slot.payload, slot.suspect, slot.deaths) for slot in first.slots] == [
        (b"poison", True, 2)
    ]
    assert first.suspects_waiting
    assert queue.take(2).slots == []
    die(queue, other)
    second = queue.take(2)
    assert [slot.payload for slot in second.slots] == [b"bystander"]
    queue.settle([Done(second.slots[0])])
    [letter] = queue.dead_list(5)
    assert (letter.deaths, letter.reason) == (
        3,
        "killed its worker: 3 workers died with it in hand",
    )
    assert queue.dead_retry([letter.id]) == 1
    assert queue.take(1).slots[0].deaths == 0


def test_suspects_wait_for_empty_hands(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    queue.push([b"a"])
    for _ in range(2):
        queue.take(1)
        die(queue, other)
    queue.push([b"b", b"c"])
    held = queue.take(1, suspects=False)
    assert [slot.payload for slot in held.slots] == [b"b"]
    both = queue.take(1)
    assert [slot.payload for slot in both.slots] == [b"c"]
    assert both.suspects_waiting
    queue.settle([Done(slot) for slot in held.slots + both.slots])
    assert [slot.payload for slot in queue.take(1).slots] == [b"a"]


def test_released_suspect_stays_a_suspect(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    queue.push([b"a"])
    for _ in range(2):
        queue.take(1)
        die(queue, other)
    queue.settle([Release(queue.take(1).slots[0], FRESH)])
    assert queue.counts().suspects == 1


def test_tombstones_go_after_a_day(queue: Queue, raw: Raw) -> None:
    day_ms = 86_400_000
    now_ms = int(time.time() * 1000)
    raw.zadd("{queue:email}:workers", {"old": day_ms + 60_000 - now_ms, "new": -now_ms, "busy": 0})
    queue._reap_call("", False, [])
    assert set(raw.zrange("{queue:email}:workers", 0, -1)) == {
        b"new",
        b"busy",
        queue.worker.encode(),
    }


def test_settling_that_redis_lost_is_said_again(queue: Queue, raw: Raw) -> None:
    queue.push([b"a", b"b", b"", b"d"])
    batch = queue.take(4)
    key, name = f"{{queue:email}}:batch:{queue.worker}:1", f"{{queue:email}}:open:{queue.worker}"
    content, table = raw.lrange(key, 0, -1), raw.hgetall(name)
    job = raw.hgetall("{queue:email}:jobs")
    queue.settle([Done(batch.slots[0]), Retry(batch.slots[1], 9999, FRESH), Done(batch.slots[2])])
    queue.settle([Retry(batch.slots[3], 9999, JobState(tries=1))])
    raw.flushall()
    raw.rpush(key, *content)
    raw.hset(name, mapping=table)
    raw.hset("{queue:email}:jobs", mapping=job)
    raw.zadd("{queue:email}:workers", {queue.worker: 9e15})
    assert queue.beat()
    assert queue.counts().stats["reconciled"] == 4
    assert [slot.payload for slot in queue.take(9).slots] == [b"b", b"d"]


def test_batch_that_nobody_knows_is_put_back(queue: Queue, raw: Raw) -> None:
    queue.push([b"a", b"b"])
    queue.take(2)
    queue._lease._held.clear()
    assert queue.beat()
    assert [slot.payload for slot in queue.take(2).slots] == [b"a", b"b"]


def test_beats_find_nothing_to_heal_in_ordinary_life(queue: Queue) -> None:
    queue.push([b"%d" % number for number in range(9)])
    slots = queue.take(9).slots
    assert queue.beat()
    parts = queue.settle([Done(slots[0]), Split(slots[1], [Part(FRESH), Part(FRESH)])])
    assert queue.beat()
    queue.settle([Done(slot) for slot in [*parts, *slots[2:]]])
    assert queue.beat()
    assert "reconciled" not in queue.counts().stats
    assert queue.leave()


def test_leaks_are_what_redis_alone_calls_live() -> None:
    table = {1: b"..x", 2: b".s", 3: b"..", 4: b"...", 7: b"."}
    believed = {1: b"D.D", 2: b"..", 4: b"D.", 5: b"M"}
    assert find_leaks(table, believed, 7) == [
        (1, 0, True),
        (3, 0, False),
        (3, 1, False),
        (4, 0, True),
    ]


def close(lease: Lease, seq: int, now_s: float, fates: bytes = b"DD") -> None:
    lease.hold(seq, len(fates), suspect=False)
    for index, fate in enumerate(fates):
        lease.mark(seq, [index], fate)
    lease.close(seq, now_s)


def test_what_has_closed_is_known_for_half_a_minute() -> None:
    lease = Lease("w")
    lease.hold(9, 2, suspect=False)
    close(lease, 1, 0.0)
    close(lease, 2, 0.5, b"DM")
    believed = lease.snapshot(0.6)
    close(lease, 3, 0.7)
    lease.mark(9, [0], b"D"[0])
    assert believed.of([1, 2, 3, 4, 9]) == {1: b"DD", 2: b"DM", 9: b".."}
    assert lease.snapshot(30.5).of({1, 2, 3}) == {1: b"DD", 2: b"DM", 3: b"DD"}
    assert lease.snapshot(32.0).of([1, 2, 3, 9]) == {9: b"D."}


def test_what_has_closed_takes_eight_octets_a_batch() -> None:
    lease = Lease("w")
    tracemalloc.start()
    for seq in range(20_000):
        close(lease, seq, seq / 1000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000 * 12
    assert len(lease.snapshot(20.0).of(range(20_000))) == 20_000


def test_gap_between_beats_starts_the_count_anew() -> None:
    lease = Lease("w")
    for now_s, since_s in ((0, 0), (5, 0), (10, 0), (31, 31), (36, 31)):
        lease.renew(sent_s=now_s, now_s=now_s, lease_s=30, longest_gap_s=15)
        assert lease.unbroken_since_s == since_s


def test_slots_know_whose_they_are(queue: Queue) -> None:
    queue.push([b"a"])
    slot: Slot = queue.take(1).slots[0]
    assert queue.owns(slot)
    assert slot.worker == queue.worker
