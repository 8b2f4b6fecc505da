"""Large payloads: what moves them unread, and what happens when a moment of that goes wrong."""

from typing import Any

import pytest
from redis_servers import NewQueue, RedisServer, dump, until

from geomail.errors import RedisUnusable
from geomail.queue import FRESH, Dead, Done, Link, Park, Part, Queue, Release, Retry, Slot, Split

pytest_plugins = ("queue_fixtures",)
Raw = Any

LARGE = b"l" * 40_000


def payloads(slots: list[Slot]) -> list[bytes]:
    return [slot.payload for slot in slots]


def lift(queue: Queue, *what: bytes) -> list[Slot]:
    """Have the next take lift what is pushed now."""
    settle_all(queue, take_large(queue))
    queue.push(what)
    return queue.take(10).slots


def take_large(queue: Queue) -> list[Slot]:
    queue.push([LARGE])
    return queue.take(1).slots


def settle_all(queue: Queue, slots: list[Slot]) -> None:
    queue.settle([Done(slot) for slot in slots])


def characters(raw: Raw, slots: list[Slot]) -> bytes:
    entry: bytes = raw.hget("{queue:email}:open:" + slots[0].worker, str(slots[0].seq))
    return entry.split()[-1]


@pytest.fixture(autouse=True)
def _loaded(queue: Queue) -> None:
    settle_all(queue, lift(queue, LARGE))  # the first one only loads the script
    settle_all(queue, queue.take(10).slots)


def test_what_follows_large_payloads_is_lifted_in_order(queue: Queue, raw: Raw) -> None:
    slots = lift(queue, b"a", b"b", LARGE)
    assert payloads(slots) == [b"a", b"b", LARGE]
    assert characters(raw, slots) == b"bbb"
    assert [slot.id for slot in slots] == [f"{queue.worker}.{slots[0].seq}.{i}" for i in range(3)]
    now = dump(raw)
    assert now[f"batch:{queue.worker}:{slots[0].seq}"] == [b"a", b"b", LARGE]
    assert "queue:email" not in now


def test_small_payloads_are_taken_as_before(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    queue.push([LARGE, b"small"])
    assert characters(raw, queue.take(2).slots) == b"bb"
    queue.push([LARGE])
    assert characters(raw, queue.take(1).slots) == b"."


def test_one_after_the_other_they_are_taken_as_before(queue: Queue, raw: Raw) -> None:
    for _ in range(3):
        queue.push([LARGE])
        assert characters(raw, queue.take(10).slots) == b"."


def test_it_brings_no_more_than_asked_for_and_what_fits(queue: Queue) -> None:
    settle_all(queue, lift(queue, LARGE))
    queue.push([LARGE] * 40)
    sizes = [len(queue.take(n, max_bytes=size).slots) for n, size in ((3, 10**6), (9, 100_000))]
    assert sizes == [3, 2]
    assert len(queue.take(256, max_bytes=10**7).slots) == 16
    assert len(queue.take(256, max_bytes=1).slots) == 1


def test_one_take_at_most_is_wrong_about_their_size(queue: Queue) -> None:
    settle_all(queue, take_large(queue))
    queue.push([b"l" * 1_000_000] * 40)
    counts = [len(queue.take(256, max_bytes=2_000_000).slots) for _ in range(3)]
    assert counts == [16, 2, 2]


@pytest.mark.parametrize("strange", [b"", b"\x01", b"\x01nobody.1.0"])
def test_strange_payload_is_a_producers_whatever_it_begins_with(
    queue: Queue, new_queue: NewQueue, raw: Raw, strange: bytes
) -> None:
    settle_all(queue, take_large(queue))
    victim, other, kept = lift(queue, strange, strange, strange)
    assert characters(raw, [victim]) == b"bbb"
    queue.settle([Retry(victim, 0, FRESH), Release(other, FRESH)])
    again = {slot.id: slot for slot in queue.take(5).slots}
    assert {id_: slot.payload for id_, slot in again.items()} == {
        victim.id: strange,
        other.id: strange,
    }
    settle_all(queue, list(again.values()))
    assert new_queue().reap([queue.worker]) == 1
    queue.register()
    [back] = queue.take(5).slots
    assert (back.id, back.payload, back.deaths) == (kept.id, strange, 1)
    settle_all(queue, [back])
    assert queue.counts().in_flight == 0
    assert "jobs" not in dump(raw)


def test_forged_reference_names_nobody(queue: Queue, new_queue: NewQueue, raw: Raw) -> None:
    [job] = queue.submit([b"somebody's"])
    settle_all(queue, [s for s in queue.take(1).slots if s.id != job])
    queue.settle([])
    raw.delete("{queue:email}:pushed")
    slots = lift(queue, b"\x01" + job.encode(), LARGE)
    queue.settle([Dead(slots[0], FRESH)])
    [letter] = queue.dead_list(5)
    assert letter.id == slots[0].id
    assert raw.hexists("{queue:email}:jobs", job)


def test_split_of_a_lifted_slot_may_come_twice(queue: Queue) -> None:
    [slot] = lift(queue, LARGE)
    record = Split(slot, [Part(FRESH), Part(FRESH)])
    first = queue.settle([record])
    again = queue.settle([record])
    assert [(part.id, part.index) for part in again] == [(part.id, part.index) for part in first]
    settle_all(queue, first)
    assert queue.counts().in_flight == 0


def test_lost_settles_of_lifted_slots_are_healed(queue: Queue, raw: Raw) -> None:
    slots = lift(queue, LARGE, b"\x01forged")
    before = raw.dump("{queue:email}:open:" + queue.worker)
    bytes_of = raw.dump("{queue:email}:batch:" + f"{queue.worker}:{slots[0].seq}")
    settle_all(queue, slots)
    raw.restore("{queue:email}:open:" + queue.worker, 0, before, replace=True)
    raw.restore("{queue:email}:batch:" + f"{queue.worker}:{slots[0].seq}", 0, bytes_of)
    assert queue.counts().in_flight == 2
    assert queue.beat()
    assert queue.counts().in_flight == 0
    assert queue.counts().front == 0


def test_routes_that_are_due_are_told_by_turns(queue: Queue, raw: Raw) -> None:
    names = {f"route {number}" for number in range(40)}
    raw.zadd("{queue:email}:routes", dict.fromkeys(names, 1))
    told = set[str]()

    def look() -> bool:
        settle_all(queue, take_large(queue))
        queue.push([LARGE])
        batch = queue.take(10)
        assert characters(raw, batch.slots) == b"b"
        assert 0 < len(batch.routes_due) <= 16
        told.update(batch.routes_due)
        settle_all(queue, batch.slots)
        return told == names

    until(look)


# ---- what goes wrong


def cut_after(queue: Queue) -> None:
    """Have Redis do what the next lift asks for, and lose its reply."""
    taker: Any = queue._taker
    run = taker.try_atomically

    def lose(packed: bytes, count: int) -> None:
        run(packed, count)
        taker.try_atomically = run

    taker.try_atomically = lose


def cut_before(queue: Queue) -> list[tuple[bytes, int]]:
    """Have the bytes of the next lift come to nobody, and return them."""
    taker: Any = queue._taker
    run, late = taker.try_atomically, []

    def lose(packed: bytes, count: int) -> None:
        late.append((packed, count))
        taker.try_atomically = run

    taker.try_atomically = lose
    return late


def test_reply_that_is_lost_brings_the_same_batch(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    cut_after(queue)
    queue.push([b"\x01a", b"", LARGE])
    slots = queue.take(10).slots
    assert payloads(slots) == [b"\x01a", b"", LARGE]
    assert characters(raw, slots) == b"bbb"
    assert not any(slot.touched for slot in slots)
    settle_all(queue, slots)
    assert queue.counts().in_flight == 0


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_comes_late_takes_nothing(queue: Queue, raw: Raw, is_settled: bool) -> None:
    settle_all(queue, take_large(queue))
    late = cut_before(queue)
    queue.push([LARGE, b"two"])
    slots = queue.take(10).slots
    assert payloads(slots) == [LARGE, b"two"]
    if is_settled:
        settle_all(queue, slots)
    queue.push([LARGE, LARGE])
    before = dump(raw)
    assert queue._taker.try_atomically(*late[0])
    assert dump(raw) == before


def test_what_comes_late_finds_its_name_used_up(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    late = cut_before(queue)
    assert queue.take(10).slots == []
    queue.push([LARGE])
    before = dump(raw)
    assert queue._taker.try_atomically(*late[0])
    assert dump(raw) == before


def test_lost_lift_is_asked_for_until_it_is_known(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    late = cut_before(queue)
    raw.set("{queue:email}:front", "no list")
    queue.push([LARGE])
    with pytest.raises(RedisUnusable):
        queue.take(10)
    raw.delete("{queue:email}:front")
    slots = queue.take(10).slots
    assert payloads(slots) == [LARGE]
    before = dump(raw)
    assert queue._taker.try_atomically(*late[0])
    assert dump(raw) == before


def test_batch_that_could_not_be_read_is_not_lifted_over(queue: Queue, raw: Raw) -> None:
    queue.push([b"one", b"two"])
    parked = queue.take(2).slots
    queue.settle([Park([slot], "route", 0, FRESH) for slot in parked])
    settle_all(queue, take_large(queue))
    key, job = "{queue:email}:jobs", parked[0].id
    kept = raw.hget(key, job)
    raw.hset(key, job, b"not a job")
    with pytest.raises(ValueError, match="malformed"):
        queue.take(10, route="route")
    raw.hset(key, job, kept)
    queue.push([LARGE])
    slots = queue.take(10).slots
    assert payloads(slots) == [b"one", b"two"]
    settle_all(queue, slots)
    assert payloads(queue.take(10).slots) == [LARGE]


@pytest.mark.parametrize("place", ["front", "pushed", "arrive", "delayed"])
def test_nothing_is_lifted_past_what_comes_first(queue: Queue, place: str) -> None:
    slots = take_large(queue)
    queue.settle([Release(slot, FRESH) if place == "front" else Done(slot) for slot in slots])
    if place == "pushed":
        queue.submit([b"first"])
    if place == "arrive":
        queue.push([b"first"])
        queue.wait(1)
    if place == "delayed":
        queue.push([b"first"])
        queue.settle([Retry(slot, 0, FRESH) for slot in queue.take(1).slots])
        queue._lift._largest = len(LARGE)
    queue.push([b"second"])
    first = LARGE if place == "front" else b"first"
    assert payloads(queue.take(10).slots) == [first, b"second"]


def test_missing_script_moves_nothing(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    raw.script_flush()
    queue.push([LARGE, LARGE])
    slots = queue.take(2).slots
    assert characters(raw, slots) == b".."
    assert "queue:email" not in dump(raw)
    settle_all(queue, slots)
    queue.push([LARGE])
    assert characters(raw, queue.take(10).slots) == b"b"


@pytest.mark.parametrize("key", ["front", "delayed", "suspects", "arrive", "pushed"])
def test_key_of_a_wrong_type_moves_nothing(queue: Queue, raw: Raw, key: str) -> None:
    settle_all(queue, take_large(queue))
    raw.set(f"{{queue:email}}:{key}", "no list")
    queue.push([LARGE])
    before = dump(raw)
    with pytest.raises(RedisUnusable, match=rf"\[{{queue:email}}:{key}\]"):
        queue.take(10)
    assert dump(raw) == before


def test_fenced_worker_lifts_nothing(queue: Queue, new_queue: NewQueue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    new_queue().reap([queue.worker])
    queue.push([LARGE])
    before = dump(raw)
    assert queue.take(10).fenced
    assert dump(raw) == before


def test_full_redis_is_asked_in_the_usual_way(queue: Queue, raw: Raw) -> None:
    settle_all(queue, take_large(queue))
    queue.push([LARGE])
    raw.config_set("maxmemory", 1)
    try:
        slots = queue.take(10).slots
        assert characters(raw, slots) == b"."
        settle_all(queue, slots)
    finally:
        raw.config_set("maxmemory", 0)


@pytest.mark.parametrize("command", ["multi", "lmove", "eval", "set"])
def test_who_may_not_do_it_takes_in_the_usual_way(
    server: RedisServer, raw: Raw, command: str
) -> None:
    commands = ["+@all", f"-{command}"]
    raw.acl_setuser("mail", enabled=True, nopass=True, commands=commands, keys=["*"])
    queue = Queue(Link(server.url.replace("unix://", "unix://mail:any@")), lease_s=100_000)
    queue.register()
    for _ in range(3):
        slots = take_large(queue)
        assert payloads(slots) == [LARGE]
        # Without MULTI one comes after the other, and take finds what they did.
        assert characters(raw, slots) == b"." or command == "multi"
        settle_all(queue, slots)
    assert not [key for key in raw.keys("*") if b":batch:" in key]
    queue.close()
    raw.acl_deluser("mail")


def test_redis_that_is_killed_keeps_all_or_nothing(own_server: RedisServer) -> None:
    queue = Queue(Link(own_server.url), lease_s=100_000)
    queue.register()
    for _ in range(3):
        settle_all(queue, take_large(queue))
    queue.push([LARGE] * 5)
    slots = queue.take(3).slots
    assert characters(own_server.raw, slots) == b"bbb"
    own_server.raw.config_set("appendfsync", "always")
    own_server.raw.incr("written")
    own_server.kill()
    own_server.start()
    until(lambda: own_server.raw.get("written"))
    counts = queue.counts()
    assert (counts.list, counts.in_flight) == (2, 3)
    settle_all(queue, [*slots, *queue.take(5).slots])
    assert queue.counts().in_flight == 0
    queue.close()
