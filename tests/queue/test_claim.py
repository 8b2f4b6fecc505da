"""Dedupe keys: who holds one, for how long, and when it is free again."""

from typing import Any

import msgspec
import pytest
from redis_servers import NewQueue

from geomail.errors import RedisUnusable
from geomail.queue import FRESH, Dead, Done, Duplicate, Part, Queue, Release, Retry, Slot, Split

pytest_plugins = ("queue_fixtures",)
Raw = Any
DAY_H = 24


def take(queue: Queue, *payloads: bytes) -> list[Slot]:
    queue.push(payloads)
    return queue.take(len(payloads)).slots


def claim(queue: Queue, slot: Slot, key: str = "order 1", window_h: float = DAY_H) -> bool:
    """Claim as a worker does: the key goes into the slot's state."""
    [is_mine] = queue.claim([(key, slot.id)], window_h)
    if is_mine:
        slot.state = msgspec.structs.replace(slot.state, dedupe=key)
    return is_mine


def test_first_one_goes_on(queue: Queue) -> None:
    a, b, c = take(queue, b"a", b"b", b"c")
    assert queue.claim([("x", a.id), ("x", b.id), ("y", c.id)], DAY_H) == [True, False, True]
    assert queue.claim([("x", a.id), ("x", b.id), ("y", c.id)], DAY_H) == [True, False, True]
    assert queue.claim([], DAY_H) == []


@pytest.mark.parametrize("key", ["", "é\x00\n ", "0", "x" * 5000])
def test_any_text_is_a_key_and_the_empty_one_is_none(queue: Queue, key: str) -> None:
    a, b = take(queue, b"a", b"b")
    assert queue.claim([(key, a.id), (key, b.id)], DAY_H) == [True, not key]


def test_key_of_a_delivered_job_is_held_for_the_window(queue: Queue, raw: Raw) -> None:
    a, b = take(queue, b"a", b"b")
    assert claim(queue, a)
    queue.settle([Done(a)])
    assert not claim(queue, b)
    [bucket] = raw.keys("{queue:email}:seen:*")
    since = int(raw.hget(bucket, "order 1").split()[0])
    raw.hset(bucket, "order 1", f"{since - DAY_H * 3_600_000} {a.id}")
    assert claim(queue, b)


def test_key_of_a_waiting_job_is_held_beyond_the_window(queue: Queue, raw: Raw) -> None:
    a, b = take(queue, b"a", b"b")
    assert claim(queue, a)
    queue.settle([Retry(a, 10**9, a.state)])
    [bucket] = raw.keys("{queue:email}:seen:*")
    raw.hset(bucket, "order 1", f"5 {a.id}")
    assert not claim(queue, b)


def test_buckets_take_turns(queue: Queue, raw: Raw) -> None:
    a, b, c, d = take(queue, b"a", b"b", b"c", b"d")
    assert claim(queue, a)
    [first] = raw.keys("{queue:email}:seen:*")
    raw.hset(first, "", 5)
    assert claim(queue, b, "order 2")
    assert len(raw.keys("{queue:email}:seen:*")) == 2
    assert not claim(queue, c)
    [second] = set(raw.keys("{queue:email}:seen:*")) - {first}
    raw.hset(second, "", 6)
    assert claim(queue, c, "order 3")
    assert set(raw.hkeys(first)) == {b"", b"order 3"}
    assert claim(queue, d)


def test_dead_job_gives_its_key_back(queue: Queue) -> None:
    a, b, c = take(queue, b"a", b"b", b"c")
    assert claim(queue, a)
    queue.settle([Dead(a, a.state)])
    assert claim(queue, b)
    assert queue.dead_retry([a.id]) == 1
    [again] = queue.take(1).slots
    assert again.state.dedupe == "order 1"
    assert not claim(queue, again)
    queue.settle([Dead(again, again.state)])
    assert not claim(queue, c), "only the holder's death frees a key"


def test_late_claim_of_a_dead_job_holds_nothing(queue: Queue) -> None:
    a, b = take(queue, b"a", b"b")
    queue.settle([Dead(a, FRESH)])
    assert claim(queue, a)
    assert claim(queue, b)


def test_dropped_job_gives_its_key_back(queue: Queue) -> None:
    a, b = take(queue, b"a", b"b")
    assert claim(queue, a)
    queue.settle([Dead(a, a.state)])
    assert claim(queue, a)
    assert queue.dead_drop([a.id]) == 1
    assert claim(queue, b)


def test_job_that_killed_three_workers_gives_its_key_back(
    queue: Queue, new_queue: NewQueue
) -> None:
    other = new_queue()
    take(queue, b"poison")
    for _ in range(2):
        other.reap([queue.worker])
        queue.register()
        [slot] = queue.take(1).slots
        assert claim(queue, slot, "the/key")
    other.reap([queue.worker])
    [letter] = other.dead_list(5)
    assert letter.state.dedupe == "the/key"
    assert other.dead_drop(every=True) == 1
    [fresh] = take(other, b"fresh")
    assert claim(other, fresh, "the/key")


def test_parts_go_on_by_the_claim_of_the_whole(queue: Queue) -> None:
    whole, b = take(queue, b"a", b"b")
    assert claim(queue, whole)
    parts = queue.settle([Split(whole, [Part(whole.state), Part(whole.state)])])
    assert queue.claim([("order 1", part.id) for part in parts], DAY_H) == [True, True]
    assert not claim(queue, b)
    queue.settle([Dead(parts[0], parts[0].state)])
    assert not claim(queue, b), "the other part may be delivered"
    queue.settle([Dead(parts[1], parts[1].state)])
    assert claim(queue, b)


def split(queue: Queue, fates: list[Any]) -> tuple[list[Slot], Slot]:
    """Claim for a job of parts with these fates; return those in work, and who comes next."""
    whole, b = take(queue, b"a", b"b")
    assert claim(queue, whole)
    return queue.settle([Split(whole, [Part(whole.state, fate) for fate in fates])]), b


def test_a_delivered_part_keeps_the_key(queue: Queue) -> None:
    parts, b = split(queue, ["slot", "slot", "slot"])
    queue.settle([Dead(parts[0], parts[0].state)])
    queue.settle([Done(parts[1])])
    queue.settle([Dead(parts[2], parts[2].state)])
    assert not claim(queue, b)
    assert queue.dead_drop(every=True) == 2
    assert not claim(queue, b)


def test_parts_that_were_put_back_live(queue: Queue) -> None:
    parts, b = split(queue, ["slot", "dead", ("retry", 10**9)])
    assert queue.dead_retry([f"{parts[0].id[:-2]}/2"]) == 1
    queue.settle([Dead(parts[0], parts[0].state)])
    assert not claim(queue, b)
    [again] = queue.take(1).slots
    queue.settle([Dead(again, again.state)])
    assert not claim(queue, b), "one is delayed"


def test_parts_of_parts_give_the_key_back_with_the_last(queue: Queue) -> None:
    parts, b = split(queue, ["slot", "dead"])
    dead = Part(parts[0].state, "dead")
    for _ in ("once", "and once more"):
        queue.settle([Split(parts[0], [dead, dead])])
    assert claim(queue, b)


def test_dropped_parts_count_no_more(queue: Queue) -> None:
    parts, b = split(queue, ["slot", "dead"])
    assert queue.dead_drop(every=True) == 1
    assert not claim(queue, b)
    queue.settle([Dead(parts[0], parts[0].state)])
    assert claim(queue, b)


@pytest.mark.parametrize("is_split", [True, False])
def test_whom_some_have_had_keeps_its_key_for_the_window(
    queue: Queue, raw: Raw, is_split: bool
) -> None:
    if is_split:
        ends, b = split(queue, ["slot", "slot"])
    else:
        *ends, b = take(queue, b"a", b"b")
        assert claim(queue, ends[0])
    ends[0].state = msgspec.structs.replace(ends[0].state, reached=True)
    for end in ends:
        queue.settle([Dead(end, end.state)])
    assert not claim(queue, b)
    [bucket] = raw.keys("{queue:email}:seen:*")
    since, _, holder = raw.hget(bucket, "order 1").partition(b" ")
    raw.hset(bucket, "order 1", b"%d %s" % (int(since) - DAY_H * 3_600_000, holder))
    assert claim(queue, b)


def test_duplicate_is_dropped_and_counted(queue: Queue, raw: Raw) -> None:
    plain, odd, moved = take(queue, b"a", b"", b"c")
    queue.settle([Release(moved, FRESH)])
    [moved] = queue.take(1).slots
    for _ in ("once", "and once more"):
        queue.settle([Duplicate(slot) for slot in (plain, odd, moved)])
    assert not raw.exists("{queue:email}:jobs")
    counts = queue.counts()
    assert (counts.stats["deduped"], counts.waiting, counts.in_flight) == (3, 0, 0)
    assert "delivered" not in counts.stats


def test_duplicate_of_a_fenced_worker_is_passed_over(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    [slot] = take(queue, b"a")
    other.reap([queue.worker])
    queue.settle([Duplicate(slot)])
    assert other.counts().front == 1


def test_wrong_type_of_a_bucket(queue: Queue, raw: Raw) -> None:
    [slot] = take(queue, b"a")
    raw.set("{queue:email}:seen:1", "in the way")
    with pytest.raises(RedisUnusable, match="seen:1"):
        claim(queue, slot)
    state = msgspec.structs.replace(slot.state, dedupe="k", told=True)
    queue.settle([Dead(slot, state)])
    assert queue.counts().dead == 1
