"""Where one job of a queue is: by its id, or by the label that its producer gave it.

By id it costs a handful of short calls, whatever else lies in Redis: what is kept of the job names
the place, or leaves few to look at. A label stands only inside payloads, so they are read: what
workers hold first, then the jobs kept, then what waits, each up to a limit. Nothing is changed.
`notes` says what was not looked at. See why.lua.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from geomail.queue import door
from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Link, Script
from geomail.queue.records import FRESH, JobState, parse_job
from geomail.queue.slots import is_live

Place: TypeAlias = Literal[
    "waiting", "suspect", "in hand", "delayed", "parked", "dead", "split", "ended", "moving"
]

_WHY = Script("why")
_ID = re.compile(r"([0-9a-f]{16})\.(\d+)\.(\d+)((?:\.cb\d*)?(?:/\d+)*)")
_LARGEST = 1_000_000  # of a payload that is read
_FAR = 10_000  # references looked at in one list
_MOST_WORKERS = 200
_MOST_PARTS = 20
_PIECE_BYTES = 200_000  # in 1 to 3 ms
_MOST_JOBS, _MOST_BYTES = 100_000, 200_000_000
_MOST_AT_ONCE = 500
_LEAST = 10  # looked at, though one is found: its neighbours may carry the same label


class Whereabouts(msgspec.Struct, frozen=True):
    """Where a job is, and what is kept of it."""

    place: Place
    id: str | None = None  # None: it has none before it is taken
    state: JobState = FRESH
    first_seen_ms: int | None = None
    payload: bytes = b""  # empty: not read, for it is large or gone
    in_front: int | None = None  # how many are taken before it, roughly
    worker: str | None = None  # in whose hand it is,
    since_ms: int | None = None  # since when, and until when unless it is renewed
    lease_until_ms: int | None = None
    due_ms: int | None = None
    died_ms: int | None = None
    parts: tuple[str, ...] = ()
    parts_left: int = 0
    outcome: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


class Search:
    """Somebody who looks for jobs in one list."""

    def __init__(self, link: Link, name: str) -> None:
        """Prepare to look; raises ConfigError for a name that can't be a queue's."""
        self.name = name
        self._keys = Keys(name)
        self._desk: Connection = link.open("desk", self._keys.list)

    def now_ms(self) -> int:
        """Return the time by Redis's clock."""
        seconds, micros = self._desk.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def find(self, job_id: str) -> Whereabouts | None:
        """Return where the job of that id is; None when nothing is known of it."""
        keys = self._keys
        found = self._run("job", [keys.jobs, keys.delayed, keys.dead], job_id, _LARGEST)
        if not found:
            return self._never_touched(job_id) or self._ended(job_id)
        header, _, due, died, left, payload = found
        _, first_seen_ms, state, _ = parse_job(header + b"\n")
        known = Whereabouts("moving", job_id, state, first_seen_ms, payload)
        if died:
            return _changed(known, place="dead", died_ms=int(float(died)))
        if due:
            return _changed(known, place="delayed", due_ms=int(float(due)))
        if left and "/" not in job_id:
            parts = self._run("parts", [keys.jobs], job_id, _MOST_PARTS)
            names = tuple(name.decode() for name in parts)
            return _changed(known, place="split", parts=names, parts_left=int(left))
        return self._in_a_hand(known) or self._in_a_list(known)

    # ---- by id

    def _never_touched(self, job_id: str) -> Whereabouts | None:
        """A job that was never put back lies only in the batch that its id names."""
        named = _ID.fullmatch(job_id)
        if named is None or named[4]:
            return None
        worker, seq, slot = named[1], int(named[2]), int(named[3])
        taken_ms, characters = self._batch(worker, seq)
        if not is_live(characters, slot):
            return None
        payload = self._desk.call("LINDEX", self._keys.batch(worker, seq), slot) or b""
        payload = payload if len(payload) <= _LARGEST else b""
        held = Whereabouts("in hand", job_id, first_seen_ms=taken_ms, payload=payload)
        return self._held_by(held, worker, taken_ms)

    def _ended(self, job_id: str) -> Whereabouts | None:
        outcome = door.outcome(self._desk, self._keys, job_id)
        return Whereabouts("ended", job_id, outcome=outcome) if outcome else None

    def _in_a_hand(self, known: Whereabouts) -> Whereabouts | None:
        for worker in self._workers():
            table = self._table(worker)
            if not table:
                continue
            batches = [self._keys.batch(worker, seq) for seq in table]
            slots = self._run("among", batches, known.id or "")
            for (taken_ms, characters), slot in zip(table.values(), slots, strict=True):
                if slot >= 0 and characters[slot : slot + 1] in (b".", b"s"):
                    return self._held_by(_changed(known, place="in hand"), worker, taken_ms)
        return None

    def _in_a_list(self, known: Whereabouts) -> Whereabouts:
        keys, route = self._keys, known.state.route
        lists = [keys.front, keys.pushed, keys.suspects]
        lists += [keys.park(route)] if route else []
        found = self._run("places", lists, known.id or "", _FAR)
        lengths, numbers = found[::2], found[1::2]
        front, pushed, suspect, parked = [*numbers, -1][:4]
        if front >= 0:
            return _changed(known, place="waiting", in_front=front)
        if pushed >= 0:
            return _changed(known, place="waiting", in_front=lengths[0] + pushed)
        if suspect >= 0:
            return _changed(known, place="suspect", in_front=suspect)
        if parked >= 0:
            return _changed(known, place="parked", in_front=parked)
        far = [number for number, length in enumerate(lengths) if length > _FAR]
        if not far:
            return known
        place: Place = "parked" if 3 in far else "waiting"
        note = f"not among the {_FAR:,} that are taken next; farther was not looked"
        return _changed(known, place=place, notes=(note,))

    def _held_by(self, held: Whereabouts, worker: str, taken_ms: int) -> Whereabouts:
        lease = self._desk.call("ZSCORE", self._keys.workers, worker)
        until_ms = int(float(lease)) if lease else 0
        return _changed(held, worker=worker, since_ms=taken_ms, lease_until_ms=until_ms)

    def _workers(self) -> list[str]:
        names = self._desk.call(
            *("ZRANGEBYSCORE", self._keys.workers, 0, "+inf", "LIMIT", 0, _MOST_WORKERS)
        )
        return [name.decode() for name in names]

    def _table(self, worker: str) -> dict[int, tuple[int, bytes]]:
        flat = self._desk.call("HGETALL", self._keys.open(worker))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {int(seq): _entry(value) for seq, value in pairs if seq != b"last"}

    def _batch(self, worker: str, seq: int) -> tuple[int, bytes]:
        value = self._desk.call("HGET", self._keys.open(worker), seq)
        return _entry(value) if value else (0, b"")

    # ---- by label

    def search(
        self, label: str, is_it: Callable[[bytes], bool]
    ) -> tuple[list[Whereabouts], list[str]]:
        """Return where jobs are whose producer gave them `label`, and what was not looked at.

        `is_it` tells whether a payload carries it. The first place that has one ends the search.
        """
        spellings, notes = _spellings(label), list[str]()
        for look in (self._label_in_hands, self._label_in_jobs, self._label_in_list):
            found = list(look(spellings, is_it, notes))
            if found:
                return found, []
        return [], notes

    def _label_in_hands(
        self, spellings: list[str], is_it: Callable[[bytes], bool], _notes: list[str]
    ) -> Iterator[Whereabouts]:
        for worker in self._workers():
            for seq, (taken_ms, characters) in self._table(worker).items():
                key = self._keys.batch(worker, seq)
                for number, payload in self._matches(key, spellings):
                    slot = len(characters) - 1 - number
                    if is_live(characters, slot) and is_it(payload):
                        yield self._held_by(
                            Whereabouts("in hand", f"{worker}.{seq}.{slot}", payload=payload),
                            *(worker, taken_ms),
                        )

    def _matches(self, key: bytes, spellings: list[str]) -> Iterator[tuple[int, bytes]]:
        """Yield number (from the right end) and payload of what may carry the label in a batch."""
        for _, _, _, found in self._pieces(key, spellings):
            yield from found

    def _pieces(
        self, key: bytes, spellings: list[str]
    ) -> Iterator[tuple[int, int, int, list[tuple[int, bytes]]]]:
        """Read a list from its right end; yield its length, how far that was, and in bytes, and
        number and payload of what may carry the label.
        """
        number, length, size, count = 0, 1, 0, 1
        while number < length:
            before = number
            length, number, bytes_read, *found = self._run(
                "in list", [key], number, count, *spellings
            )
            size += bytes_read
            yield length, number, size, list(zip(found[::2], found[1::2], strict=True))
            count = _next_count(count, number - before, bytes_read)

    def _label_in_jobs(
        self, spellings: list[str], is_it: Callable[[bytes], bool], notes: list[str]
    ) -> Iterator[Whereabouts]:
        cursor, count, looked, size = b"0", 1, 0, 0
        seen, is_found = set[str](), False
        while True:
            cursor, jobs, bytes_read, total, *ids = self._run(
                "in jobs", [self._keys.jobs], cursor, count, *spellings
            )
            for name in map(bytes.decode, ids):
                whole = self.find(name) if name not in seen else None
                seen.add(name)
                if whole is not None and is_it(whole.payload or self._payload(name)):
                    is_found = True
                    yield whole
            looked, size = looked + jobs, size + bytes_read
            if cursor == b"0" or (is_found and looked >= _LEAST):
                return
            if looked >= _MOST_JOBS or size >= _MOST_BYTES:
                notes.append(f"of {total:,} jobs kept, {total - looked:,} were not looked at")
                return
            count = _next_count(count, jobs, bytes_read)

    def _payload(self, job_id: str) -> bytes:
        """Read what `find` leaves unread, without a script: that copies nothing into Lua."""
        value: bytes = self._desk.call("HGET", self._keys.jobs, job_id.partition("/")[0]) or b""
        return value.partition(b"\n")[2]

    def _label_in_list(
        self, spellings: list[str], is_it: Callable[[bytes], bool], notes: list[str]
    ) -> Iterator[Whereabouts]:
        before = self._desk.call("LLEN", self._keys.front)
        for key in (self._keys.arrive, self._keys.list):
            length, is_found = 0, False
            for length, number, size, matches in self._pieces(key, spellings):
                for at, payload in matches:
                    if is_it(payload):
                        is_found = True
                        yield Whereabouts("waiting", payload=payload, in_front=before + at)
                if is_found and number >= _LEAST:
                    break
                if number < length and (number >= _MOST_JOBS or size >= _MOST_BYTES):
                    notes.append(f"of {length:,} that wait, {length - number:,} were not looked at")
                    break
            before += length

    def _run(self, verb: str, names: list[bytes], *arguments: bytes | str | int) -> Any:
        return self._desk.run(_WHY, names, (verb, *arguments))


def is_id(text: str) -> bool:
    """Return whether `text` looks like the id of a job."""
    return _ID.fullmatch(text) is not None


def _entry(value: bytes) -> tuple[int, bytes]:
    taken_ms, _, characters = value.partition(b" ")
    return int(taken_ms), characters


def _next_count(count: int, jobs: int, size: int) -> int:
    """Return how many to look at next, after `jobs` of `size` bytes in all."""
    return max(1, min(2 * count, _PIECE_BYTES // (size // max(1, jobs) + 1), _MOST_AT_ONCE))


def _changed(known: Whereabouts, **facts: Any) -> Whereabouts:
    return msgspec.structs.replace(known, **facts)


def _spellings(label: str) -> list[str]:
    """Return how a label may stand in JSON: as it is, escaped, and with `/` as PHP writes it."""
    plain = [json.dumps(label, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False)]
    return list(dict.fromkeys([label, *plain, *(text.replace("/", "\\/") for text in plain)]))
