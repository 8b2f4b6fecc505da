"""The slots that the reply to a take describes. Pure.

An item is a producer's bytes, or a job that Redis keeps by reference: [id, job, its root's job]. An
empty item says that there is nothing left of the job, unless its character is `b`: then it is what
a producer pushed.
"""

from typing import Any

from geomail.queue.records import FRESH, Slot, parse_job

LIVE_IN_REDIS = b".bs"
"""Characters of slots that are not settled: referred to or read, moved unread, a suspect."""


def is_live(characters: bytes, index: int) -> bool:
    """Return whether there is such a slot that is not settled."""
    return 0 <= index < len(characters) and characters[index] in LIVE_IN_REDIS


def read_slots(
    worker: str, seq: int, taken_ms: int, characters: bytes, items: list[Any]
) -> list[Slot]:
    """Return a slot for each item that there is something of, settled ones too."""
    # Positional and without a call for the plain case: 0.4 µs a slot instead of 0.9.
    prefix = f"{worker}.{seq}."
    slots = []
    for index, item in enumerate(items):
        if type(item) is list:
            slots.append(_touched_slot(worker, seq, index, item))
        elif item or (item is not None and characters[index : index + 1] == b"b"):
            slots.append(Slot(worker, seq, index, f"{prefix}{index}", 0, taken_ms, FRESH, item))
    return slots


def _touched_slot(worker: str, seq: int, index: int, item: list[Any]) -> Slot:
    job_id, value, root_value = item
    deaths, first_seen_ms, state, payload = parse_job(value)
    if root_value is not None:
        payload = root_value.partition(b"\n")[2]
    return Slot(
        worker, seq, index, job_id.decode(), deaths, first_seen_ms, state, payload, touched=True
    )
