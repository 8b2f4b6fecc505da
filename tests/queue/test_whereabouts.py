"""Where a job is, by its id and by its producer's label, in every place that there is."""

import json
from typing import Any

import msgspec
import pytest
from redis_servers import NewQueue, RedisServer, dump

from geomail.queue import Dead, Done, JobState, Link, Park, Part, Queue, Release, Retry, Split
from geomail.queue import whereabouts as rooms
from geomail.queue.link import Script
from geomail.queue.records import Slot
from geomail.queue.whereabouts import Search, Whereabouts, is_id

pytest_plugins = ("queue_fixtures",)
Raw = Any
STATE = JobState(tries=2, last="451 later", rcpt=["a@x.org"])


@pytest.fixture
def search(server: RedisServer) -> Search:
    return Search(Link(server.url), "queue:email")


@pytest.fixture(autouse=True)
def nothing_is_changed(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare all of Redis before and after each look."""

    def watched(look: Any) -> Any:
        def do(*words: Any) -> Any:
            before = dump(raw)
            found = look(*words)
            assert dump(raw) == before
            return found

        return do

    monkeypatch.setattr(Search, "find", watched(Search.find))
    monkeypatch.setattr(Search, "search", watched(Search.search))


def take(queue: Queue, *payloads: bytes) -> list[Slot]:
    queue.push(payloads)
    return queue.take(len(payloads)).slots


def found(search: Search, job_id: str) -> Whereabouts:
    known = search.find(job_id)
    assert known is not None
    return known


def test_in_a_hand_before_anything_was_kept_of_it(queue: Queue, search: Search) -> None:
    slot = take(queue, b"a", b"b", b"c")[1]
    known = found(search, slot.id)
    assert (known.place, known.worker, known.payload) == ("in hand", queue.worker, b"b")
    assert known.since_ms == slot.first_seen_ms
    assert (known.lease_until_ms or 0) > search.now_ms()
    queue.settle([Done(slot)])
    assert search.find(slot.id) is None


def test_in_a_hand_again(queue: Queue, new_queue: NewQueue, search: Search) -> None:
    slot = take(queue, b"a", b"b")[1]
    queue.settle([Release(slot, STATE)])
    other = new_queue()
    assert [again.id for again in other.take(1).slots] == [slot.id]
    known = found(search, slot.id)
    assert (known.place, known.worker, known.state) == ("in hand", other.worker, STATE)
    assert known.payload == b"b"


def test_in_the_hand_of_a_worker_that_is_gone(queue: Queue, raw: Raw, search: Search) -> None:
    slot = take(queue, b"a")[0]
    raw.zadd("{queue:email}:workers", {queue.worker: 5})
    assert found(search, slot.id).lease_until_ms == 5


def test_delayed_and_dead(queue: Queue, search: Search) -> None:
    later, never = take(queue, b"a", b"b")
    queue.settle([Retry(later, 60_000, STATE), Dead(never, JobState(reason="550 no"))])
    known = found(search, later.id)
    assert (known.place, known.state, known.payload) == ("delayed", STATE, b"a")
    assert 50_000 < (known.due_ms or 0) - search.now_ms() <= 60_000
    known = found(search, never.id)
    assert (known.place, known.state.reason) == ("dead", "550 no")
    assert 0 <= search.now_ms() - (known.died_ms or 0) < 60_000


def test_waiting_in_front(queue: Queue, search: Search) -> None:
    slots = take(queue, b"a", b"b", b"c")
    queue.settle([Release(slot, STATE) for slot in slots])
    in_front = [found(search, slot.id).in_front for slot in slots]
    assert found(search, slots[0].id).place == "waiting"
    assert in_front == [0, 1, 2]
    assert [slot.id for slot in queue.take(3).slots] == [slot.id for slot in slots]


def test_waiting_behind_a_door(queue: Queue, search: Search) -> None:
    ids = queue.submit([b"a", b"b"])
    assert [found(search, one).in_front for one in ids] == [0, 1]
    assert {found(search, one).place for one in ids} == {"waiting"}


def park(queue: Queue, count: int, route: str = "mx/größe") -> list[Slot]:
    slots = take(queue, *(b"%d" % number for number in range(count)))
    state = JobState(route=route)
    queue.settle([Park([slot], route, 60_000, state) for slot in slots])
    return slots


def test_parked(queue: Queue, search: Search) -> None:
    slots = park(queue, 3)
    known = [found(search, slot.id) for slot in slots]
    assert [(one.place, one.in_front) for one in known] == [("parked", n) for n in range(3)]


def test_parked_so_deep_that_it_is_not_looked_for(
    queue: Queue, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_FAR", 5)
    slots = park(queue, 8)
    assert found(search, slots[4].id).in_front == 4
    deep = found(search, slots[5].id)
    assert (deep.place, deep.in_front) == ("parked", None)
    assert deep.notes == ("not among the 5 that are taken next; farther was not looked",)


def test_a_suspect(queue: Queue, new_queue: NewQueue, search: Search) -> None:
    slot = take(queue, b"a")[0]
    second, third = new_queue(), new_queue()
    second.reap([queue.worker])
    second.take(1)
    third.reap([second.worker])
    known = found(search, slot.id)
    assert (known.place, known.in_front) == ("suspect", 0)


def split(queue: Queue, *parts: Part) -> tuple[Slot, list[Slot]]:
    slot = take(queue, b"whole")[0]
    return slot, queue.settle([Split(slot, list(parts))])


def test_a_split_job_and_its_parts(queue: Queue, search: Search) -> None:
    whole, parts = split(
        queue,
        Part(JobState(rcpt=["a"])),
        Part(JobState(rcpt=["b"])),
        Part(JobState(rcpt=["c"]), ("retry", 60_000)),
        Part(JobState(rcpt=["d"], reason="550"), "dead"),
    )
    queue.settle([Done(parts[0])])
    known = found(search, whole.id)
    assert (known.place, known.parts_left) == ("split", 3)
    assert known.parts == tuple(f"{whole.id}/{number}" for number in (2, 3, 4))
    known = found(search, f"{whole.id}/2")
    assert (known.place, known.payload, known.state.rcpt) == ("in hand", b"whole", ["b"])
    assert found(search, f"{whole.id}/3").place == "delayed"
    assert found(search, f"{whole.id}/4").place == "dead"


def test_parts_of_parts(queue: Queue, search: Search) -> None:
    whole, parts = split(queue, Part(JobState(rcpt=["a"])), Part(JobState(rcpt=["b", "c"])))
    queue.settle([Split(parts[1], [Part(JobState(rcpt=["b"])), Part(JobState(rcpt=["c"]))])])
    names = (f"{whole.id}/1", f"{whole.id}/2/1", f"{whole.id}/2/2")
    assert found(search, whole.id).parts == names
    assert found(search, names[2]).place == "in hand"


def test_the_end_of_a_job_that_somebody_asked_for(queue: Queue, search: Search) -> None:
    (name,) = queue.submit([b"a"])
    queue.settle([Done(slot) for slot in queue.take(1).slots])
    known = found(search, name)
    assert known.place == "ended"
    assert known.outcome is not None
    assert known.outcome["outcome"] == "delivered"


def test_what_nobody_has_seen(queue: Queue, search: Search) -> None:
    assert search.find(f"{queue.worker}.1.0") is None
    assert search.find("nonsense") is None
    assert is_id(f"{queue.worker}.1.0/2/3")
    assert not is_id("order-4711")


# ---- by label


def labelled(label: str, **more: object) -> bytes:
    return json.dumps({"to": "a@x.org", "id": label, **more}).encode()


def is_it(label: str) -> Any:
    def check(payload: bytes) -> bool:
        return bool(msgspec.json.decode(payload)["id"] == label)

    return check


def places(search: Search, label: str) -> list[str]:
    return [known.place for known in search.search(label, is_it(label))[0]]


@pytest.mark.parametrize("label", ["order-4711", "größe/1", 'with "quotes"', "a", "7"])
def test_a_label_is_found_wherever_the_job_is(queue: Queue, search: Search, label: str) -> None:
    others = [labelled(f"other {number}") for number in range(30)]
    queue.push([*others, labelled(label)])
    ((known,), notes) = search.search(label, is_it(label))
    assert (known.place, known.id, known.in_front, notes) == ("waiting", None, 30, [])
    slots = queue.take(31).slots
    ((known,), _) = search.search(label, is_it(label))
    assert (known.place, known.id) == ("in hand", slots[30].id)
    queue.settle([Retry(slot, 60_000, STATE) for slot in slots])
    ((known,), _) = search.search(label, is_it(label))
    assert (known.place, known.id) == ("delayed", slots[30].id)


def test_a_label_as_php_writes_it(queue: Queue, search: Search) -> None:
    queue.push([rb'{"to": "a@x.org", "id": "gr\u00f6\u00dfe\/1"}'])
    assert places(search, "größe/1") == ["waiting"]


def test_a_label_of_a_large_job(queue: Queue, search: Search) -> None:
    slots = take(queue, labelled("large", text="x" * 1_100_000))
    assert places(search, "large") == ["in hand"]
    assert found(search, slots[0].id).payload == b""
    queue.settle([Retry(slots[0], 60_000, STATE)])
    assert places(search, "large") == ["delayed"]


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        (b'a:1:{s:2:"id";s:4:"a"b7";}', 'a"b7'),
        (b'a:1:{s:2:"id";i:-77;}', "-77"),
        (b'{"id" :\n 77}', "77"),
        (b'{"id":""}', ""),
    ],
)
def test_labels_that_are_whole(queue: Queue, search: Search, payload: bytes, label: str) -> None:
    queue.push([payload])
    found = [search.search(text, lambda _: True)[0] for text in (label, label[:-1] or "7", "b7")]
    assert list(map(len, found)) == [1, 0, 0]


def test_label_that_is_empty_ends(queue: Queue, search: Search) -> None:
    queue.push([b'{"to": "a@x.org", "id": "a"}', b"", b'"id": '])
    assert search.search("", lambda _: True) == ([], [])


def test_one_label_of_several_jobs(queue: Queue, search: Search) -> None:
    slots = take(queue, labelled("x"), labelled("x"), labelled("y", subject="x"))
    queue.settle([Dead(slot, STATE) for slot in slots])
    assert places(search, "x") == ["dead", "dead"]


def test_a_label_of_a_settled_slot_is_not_in_hand(queue: Queue, search: Search) -> None:
    slots = take(queue, labelled("x"), labelled("y"))
    queue.settle([Done(slots[0])])
    assert search.search("x", is_it("x")) == ([], [])


def test_what_was_lifted_unread(queue: Queue, search: Search, raw: Raw) -> None:
    raw.script_load(Script("lift").source)
    queue._lift.large = 1
    queue.settle([Done(slot) for slot in take(queue, b"any")])
    elsewhere = queue.submit([b"somebody's"])[0]
    raw.rename("{queue:email}:pushed", "kept")
    slots = take(queue, labelled("x"), b"\x01" + elsewhere.encode())
    raw.rename("kept", "{queue:email}:pushed")
    assert b" bb" in raw.hget("{queue:email}:open:" + queue.worker, slots[0].seq)
    assert places(search, "x") == ["in hand"]
    assert found(search, slots[0].id).payload == labelled("x")
    assert found(search, elsewhere).place == "waiting"


def test_what_was_not_looked_at_is_said(
    queue: Queue, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_MOST_BYTES", 1)
    monkeypatch.setattr(rooms, "_PIECE_BYTES", 1)
    slots = take(queue, *(labelled(f"kept {'x' * 100} {number}") for number in range(500)))
    queue.settle([Retry(slot, 60_000, STATE) for slot in slots])
    queue.push([labelled(f"n{number}") for number in range(10)])
    nobody, notes = search.search("nobody", is_it("nobody"))
    assert nobody == []
    kept, waiting = notes
    assert kept.startswith("of 500 jobs kept, ")
    assert waiting.startswith("of 10 that wait, ")
