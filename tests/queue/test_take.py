"""What a take brings, from where, in which order, and what it leaves behind in Redis."""

from typing import Any

import pytest
from redis_servers import NewQueue, dump

from geomail.errors import RedisUnusable
from geomail.queue import FRESH, Dead, Done, JobState, Part, Queue, Release, Retry, Split

pytest_plugins = ("queue_fixtures",)
Raw = Any


def payloads(slots: list[Any]) -> list[bytes]:
    return [slot.payload for slot in slots]


def test_take_moves_bytes_into_a_batch(queue: Queue, raw: Raw) -> None:
    queue.push([b"one", b"two", b"three"])
    batch = queue.take(2)
    assert payloads(batch.slots) == [b"one", b"two"]
    assert [slot.id for slot in batch.slots] == [f"{queue.worker}.1.0", f"{queue.worker}.1.1"]
    assert {slot.first_seen_ms for slot in batch.slots} == {batch.now_ms}
    assert dump(raw) == {
        "queue:email": [b"three"],
        f"batch:{queue.worker}:1": [b"one", b"two"],
        f"open:{queue.worker}": {b"last": b"1", b"1": b"%d .." % batch.now_ms},
    }


def test_take_of_nothing_uses_up_no_seq(queue: Queue, raw: Raw) -> None:
    assert queue.take(5).slots == []
    assert dump(raw) == {}
    queue.push([b"a"])
    assert queue.take(5).seq == 1


def test_strange_payloads_get_a_place_in_jobs(queue: Queue, raw: Raw) -> None:
    queue.push([b"", b"\x01forged", b"plain"])
    batch = queue.take(5)
    assert payloads(batch.slots) == [b"", b"\x01forged", b"plain"]
    assert [slot.touched for slot in batch.slots] == [True, True, False]
    first, second = (slot.id.encode() for slot in batch.slots[:2])
    assert dump(raw)["jobs"] == {
        first: b"0 %d {}\n" % batch.now_ms,
        second: b"0 %d {}\n\x01forged" % batch.now_ms,
    }
    queue.settle([Done(slot) for slot in batch.slots])
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}


def test_same_seq_brings_the_same_batch(queue: Queue, raw: Raw) -> None:
    queue.push([b"a", b"", b"c", b"d"])
    first = queue.take(3)
    before = dump(raw)
    queue._lease.next_seq = first.seq
    again = queue.take(3)
    assert [(s.id, s.index, s.payload, s.first_seen_ms) for s in again.slots] == [
        (s.id, s.index, s.payload, s.first_seen_ms) for s in first.slots
    ]
    assert dump(raw) == before


def test_seq_of_a_closed_batch_is_used(queue: Queue) -> None:
    queue.push([b"a", b"b"])
    queue.settle([Done(slot) for slot in queue.take(1).slots])
    queue._lease.next_seq = 1
    batch = queue.take(1)
    assert (batch.seq, payloads(batch.slots)) == (2, [b"b"])


def test_batch_that_comes_again_has_no_settled_slots(queue: Queue) -> None:
    queue.push([b"a", b"", b"c"])
    slots = queue.take(3).slots
    queue.settle([Done(slots[0])])
    queue._lease.next_seq = 1
    assert payloads(queue.take(3).slots) == [b"", b"c"]


def test_slot_whose_job_is_gone_is_closed_when_its_batch_comes_again(
    queue: Queue, raw: Raw
) -> None:
    queue.push([b""])
    queue.take(1)
    raw.delete("{queue:email}:jobs")
    queue._lease.next_seq = 1
    assert queue.take(1).slots == []
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}


def test_unknown_and_fenced_workers_get_nothing(
    queue: Queue, new_queue: NewQueue, raw: Raw
) -> None:
    queue.push([b"a"])
    new_queue().reap([queue.worker])
    before = dump(raw)
    batch = queue.take(1)
    assert (batch.slots, batch.fenced, queue.lease_is_mine()) == ([], True, False)
    assert dump(raw) == before
    queue.register()
    assert payloads(queue.take(1).slots) == [b"a"]


def test_max_bytes_ends_a_batch_and_a_larger_payload_travels_alone(queue: Queue) -> None:
    small, large = b"s" * 40, b"l" * 500
    queue.push([small, small, small, large, small])
    taken = [payloads(queue.take(10, max_bytes=100).slots) for _ in range(4)]
    assert taken == [[small, small], [small], [large], [small]]


def test_arrive_comes_before_the_list(queue: Queue, raw: Raw) -> None:
    queue.push([b"a", b"b", b"c"])
    queue.wait(0.1)
    assert dump(raw) == {"queue:email": [b"c", b"b"], "arrive": [b"a"]}
    assert payloads(queue.take(3).slots) == [b"a", b"b", b"c"]


def test_front_comes_first_and_pushed_by_turns(queue: Queue, raw: Raw) -> None:
    queue.push([b"released"])
    slot = queue.take(1).slots[0]
    queue.push([b"f1", b"f2", b"f3", b"f4"])
    for number in range(4):
        raw.hset("{queue:email}:jobs", f"x{number}", b"0 7 {}\np%d" % number)
        raw.lpush("{queue:email}:pushed", b"\x01x%d" % number)
    queue.settle([Release(slot, FRESH)])
    assert payloads(queue.take(5).slots) == [b"released", b"p0", b"p1", b"f1", b"f2"]
    assert payloads(queue.take(1).slots) == [b"p2"]
    assert payloads(queue.take(1).slots) == [b"f3"]


def test_due_jobs_get_a_share_and_then_the_room_that_is_left(queue: Queue) -> None:
    queue.push([b"r%d" % number for number in range(8)])
    queue.settle([Retry(slot, 0, JobState(tries=1)) for slot in queue.take(8).slots])
    queue.push([b"f%d" % number for number in range(4)])
    batch = queue.take(8)
    assert sum(slot.state.tries for slot in batch.slots) == 4
    assert [slot.payload[:1] for slot in batch.slots] == [b"r"] * 2 + [b"f"] * 4 + [b"r"] * 2


def test_what_is_due_later_stays_and_is_announced(queue: Queue) -> None:
    queue.push([b"later"])
    batch = queue.take(1)
    queue.settle([Retry(batch.slots[0], 60_000, JobState(tries=1))])
    empty = queue.take(1)
    assert empty.slots == []
    assert empty.next_due_ms is not None
    assert 59_000 < empty.next_due_ms - batch.now_ms < 70_000


def test_state_travels_with_the_job(queue: Queue) -> None:
    queue.push([b"a"])
    slot = queue.take(1).slots[0]
    state = JobState(tries=2, rcpt=["ä@x", "b@y"], last="451 4.3.0 later\nplease", unknown=1)
    queue.settle([Retry(slot, 0, state)])
    again = queue.take(1).slots[0]
    assert (again.state, again.id, again.first_seen_ms) == (state, slot.id, slot.first_seen_ms)
    assert again.touched


def test_references_without_a_job_are_dropped(queue: Queue, raw: Raw) -> None:
    for key in ("front", "pushed"):
        raw.rpush(f"{{queue:email}}:{key}", *(b"\x01gone%d" % number for number in range(50)))
    raw.zadd("{queue:email}:delayed", {"gone": 1})
    assert queue.take(3).slots == []
    assert dump(raw) == {}


def test_part_without_its_root_is_dropped(queue: Queue, raw: Raw) -> None:
    queue.push([b"a"])
    slot = queue.take(1).slots[0]
    queue.settle([Split(slot, [Part(FRESH, ("retry", 0)), Part(FRESH, ("retry", 0))])])
    raw.hdel("{queue:email}:jobs", slot.id, f"{slot.id}/")
    assert queue.take(5).slots == []
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}


def test_many_waiting_jobs_are_taken_in_order(queue: Queue) -> None:
    queue.push([b"%d" % number for number in range(3000)])
    taken: list[bytes] = []
    while batch := queue.take(700).slots:
        taken += payloads(batch)
    assert taken == [b"%d" % number for number in range(3000)]


def test_wrong_types_are_named_before_anything_is_written(queue: Queue, raw: Raw) -> None:
    raw.set("{queue:email}:front", "no list")
    queue.push([b"a"])
    before = dump(raw)
    with pytest.raises(RedisUnusable, match="choose another queue name") as caught:
        queue.take(1)
    assert "WRONGTYPE" in str(caught.value)
    assert "[{queue:email}:front]" in str(caught.value)
    assert dump(raw) == before


def test_dead_jobs_are_never_taken(queue: Queue) -> None:
    queue.push([b"a"])
    queue.settle([Dead(queue.take(1).slots[0], JobState(reason="no"))])
    assert queue.take(1).slots == []
