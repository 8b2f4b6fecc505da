"""What follows an ending: pushed when the slot moves, once, and only then."""

import pytest
from redis_servers import NewQueue

from geomail.queue import (
    Dead,
    Done,
    Duplicate,
    Followed,
    JobState,
    Part,
    Queue,
    Release,
    Slot,
    Split,
)

pytest_plugins = ("queue_fixtures",)
GONE = JobState(tries=1, reason="550 no")


def one(queue: Queue) -> Slot:
    """Push a job and take it."""
    queue.push([b"a"])
    [slot] = queue.take(1).slots
    return slot


def ending(kind: type, slot: Slot) -> Followed:
    """Return an ending of a kind, and what follows it."""
    made: dict[type, Done | Duplicate | Dead | Split] = {
        Done: Done(slot),
        Duplicate: Duplicate(slot),
        Dead: Dead(slot, GONE),
        Split: Split(slot, [Part(GONE, "dead"), Part(GONE, "dead")]),
    }
    return Followed(made[kind], [b"one", b"two"])


@pytest.mark.parametrize("kind", [Done, Duplicate, Dead, Split])
def test_it_is_pushed_once(queue: Queue, kind: type) -> None:
    slot = one(queue)
    for _ in ("once", "and once more"):
        queue.settle([ending(kind, slot)])
        assert queue.counts().pushed == 2
    first, second = queue.take(9).slots
    assert [(each.id, each.payload) for each in (first, second)] == [
        (f"{slot.id}.cb", b"one"),
        (f"{slot.id}.cb2", b"two"),
    ]
    assert first.state.callback
    queue.settle([Done(first), Done(second)])
    assert queue.counts().in_flight == 0


@pytest.mark.parametrize("kind", [Duplicate, Dead, Split])
def test_who_was_fenced_pushes_nothing(queue: Queue, new_queue: NewQueue, kind: type) -> None:
    slot = one(queue)
    new_queue().reap([queue.worker])
    queue.settle([ending(kind, slot)])
    assert queue.counts().pushed == 0
    assert queue.counts().front == 1


def test_what_was_delivered_counts_from_who_was_fenced(queue: Queue, new_queue: NewQueue) -> None:
    slot, other = one(queue), new_queue()
    other.reap([queue.worker])
    for _ in ("once", "and once more"):
        queue.settle([ending(Done, slot)])
        assert queue.counts().pushed == 2
    assert [each.payload for each in other.take(9).slots] == [b"one", b"two"]


def test_last_words_of_a_suspect_are_pushed_when_it_dies(queue: Queue, new_queue: NewQueue) -> None:
    slot, other = one(queue), new_queue()
    words = '{"url": "http://a/\\u00e9", "json": "quo\\"ted"}'
    queue.settle([Release(slot, JobState(last_words=words))])
    for times in range(3):
        [slot] = queue.take(9).slots
        assert (slot.id, slot.suspect) == (slot.id, times == 2)
        assert other.counts().pushed == 0
        other.reap([queue.worker])
        queue.register()
    assert other.counts().dead == 1
    [told] = queue.take(9).slots
    assert told.payload == words.encode()
    assert told.id == f"{slot.worker}.{slot.seq}.{slot.index}.cb"
    assert told.state == JobState(callback=True)
    assert other.dead_retry(every=True) == 1
    [again] = other.take(1).slots
    assert again.state.last_words is None


def test_a_suspect_without_last_words_dies_in_silence(queue: Queue, new_queue: NewQueue) -> None:
    one(queue)
    other = new_queue()
    for _ in range(2):
        other.reap([queue.worker])
        queue.register()
        assert queue.take(9).slots
    other.reap([queue.worker])
    assert (other.counts().dead, other.counts().pushed) == (1, 0)
