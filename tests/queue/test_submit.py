"""Jobs that come through a door: ids at once, never twice, and what became of them."""

import threading
from typing import Any

import msgspec
import pytest
from redis_servers import NewQueue, RedisServer, dump

from geomail.queue import (
    FRESH,
    Dead,
    Done,
    Duplicate,
    JobState,
    Link,
    Part,
    Queue,
    Retry,
    Slot,
    Split,
)

pytest_plugins = ("queue_fixtures",)
Raw = Any


def outcome(queue: Queue, job_id: str) -> dict[str, Any]:
    found = queue.outcome(job_id)
    assert found is not None
    found.pop("at_ms", None)
    return found


def submit_one(queue: Queue) -> Slot:
    queue.submit([b"a"])
    return queue.take(1).slots[0]


def later(slot: Slot, **changes: Any) -> JobState:
    return msgspec.structs.replace(slot.state, **changes)


def test_ids_are_known_at_once(queue: Queue, raw: Raw) -> None:
    ids = queue.submit([b"a", b"", b"\x01c"]) + queue.submit([b"d"])
    assert len(set(ids)) == 4
    slots = queue.take(9).slots
    assert [slot.id for slot in slots] == ids
    assert [slot.payload for slot in slots] == [b"a", b"", b"\x01c", b"d"]
    assert all(slot.touched and slot.state == JobState(told=True) for slot in slots)
    assert queue.submit([]) == []
    queue.settle([Done(slot) for slot in slots])
    assert not raw.exists("{queue:email}:jobs")


def test_request_that_comes_again_pushes_nothing(queue: Queue, raw: Raw) -> None:
    connection: Any = queue._door._connection
    run, replies = connection.run, []

    def run_twice(*arguments: Any) -> Any:
        replies.append([run(*arguments), run(*arguments)])
        return replies[-1][1]

    connection.run = run_twice
    ids = queue.submit([b"a", b"b"])
    assert replies == [[1, 0]]
    assert [slot.id for slot in queue.take(9).slots] == ids


def test_it_is_not_pushed_again_when_it_is_delivered_already(queue: Queue) -> None:
    slot = submit_one(queue)
    queue.settle([Done(slot)])
    queue._door._seq -= 1
    queue.submit([b"a"])
    assert queue.take(1).slots == []


def test_large_requests_go_in_pieces(queue: Queue) -> None:
    payloads = [b"x" * 300_000] * 5 + [b"%d" % number for number in range(1200)]
    ids = queue.submit(payloads, told=False)
    assert len(set(ids)) == len(payloads)
    assert queue.counts().pushed == len(payloads)


def test_many_may_use_one_door(queue: Queue) -> None:
    def submit() -> None:
        for _ in range(50):
            queue.submit([b"x"])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert queue.counts().pushed == 200


def test_full_redis_refuses_a_push_and_still_settles(
    own_server: RedisServer, raw: Raw, new_queue: NewQueue
) -> None:
    queue = Queue(Link(own_server.url))
    queue.register()
    slot = submit_one(queue)
    own_server.raw.config_set("maxmemory", 1)
    pushing = threading.Thread(target=queue.submit, args=([b"later"],), daemon=True)
    pushing.start()
    queue.settle([Done(slot)])
    assert queue.beat()
    assert queue.claim([("key", slot.id)], 24) == [True]
    assert outcome(queue, slot.id)["outcome"] == "delivered"
    assert queue.counts().pushed == 0
    own_server.raw.config_set("maxmemory", 0)
    pushing.join(20)
    assert not pushing.is_alive()
    assert queue.counts().pushed == 1


def test_outcomes_of_one_job(queue: Queue) -> None:
    assert queue.outcome("nobody.1.0") is None
    [name] = queue.submit([b"a"])
    assert outcome(queue, name) == {"outcome": "waiting"}
    [slot] = queue.take(1).slots
    assert outcome(queue, name) == {"outcome": "waiting"}
    queue.settle([Retry(slot, 0, later(slot, tries=1, last="450 later"))])
    assert outcome(queue, name)["outcome"] == "delayed"
    [slot] = queue.take(1).slots
    queue.settle([Dead(slot, later(slot, tries=2, reason="because"))])
    told = {"outcome": "dead", "tries": 2, "last": "450 later", "reason": "because"}
    assert outcome(queue, name) == told
    assert queue.dead_retry([name]) == 1
    assert outcome(queue, name) == {"outcome": "waiting"}
    [slot] = queue.take(1).slots
    queue.settle([Done(slot), Done(slot)])
    assert outcome(queue, name) == {"outcome": "delivered"}


@pytest.mark.parametrize("name", ["", "/", "/a", "{door}", "{door}/1", " "])
def test_what_is_no_id_has_no_outcome(queue: Queue, name: str) -> None:
    [known] = queue.submit([b"a"])
    assert queue.outcome(name.format(door=known.partition(".")[0])) is None


def test_outcomes_of_a_split_job(queue: Queue) -> None:
    whole = submit_one(queue)
    states = [later(whole, rcpt=[name]) for name in "abc"]
    first, second = queue.settle(
        [Split(whole, [Part(states[0]), Part(states[1]), Part(states[2], "dead")])]
    )
    found = outcome(queue, whole.id)
    assert found["outcome"] == "waiting"
    assert [(part["outcome"], part["rcpt"]) for part in found["parts"]] == [("dead", ["c"])]
    queue.settle([Done(first)])
    found = outcome(queue, second.id)
    assert found["outcome"] == "waiting"
    assert len(found["parts"]) == 2
    queue.settle([Done(second)])
    found = outcome(queue, whole.id)
    assert (found["outcome"], found["rcpt"]) == ("dead", ["c"])
    ends = {(part["outcome"], part["rcpt"][0]) for part in found["parts"]}
    assert ends == {("delivered", "a"), ("delivered", "b"), ("dead", "c")}
    assert queue.dead_drop(every=True) == 1
    assert outcome(queue, whole.id)["outcome"] == "dropped"


def test_outcomes_that_no_settler_wrote_on_purpose(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    duplicate = submit_one(queue)
    queue.settle([Duplicate(duplicate)])
    assert outcome(queue, duplicate.id)["outcome"] == "duplicate"
    healed = submit_one(queue)
    queue._heal(queue.worker, [(healed.seq, healed.index, True)])
    assert outcome(queue, healed.id)["outcome"] == "delivered"
    poison = submit_one(queue)
    for _ in range(3):
        other.reap([queue.worker])
        queue.register()
        queue.take(1)
    assert outcome(queue, poison.id)["outcome"] == "dead"
    assert queue.dead_drop(every=True) == 1
    assert outcome(queue, poison.id)["outcome"] == "dropped"


def test_nothing_is_noted_of_what_nobody_was_told(queue: Queue, raw: Raw) -> None:
    [name] = queue.submit([b"a"], told=False)
    queue.settle([Done(queue.take(1).slots[0])])
    assert queue.outcome(name) is None
    fields = {key for key in dump(raw)["outcomes:1"] if key}
    assert fields == {queue._door._name.encode()}


@pytest.mark.parametrize("key", ["outcomes:0", "outcomes:1"])
def test_outcomes_in_the_way_keep_no_settling_out(queue: Queue, raw: Raw, key: str) -> None:
    slots = [submit_one(queue), submit_one(queue)]
    raw.delete(f"{{queue:email}}:{key}")
    raw.set(f"{{queue:email}}:{key}", "in the way")
    queue.settle([Done(slots[0]), Dead(slots[1], FRESH)])
    assert queue.counts().in_flight == 0
