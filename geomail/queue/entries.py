"""What the journal keeps of an outcome, and how a record is made of it again. Pure.

An entry names the place of a slot, and what became of every recipient, as far as settling it once
more needs that: no payload, but what is to be pushed when the slot moves.
"""

import msgspec

from geomail.queue.records import (
    FRESH,
    Dead,
    Done,
    Ending,
    Followed,
    JobState,
    Part,
    Record,
    Release,
    Retry,
    Slot,
    Split,
)


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One outcome on disk; without parts it is delivered, and one that isn't split is one part."""

    worker: str
    seq: int
    index: int
    id: str = ""  # where worker, seq and index don't say it
    state: JobState | None = None  # what was known before this try
    is_split: bool = False
    parts: list[Part] | None = None
    goes_on: bool = False  # no outcome: what was left to do when `state` was noted
    follow_ups: list[bytes] | None = None


_encode = msgspec.msgpack.Encoder().encode


def encode(record: Record) -> bytes:
    """Return the entry of an outcome in bytes. Raises TypeError for other records."""
    slot = record.slot
    if type(record) is Done and not slot.touched:
        # Nearly always. What is left out at the end is read as its default.
        return _encode((slot.worker, slot.seq, slot.index))
    return _encode(entry_of(record))


def entry_of(record: Record, follow_ups: list[bytes] | None = None) -> Entry:
    """Return the entry of an outcome, with what is pushed for it. Raises TypeError for others."""
    slot = record.slot
    place = slot.worker, slot.seq, slot.index
    if isinstance(record, Followed):
        return entry_of(record.record, record.payloads)
    state = None if slot.state is FRESH else slot.state
    is_split = isinstance(record, Split)
    job_id = slot.id if slot.touched else ""
    parts = _parts_of(record)
    return Entry(*place, job_id, state, is_split, parts, follow_ups=follow_ups)


def _parts_of(record: Record) -> list[Part] | None:
    match record:
        case Done():
            return None
        case Split(_, parts):
            return parts
        case Retry(_, due_in_ms, state):
            return [Part(state, ("retry", due_in_ms))]
        case Dead(_, state):
            return [Part(state, "dead")]
    raise TypeError(f"expected an outcome, got {type(record).__name__}")


def record_of(entry: Entry) -> Record:
    """Return the record that an entry was made of."""
    record = _bare_record_of(entry)
    if entry.follow_ups is None or isinstance(record, Retry | Release):
        return record
    return Followed(record, entry.follow_ups)


def _bare_record_of(entry: Entry) -> Ending | Retry | Release:
    is_touched = bool(entry.id)
    job_id = entry.id or f"{entry.worker}.{entry.seq}.{entry.index}"
    state = entry.state or FRESH
    slot = Slot(entry.worker, entry.seq, entry.index, job_id, 0, 0, state, b"", is_touched)
    if entry.goes_on:
        return Release(slot, state)
    if entry.parts is None:
        return Done(slot)
    if entry.is_split:
        return Split(slot, entry.parts)
    [part] = entry.parts
    if isinstance(part.fate, tuple):
        return Retry(slot, part.fate[1], part.state)
    return Dead(slot, part.state)
