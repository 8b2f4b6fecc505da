"""What each record leaves behind in Redis: once, twice, and after the worker was fenced."""

from typing import Any

import pytest
from redis_servers import NewQueue, RedisServer, dump

from geomail.errors import RedisAway
from geomail.queue import (
    FRESH,
    Dead,
    Done,
    JobState,
    Link,
    Park,
    Part,
    Queue,
    Record,
    Release,
    Retry,
    Split,
)
from geomail.queue.records import Slot

pytest_plugins = ("queue_fixtures",)
Raw = Any
STATE = JobState(tries=1)
JSON = b'{"tries":1}'


def take(queue: Queue, *payloads: bytes) -> list[Slot]:
    queue.push(payloads)
    return queue.take(len(payloads)).slots


def test_done_touches_only_the_character(queue: Queue, raw: Raw) -> None:
    slots = take(queue, b"a", b"b", b"c")
    before = dump(raw)
    queue.settle([Done(slots[1])])
    now = slots[0].first_seen_ms
    before[f"open:{queue.worker}"][b"1"] = b"%d .x." % now
    assert dump(raw) == before
    queue.settle([Done(slots[0]), Done(slots[2])])
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}
    assert queue.counts().stats == {"taken": 3, "delivered": 3}


def moved(kind: str, slot: Slot) -> Record:
    match kind:
        case "delayed":
            return Retry(slot, 5000, STATE)
        case "dead":
            return Dead(slot, STATE)
        case "park:mx.example":
            return Park([slot], "mx.example", 5000, STATE)
    return Release(slot, STATE)


@pytest.mark.parametrize("place", ["delayed", "dead", "park:mx.example", "front"])
@pytest.mark.parametrize("payload", [b"plain", b"", b"\x01odd"])
def test_move_of_a_job(queue: Queue, raw: Raw, payload: bytes, place: str) -> None:
    slot = take(queue, payload)[0]
    name = slot.id.encode()
    for _ in ("once", "and once more"):
        assert queue.settle([moved(place, slot)]) == []
        now = dump(raw)
        assert list(now.pop("routes", ())) == ([b"mx.example"] if place.startswith("park") else [])
        assert now.pop("jobs") == {name: b"0 %d %b\n%b" % (slot.first_seen_ms, JSON, payload)}
        assert list(now.pop(place)) in ([name], [b"\x01" + name])
        assert now == {f"open:{queue.worker}": {b"last": b"1"}}


def test_due_is_counted_from_redis_time(queue: Queue, raw: Raw) -> None:
    slot = take(queue, b"a")[0]
    queue.settle([Retry(slot, 5000, STATE)])
    [due] = raw.zrange("{queue:email}:delayed", 0, -1, withscores=True)
    assert 5000 <= due[1] - slot.first_seen_ms < 15000


def test_releases_keep_the_old_order(queue: Queue) -> None:
    slots = take(queue, b"a", b"b", b"c") + take(queue, b"d", b"e")
    queue.settle([Release(slot, FRESH) for slot in slots])
    assert [slot.payload for slot in queue.take(9).slots] == [b"a", b"b", b"c", b"d", b"e"]


def test_split_shares_the_bytes(queue: Queue, raw: Raw) -> None:
    slot = take(queue, b"body")[0]
    states = [JobState(rcpt=[name]) for name in ("a", "b", "c", "d")]
    split = Split(
        slot,
        [
            Part(states[0]),
            Part(states[1], ("retry", 0)),
            Part(states[2], "dead"),
            Part(states[3]),
        ],
    )
    parts = queue.settle([split])
    assert [(part.id, part.index, part.payload) for part in parts] == [
        (f"{slot.id}/1", 1, b"body"),
        (f"{slot.id}/4", 2, b"body"),
    ]
    again = queue.settle([split])
    assert [(part.id, part.index) for part in again] == [(part.id, part.index) for part in parts]
    jobs = raw.hgetall("{queue:email}:jobs")
    root = slot.id.encode()
    assert jobs[root].endswith(b"\nbody")
    assert jobs[root + b"/"] == b"4"
    assert jobs[root + b"/1"] == b'0 %d {"rcpt":["a"]}\n' % slot.first_seen_ms
    later = queue.take(1).slots[0]
    assert (later.id, later.payload, later.state) == (f"{slot.id}/2", b"body", states[1])
    queue.settle([Done(parts[0]), Done(parts[1]), Done(later)])
    assert raw.hget("{queue:email}:jobs", root + b"/") == b"1"
    shown = queue.dead_show(f"{slot.id}/3")
    assert shown is not None
    assert shown.payload == b"body"
    assert queue.dead_drop([f"{slot.id}/3"]) == 1
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"2"}}


def test_split_of_a_part(queue: Queue, raw: Raw) -> None:
    slot = take(queue, b"body")[0]
    part, other = queue.settle([Split(slot, [Part(STATE), Part(STATE)])])
    inner = queue.settle([Split(part, [Part(STATE), Part(STATE)])])
    assert [one.id for one in inner] == [f"{slot.id}/1/1", f"{slot.id}/1/2"]
    assert raw.hget("{queue:email}:jobs", f"{slot.id}/") == b"3"
    assert not raw.hexists("{queue:email}:jobs", f"{slot.id}/1")
    queue.settle([Done(one) for one in [other, *inner]])
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}


def test_split_without_the_bytes_is_refused(queue: Queue, raw: Raw) -> None:
    slot = take(queue, b"a")[0]
    slot.let_go()
    before = dump(raw)
    with pytest.raises(ValueError, match="let go of"):
        queue.settle([Split(slot, [Part(FRESH), Part(FRESH)])])
    assert dump(raw) == before
    queue.settle([Release(slot, FRESH)])
    assert [again.payload for again in queue.take(1).slots] == [b"a"]


def test_split_into_nothing_is_refused(queue: Queue) -> None:
    slot = take(queue, b"body")[0]
    with pytest.raises(ValueError, match="at least one part"):
        queue.settle([Split(slot, [])])


def test_done_of_a_fenced_worker_counts_wherever_the_job_is(
    queue: Queue, new_queue: NewQueue, raw: Raw
) -> None:
    other = new_queue()
    slots = take(queue, b"front", b"taken", b"later", b"dead")
    assert other.reap([queue.worker]) == 4
    batch = other.take(4).slots
    by_payload = {slot.payload: slot for slot in batch}
    other.settle(
        [
            Release(by_payload[b"front"], FRESH),
            Retry(by_payload[b"later"], 9000, STATE),
            Dead(by_payload[b"dead"], STATE),
        ]
    )
    queue.settle([Done(slot) for slot in slots])
    assert not raw.exists("{queue:email}:jobs")
    assert other.take(5).slots == []
    other.settle([Retry(by_payload[b"taken"], 0, STATE)])
    assert other.take(5).slots == []
    assert dump(raw) == {f"open:{other.worker}": {b"last": b"1"}}
    assert other.counts().stats["delivered"] == 4


def test_other_records_of_a_fenced_worker_are_passed_over(
    queue: Queue, new_queue: NewQueue, raw: Raw
) -> None:
    other = new_queue()
    slots = take(queue, b"a", b"b", b"c", b"d", b"e")
    queue_open = other._reap_call(queue.worker, True, [])
    assert queue_open[0] == 1
    records: list[Record] = [
        Retry(slots[0], 0, STATE),
        Dead(slots[1], STATE),
        Park([slots[2]], "r", 0, STATE),
        Release(slots[3], STATE),
        Split(slots[4], [Part(STATE)]),
    ]
    before = dump(raw)
    assert queue.settle(records) == []
    assert dump(raw) == before
    assert other.reap([queue.worker]) == 5
    before = dump(raw)
    assert queue.settle(records) == []
    assert dump(raw) == before


def test_done_before_the_reaper_comes_is_not_brought_back(
    queue: Queue, new_queue: NewQueue
) -> None:
    other = new_queue()
    slots = take(queue, b"a", b"b")
    other._reap_call(queue.worker, True, [])
    queue.settle([Done(slots[0])])
    assert other.reap([queue.worker]) == 1
    assert [slot.payload for slot in other.take(5).slots] == [b"b"]


def test_slots_of_an_old_name_are_settled_under_it(queue: Queue, new_queue: NewQueue) -> None:
    slot = take(queue, b"a")[0]
    new_queue().reap([queue.worker])
    queue.register()
    assert not queue.owns(slot)
    assert queue.lease_is_mine()
    queue.settle([Done(slot)])
    assert queue.take(1).slots == []


def test_done_of_the_whole_ends_its_parts(queue: Queue, new_queue: NewQueue, raw: Raw) -> None:
    other = new_queue()
    slot = take(queue, b"body")[0]
    other.reap([queue.worker])
    whole = other.take(1).slots[0]
    parts = other.settle([Split(whole, [Part(STATE), Part(STATE, ("retry", 0))])])
    queue.settle([Done(slot)])
    assert other.take(1).slots == []
    other.settle([Retry(parts[0], 0, STATE)])
    assert dump(raw) == {f"open:{other.worker}": {b"last": b"1"}}


def test_parked_jobs_wait_for_their_route(queue: Queue, raw: Raw) -> None:
    slots = take(queue, b"a", b"b", b"c")
    queue.settle([Park([slot], "relay", 0, STATE) for slot in slots])
    batch = queue.take(5)
    assert (batch.slots, batch.routes_due) == ([], ("relay",))
    assert queue.counts().parked == {"relay": 3}
    first = queue.take(2, route="relay", next_try_ms=60_000)
    assert [slot.payload for slot in first.slots] == [b"a", b"b"]
    assert first.routes_due == ()
    assert [slot.payload for slot in queue.take(5, route="relay").slots] == [b"c"]
    assert not raw.exists("{queue:email}:routes")
    assert queue.take(5, route="relay").slots == []
    assert not raw.exists("{queue:email}:routes")


def test_earlier_timer_of_a_route_stands(queue: Queue, raw: Raw) -> None:
    slots = take(queue, b"a", b"b")
    queue.settle([Park([slots[0]], "relay", 1000, STATE)])
    first = raw.zscore("{queue:email}:routes", "relay")
    queue.settle([Park([slots[1]], "relay", 90_000, STATE)])
    assert raw.zscore("{queue:email}:routes", "relay") == first


def test_what_is_parked_alike_goes_in_few_commands(queue: Queue, raw: Raw) -> None:
    payloads = [b"plain %d" % number for number in range(200)]
    payloads[7], payloads[9] = b"", b"\x01odd"
    slots = take(queue, *payloads)
    parked = [slot for slot in slots if slot.index % 2 or slot.index < 20]
    records: list[Record] = [Park([slot], f"r{slot.index % 4}", 5000, STATE) for slot in parked]
    for expected in (4, 0):
        raw.config_resetstat()
        queue.settle(records)
        stats = raw.info("commandstats")
        calls = {
            name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("lpush", "zadd")
        }
        assert calls == {"lpush": expected, "zadd": 1 if expected else 0}
        assert stats.get("cmdstat_lindex", {}).get("calls", 0) <= 5
        assert queue.counts().parked == {"r0": 5, "r1": 50, "r2": 5, "r3": 50}
    assert queue.counts().stats["parked"] == len(parked) == 110
    found = [slot for n in range(4) for slot in queue.take(200, route=f"r{n}").slots]
    assert [(slot.id, slot.payload, slot.state) for slot in sorted(found, key=_number)] == [
        (slot.id, slot.payload, STATE) for slot in parked
    ]


def test_where_a_route_can_hold_nothing_nothing_is_written(
    queue: Queue, server: RedisServer, raw: Raw
) -> None:
    slots = take(queue, *(b"%d" % number for number in range(20)))
    raw.set("{queue:email}:park:r2", "somebody else's")
    raw.lpush("{queue:email}:park:r1", b"\x01parked.before")
    parked = [Park([slot], f"r{slot.index % 4}", 5000, STATE) for slot in slots[:16]]
    before = dump(raw)
    hasty = Queue(Link(server.url, patience_s=0.0))
    hasty._lease = queue._lease
    with pytest.raises(RedisAway, match=r"WRONGTYPE.*park:r2"):
        hasty.settle([*parked, *map(Done, slots[16:])])
    hasty.close()
    assert dump(raw) == before
    raw.delete("{queue:email}:park:r2")
    queue.settle([*parked, *map(Done, slots[16:])])
    assert queue.counts().parked == {"r0": 4, "r1": 5, "r2": 4, "r3": 4}
    assert queue.counts().stats["delivered"] == 4


def test_more_than_one_call_holds_is_parked_in_several(queue: Queue, raw: Raw) -> None:
    queue.push([b"%d" % number for number in range(900)])
    slots = [slot for _ in range(3) for slot in queue.take(300).slots]
    raw.config_resetstat()
    queue.settle([Park(slots, "relay", 5000, STATE)])
    assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] == 4
    assert queue.take(1).slots == []
    found = [slot for _ in range(9) for slot in queue.take(100, route="relay").slots]
    assert [slot.payload for slot in found] == [slot.payload for slot in slots]


def _number(slot: Slot) -> int:
    return int(slot.id.rpartition(".")[2])


def test_many_records_of_all_kinds_in_one_call(queue: Queue) -> None:
    queue.push([b"%d" % number for number in range(900)])
    slots = queue.take(900).slots
    records: list[Record] = []
    for number, slot in enumerate(slots):
        kinds: list[Record] = [Done(slot), Retry(slot, 0, STATE), Dead(slot, STATE)]
        records.append(kinds[number % 3])
    queue.settle(records)
    counts = queue.counts()
    assert (counts.delayed, counts.dead, counts.in_flight) == (300, 300, 0)
    assert counts.stats["delivered"] == 300


def test_wrong_type_of_a_key_is_no_reason_to_give_up_an_outcome(queue: Queue, raw: Raw) -> None:
    slot = take(queue, b"a")[0]
    raw.set("{queue:email}:stats", "in the way")
    queue.settle([Done(slot)])
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}
