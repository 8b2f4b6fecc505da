"""What the journal keeps of an outcome: the record that is made of it again says the same."""

import msgspec
import pytest

from geomail.queue import (
    Dead,
    Done,
    Duplicate,
    Followed,
    JobState,
    Park,
    Part,
    Record,
    Retry,
    Slot,
    Split,
)
from geomail.queue.entries import Entry, encode, entry_of, record_of
from geomail.queue.records import FRESH

FRESH_SLOT = Slot("ab", 3, 4, "ab.3.4", 0, 0, FRESH, b"payload")
TOUCHED = Slot("ab", 3, 5, "cd.1.1", 1, 9, JobState(tries=2), b"payload", touched=True)
LATER, NEVER = JobState(tries=3, last="451"), JobState(tries=3, reason="550")
ENDINGS: list[Done | Dead | Split] = [
    Done(FRESH_SLOT),
    Done(TOUCHED),
    Dead(TOUCHED, NEVER),
    Split(TOUCHED, [Part(LATER, ("retry", 5)), Part(NEVER, "dead")]),
]
ENTRIES = msgspec.msgpack.Decoder(Entry)


def through_the_journal(record: Record) -> Record:
    """Return what is read of a record that was written."""
    return record_of(ENTRIES.decode(encode(record)))


def said(record: Record) -> tuple[object, ...]:
    """Return what settling a record needs, without the payload."""
    slot = record.slot
    place = type(record), slot.worker, slot.seq, slot.index, slot.id, slot.state, slot.touched
    match record:
        case Followed(inner, payloads):
            return (*place, said(inner), tuple(payloads))
        case Retry(_, due_in_ms, state):
            return (*place, due_in_ms, state)
        case Dead(_, state):
            return (*place, state)
        case Split(_, parts):
            return (*place, tuple(parts))
    return place


@pytest.mark.parametrize("record", [*ENDINGS, Retry(TOUCHED, 70, LATER)])
def test_a_record_comes_back(record: Record) -> None:
    assert said(through_the_journal(record)) == said(record)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_follows_it_comes_back_too(ending: Done | Dead | Split) -> None:
    record = Followed(ending, [b"one", b"two"])
    assert said(through_the_journal(record)) == said(record)


def test_an_entry_of_an_earlier_release_is_read() -> None:
    old = msgspec.msgpack.encode(["ab", 3, 4, "", None, False, None, False])
    assert said(record_of(ENTRIES.decode(old))) == said(Done(FRESH_SLOT))


@pytest.mark.parametrize("record", [Duplicate(TOUCHED), Park([TOUCHED], "r", 1, LATER)])
def test_what_is_no_outcome_is_refused(record: Record) -> None:
    with pytest.raises(TypeError, match="expected an outcome"):
        entry_of(record)
