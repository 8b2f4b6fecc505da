"""Records on their way to Redis: sorted by worker, packed for settle.lua, confirmed by its reply.

One `Settlement` is one call of the script: the slots of one worker, bounded in number and in bytes
so that no call holds Redis up. Deliveries of jobs that were never touched, nearly all there are, go
as one list of indexes a batch, and what is parked for one route alike as another; everything else
as a record of its own. Releases go last, newest first, so that `front` keeps the old order. Pure:
no Redis, no clock.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from geomail.queue.lease import DONE, MOVED, Lease
from geomail.queue.records import (
    Dead,
    Done,
    Duplicate,
    Ending,
    Followed,
    Park,
    Record,
    Release,
    Retry,
    Slot,
    Split,
    encode_state,
)

_MOST_RECORDS = 256
_MOST_BYTES = 2_000_000
_FIXED_KEYS = 13

Argument = bytes | str | int


class Settlement:
    """One call of settle.lua."""

    def __init__(self, worker: str) -> None:
        """Start an empty call for slots of one worker."""
        self.worker = worker
        self.weight = 0
        self._done: dict[int, list[int]] = {}
        self._parked: dict[tuple[int, str, int], tuple[Park, list[int]]] = {}
        self._parked_count = 0
        self._moved: list[tuple[Record | None, int, int, list[Argument]]] = []
        self.has_follow_ups = False

    @property
    def seqs(self) -> list[int]:
        """The batches that are touched, in the order of their keys."""
        return list(self._done)

    @property
    def routes(self) -> list[str]:
        """The routes that something is parked for, in the order of their keys."""
        return list(dict.fromkeys(route for _, route, _ in self._parked))

    @property
    def is_full(self) -> bool:
        """Whether another record should go into another call."""
        count = len(self._moved) + self._parked_count
        return count >= _MOST_RECORDS or self.weight >= _MOST_BYTES

    def add_done(self, slot: Slot) -> None:
        """Add a delivery."""
        indexes = self._done.get(slot.seq)
        if indexes is None:
            indexes = self._done[slot.seq] = []
        if slot.touched:
            json = encode_state(slot.state) if slot.state.told else b""
            self._moved.append((None, slot.seq, slot.index, ["done", slot.id, json]))
        else:
            indexes.append(slot.index)

    def add_parked(self, record: Park, at: int) -> int:
        """Add what is parked, from the slot number `at` on; return where the call was full."""
        room = _MOST_RECORDS - len(self._moved) - self._parked_count
        slots = record.slots[at : at + max(1, room)]
        weight = sum([len(slot.payload) or slot.size for slot in slots])  # slot.weight is slower
        while self.weight + weight > _MOST_BYTES and len(slots) > 1:
            weight -= slots.pop().weight
        seq, indexes = -1, []
        for slot in slots:
            if slot.seq != seq:
                seq = slot.seq
                indexes = self._parked_of(seq, record)
            indexes.append(slot.index)
        self.weight += weight
        self._parked_count += len(slots)
        return at + len(slots)

    def _parked_of(self, seq: int, record: Park) -> list[int]:
        """Return the indexes of those of a batch and route that share a state."""
        key = seq, record.route, id(record.state)
        if key not in self._parked:
            self._done.setdefault(seq, [])
            self._parked[key] = record, []
        return self._parked[key][1]

    def add(self, record: Record) -> None:
        """Add any other record."""
        slot = record.slot
        self.weight += slot.weight
        if isinstance(record, Followed):
            self._add_followed(record.record, record.payloads)
            return
        self.add_raw(record, slot.seq, slot.index, self._words(record))

    def _add_followed(self, record: Ending, payloads: list[bytes]) -> None:
        slot = record.slot
        if isinstance(record, Done):
            words: list[Argument] = ["done", slot.id, encode_state(slot.state)]
            if not slot.touched:
                words = ["sent"]
        else:
            words = self._words(record)
        self.has_follow_ups = True
        self.weight += sum(map(len, payloads))
        words = ["follow", 0, len(payloads), *payloads, *words]
        is_done = isinstance(record, Done)
        self.add_raw(None if is_done else record, slot.seq, slot.index, words)

    def add_raw(self, record: Record | None, seq: int, index: int, words: list[Argument]) -> None:
        """Add a record in the script's own words: its kind, then what the kind needs."""
        self._done.setdefault(seq, [])
        self._moved.append((record, seq, index, words))

    def arguments(self, tag: bytes) -> list[Argument]:
        """Return ARGV; `tag` names one more counter for what moves."""
        packed: list[Argument] = [self.worker, tag, len(self._done), len(self._parked)]
        for seq, indexes in self._done.items():
            packed += (seq, ",".join(map(str, indexes)))
        numbers = {seq: number for number, seq in enumerate(self._done, 1)}
        routes = {
            route: number
            for number, route in enumerate(self.routes, 1 + _FIXED_KEYS + len(numbers))
        }
        for (seq, route, _), (park, indexes) in self._parked.items():
            packed += (numbers[seq], ",".join(map(str, sorted(indexes))), routes[route], route)
            packed += (park.retry_in_ms, encode_state(park.state))
        for _, seq, index, (kind, *words) in self._moved:
            if kind == "follow":
                words[0] = 1 + _FIXED_KEYS + len(numbers) + len(routes)
            packed += (kind, numbers[seq], index, *words)
        return packed

    def confirm(self, reply: list[Any], lease: Lease, now_s: float) -> list[Slot]:
        """Note that Redis has it all, and return the slots of parts that stay in work."""
        places = iter(reply[2:])
        parts: list[Slot] = []
        for record, *_ in self._moved:
            if isinstance(record, Split):
                parts += _part_slots(record, next(places))
        if lease.worker == self.worker:
            self._mark(lease, parts, now_s)
        return parts

    def _mark(self, lease: Lease, parts: list[Slot], now_s: float) -> None:
        for part in parts:
            lease.grow(part.seq, part.index)
        for seq, indexes in self._done.items():
            lease.mark(seq, indexes, DONE)
        for (seq, _, _), (_, indexes) in self._parked.items():
            lease.mark(seq, indexes, MOVED)
        for record, seq, index, _ in self._moved:
            lease.mark(seq, [index], DONE if record is None else MOVED)
        for seq in self._done:
            lease.close(seq, now_s)

    def _words(self, record: Record) -> list[Argument]:
        match record:
            case Duplicate():
                return ["duplicate"]
            case Retry(slot, due_in_ms, state):
                kind = "unsure" if state.unknown > slot.state.unknown else "retry"
                return [kind, due_in_ms, encode_state(state)]
            case Dead(_, state):
                return ["dead", encode_state(state)]
            case Release(_, state):
                return ["release", encode_state(state)]
            case Split():
                return _split_words(record)
        raise TypeError(f"expected a record of the queue, got {type(record).__name__}")


def settlements(records: Sequence[Record]) -> Iterator[Settlement]:
    """Sort records into as few calls as the limits allow."""
    calls: dict[str, Settlement] = {}
    releases: list[Release] = []
    full: list[Settlement] = []
    for record in records:
        slot = record.slot
        call = calls.get(slot.worker)
        if call is None:
            call = calls[slot.worker] = Settlement(slot.worker)
        if type(record) is Done:
            call.add_done(slot)
            if not slot.touched:
                continue  # nearly always, and no call gets full by it
        elif type(record) is Park:
            at = call.add_parked(record, 0)
            while at < len(record.slots):
                full.append(call)
                call = calls[slot.worker] = Settlement(slot.worker)
                at = call.add_parked(record, at)
        elif type(record) is Release:
            releases.append(record)
            continue
        else:
            call.add(record)
        if call.is_full:
            full.append(calls.pop(slot.worker))
    yield from full
    releases.sort(key=lambda release: (release.slot.seq, release.slot.index), reverse=True)
    for release in releases:
        call = calls.setdefault(release.slot.worker, Settlement(release.slot.worker))
        call.add(release)
        if call.is_full:
            yield calls.pop(release.slot.worker)
    yield from calls.values()


def heal(worker: str, leaks: Sequence[tuple[int, int, bool]]) -> Iterator[Settlement]:
    """Settle slots (seq, index, is delivered) of which nothing but their place is known.

    What was delivered is settled as done; the rest goes back to the front with the state that Redis
    has of it.
    """
    for start in range(0, len(leaks), _MOST_RECORDS):
        call = Settlement(worker)
        piece = sorted(leaks[start : start + _MOST_RECORDS], reverse=True)
        for seq, index, is_delivered in piece:
            call.add_raw(None, seq, index, ["done", "", ""] if is_delivered else ["release", ""])
        yield call


def _split_words(record: Split) -> list[Argument]:
    if not record.parts:
        raise ValueError(f"{record.slot.id}: a split needs at least one part")
    if record.slot.size:
        raise ValueError(f"{record.slot.id}: a split needs the payload, which was let go of")
    words: list[Argument] = ["split", record.slot.id, len(record.parts)]
    for part in record.parts:
        fate, due_in_ms = (part.fate, 0) if isinstance(part.fate, str) else part.fate
        words += (fate, due_in_ms, encode_state(part.state))
    return words


def _part_slots(record: Split, places: list[int]) -> list[Slot]:
    whole = record.slot
    ours = [(k, part) for k, part in enumerate(record.parts, 1) if part.fate == "slot"]
    return [
        Slot(
            whole.worker,
            whole.seq,
            index,
            f"{whole.id}/{k}",
            whole.deaths,
            whole.first_seen_ms,
            part.state,
            whole.payload,
            touched=True,
        )
        for (k, part), index in zip(ours, places, strict=False)
    ]
