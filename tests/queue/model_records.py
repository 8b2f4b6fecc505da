"""What the model's words stand for: records to settle, and what Redis holds as the model has it."""

from typing import Any

import msgspec
from queue_model import Job
from redis_servers import Dump

from geomail.queue import (
    FRESH,
    Dead,
    Done,
    Duplicate,
    Ending,
    Followed,
    JobState,
    Park,
    Part,
    Record,
    Release,
    Retry,
    Slot,
    Split,
)

NEVER_MS = 10**9
PARKED = JobState(tries=1)  # one object: those of a batch go to Redis together
ROUTES = ("a", "b")


def record(words: str, slot: Slot, fates: list[str]) -> Record:
    """Return what a word says of a slot, with what follows where there is a + behind it."""
    record = _bare_record(words.removesuffix("+"), slot, fates)
    if words.endswith("+") and isinstance(record, Ending):
        return Followed(record, follow_ups(slot))
    return record


def follow_ups(slot: Slot) -> list[bytes]:
    """Return one or two payloads, always the same for a slot."""
    return [b"after %d" % number for number in range(1 + slot.index % 2)]


def _bare_record(kind: str, slot: Slot, fates: list[str]) -> Record:
    state = msgspec.structs.replace(slot.state, tries=slot.state.tries + 1)
    match kind:
        case "done":
            return Done(slot)
        case "duplicate":
            return Duplicate(slot)
        case "delayed":
            return Retry(slot, NEVER_MS, state)
        case "due":
            return Retry(slot, -NEVER_MS, state)
        case "dead":
            return Dead(slot, state)
        case "front":
            return Release(slot, state)
        case "split":
            return Split(slot, [_part(fate, state) for fate in fates])
    return Park([slot], kind, 0, PARKED if slot.state is FRESH else state)


def _part(fate: str, state: JobState) -> Part:
    match fate:
        case "delayed":
            return Part(state, ("retry", NEVER_MS))
        case "due":
            return Part(state, ("retry", -NEVER_MS))
        case "dead":
            return Part(state, "dead")
    return Part(state)


def key_of(job: Job) -> str:
    """Return one of three keys, always the same for a job."""
    return f"key {(sum(job.payload) + len(job.payload)) % 3}"


def seen(now: Dump) -> dict[str, str]:
    """Take the dedupe keys out of a dump, each with its holder."""
    buckets = [now.pop(f"seen:{number}", {}) for number in (0, 1)]
    fields = {key: held for bucket in buckets for key, held in bucket.items() if key}
    return {key.decode(): held.decode().split()[1] for key, held in fields.items()}


Groups = dict[tuple[int, str, int], int]


def groups(entries: list[tuple[Slot, Job, str]]) -> Groups:
    """What is parked alike goes together: return the place of each group's first."""
    groups: Groups = {}
    for place, (slot, _, kind) in enumerate(entries):
        groups.setdefault((slot.seq, kind, _alike(slot)), place)
    return groups


def _alike(slot: Slot) -> int:
    return 0 if slot.state is FRESH else id(slot)  # those have states of their own


def turn(entry: tuple[Slot, Job, str], groups: Groups) -> tuple[int, int, int]:
    """When settle.lua gets to it: untouched deliveries, parked, others, releases newest first."""
    slot, _, kind = entry
    if kind == "front":
        return (3, -slot.seq, -slot.index)
    if kind in ROUTES:
        return (1, groups[slot.seq, kind, _alike(slot)], slot.index)
    return (0 if kind == "done" and not slot.touched else 2, 0, 0)


def comparable(name: str, content: Any) -> Any:
    """Return the content of a key as the model tells it, times left out."""
    match name.split(":")[0]:
        case "delayed" | "dead":
            return {job.decode() for job in content}
        case "jobs":
            return {job.decode(): _comparable_job(job, value) for job, value in content.items()}
        case "open":
            return {seq.decode(): entry.split()[-1].decode() for seq, entry in content.items()}
        case "batch":
            return len(content)
    return content


def _comparable_job(name: bytes, value: bytes) -> Any:
    if name.endswith(b"/-"):
        return set(value.decode().split())
    return int(value.split()[0])
