"""What the HTTP door is asked about messages: to take one, to take many, to tell of one. No socket.

    POST one     202 {"id": …}, or why not
    POST many    a line for each line, in their order: {"id": …} or {"error": …, "line": n}
    GET one      its state, and what is known of it

A line that can't be a job has an error of its own, and the rest goes on. Lines are taken as they
come, up to some hundreds in one push, and nothing is held but what has come since the last one; a
line that is too long is passed over without being held. An Idempotency-Key becomes the `dedupe_key`
of the job, and with many `KEY/n` that of line n, so the same request may be sent twice.

Promised: an id stands in an answer only when Redis has the job. Not promised: that there is an
answer for what Redis has; a client that lost it sends again with the same key.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import gevent
import msgspec

from geomail import job
from geomail.errors import PayloadError
from geomail.intake.gate import Gate, Refused
from geomail.intake.limits import Share
from geomail.job.payload import MAX_BYTES

NOT_KNOWN = "not known: never taken, or ended more than a day ago"
CROWDED = "too much is coming at once (memory_mb): send again in a second"
PUSH_JOBS, _PUSH_BYTES = 500, 256 * 1024
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_SPACE = b" \t\r\n"
_KEY = re.compile(r'"?([!#-~]{1,200})"?')
_STATES = {"waiting": "queued"}
_encode = msgspec.json.encode


class Answer(msgspec.Struct, frozen=True):
    """A status, what is said, and what stands in the head besides."""

    status: int
    body: object
    fields: tuple[tuple[str, str], ...] = ()


def fault(status: int, why: str, *fields: tuple[str, str]) -> Answer:
    """Return the answer that says what is wrong."""
    return Answer(status, {"error": why}, fields)


def later(status: int, why: str, retry_after_s: float) -> Answer:
    """Return the answer to a client that should come back after so many seconds."""
    return fault(status, why, ("Retry-After", str(max(1, math.ceil(retry_after_s)))))


def too_many(gate: Gate, host: str) -> Answer | None:
    """Return the answer to whoever brings jobs while too many wait, or came from the same address;
    None when they are welcome.
    """
    debt_s = gate.rates.debt_s(host, time.monotonic())
    if debt_s:
        return later(429, "this address brings more jobs a second than door_rate allows", debt_s)
    if gate.pressure == "high":
        return later(429, _high(gate), gate.retry_after_s)
    return None


def read_key(text: str) -> str:
    """Return the key of an Idempotency-Key field; raises PayloadError."""
    found = _KEY.fullmatch(text)
    if found is None:
        raise PayloadError("Idempotency-Key: 1 to 200 printable characters expected, no spaces")
    return found[1]


def take_one(gate: Gate, payload: bytes, key: str | None) -> Answer:
    """Take one job."""
    try:
        ready = _readied(gate, payload, key)
        [job_id] = gate.submit([ready])
    except PayloadError as error:
        return fault(400, str(error))
    except Refused as refusal:
        return later(503, str(refusal), refusal.retry_after_s)
    return Answer(202, {"id": job_id}, (("Location", f"/v1/messages/{job_id}"),))


def tell_of(gate: Gate, job_id: str) -> Answer:
    """Tell what became of a job."""
    if gate.is_away:  # else who asks would wait behind each other
        return later(503, "Redis does not answer", gate.retry_after_s)
    try:
        found = gate.outcome(job_id)
    except Refused as refusal:
        return later(503, str(refusal), refusal.retry_after_s)
    if found is None:
        return fault(404, NOT_KNOWN)
    return Answer(200, {"id": job_id, **_told(found)}, (("Cache-Control", "no-store"),))


def broken_off(why: str) -> bytes:
    """Return the last line of answers that end before the lines do."""
    return _encode({"error": f"{why}: what follows was not taken"}) + b"\n"


class Many:
    """Lines with a job each. What `feed` and `end` give is to be sent to the client."""

    def __init__(
        self,
        gate: Gate,
        key: str | None,
        share: Share,
        *,
        most_bytes: int,
        most_jobs: int,
        room_s: float,
        pay: Callable[[int], None],
    ) -> None:
        """`share`: for what is held, `room_s`: how long room for it is waited for; `most_bytes`: of
        a line; `most_jobs`: in one push, before which `pay` hears how many they are, and may wait.
        """
        self.lines = 0
        self._gate = gate
        self._share = share
        self._key = key
        self._most_bytes = most_bytes
        self._most_jobs = min(most_jobs, PUSH_JOBS)
        self._room_s = room_s
        self._pay = pay
        self._begun: bytes | bytearray = b""  # a line whose end has not come
        self._is_crowded = False
        self._fault: str | None = None  # of that line
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._answers: list[bytes | None] = []  # None: the id of the next that is ready
        self._refusal: Refused | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what has come; yield answers when Redis has what they are about.

        b"" means that the client waits: then all that is ready is pushed, else when it is enough.
        """
        if not data:
            yield from self._push()
        elif not self._holds(len(data)):
            yield from self._push()
            self._holds(0)  # who waits for room must not keep it from others
            self._is_crowded = not self._holds(len(data), patience_s=self._room_s)
        at = 0
        while end := data.find(b"\n", at) + 1:  # not split: one of empty lines takes forty times
            self._hold(data[at : end - 1])
            yield from self._end_line()
            at = end
        self._hold(data[at:])
        self._is_crowded = False
        self._holds(0)

    def end(self) -> Iterator[bytes]:
        """Take the last line, which may have no end."""
        yield from self._end_line()
        yield from self._push()

    def _holds(self, more: int, patience_s: float = 0.0) -> bool:
        """Return whether there is room for so many bytes beside what is held already."""
        held = len(self._begun) + self._ready_bytes + more
        return self._share.hold(held, patience_s=patience_s)

    def _hold(self, data: bytes) -> None:
        """Hold what there is of a line, unless it can't be taken already."""
        if self._fault is None:
            if len(self._begun) + len(data) > self._most_bytes:
                self._fault = f"a job has at most {self._most_bytes:,} bytes (door_max_mb)"
            elif self._is_crowded:
                self._fault = CROWDED
        if self._fault is not None:
            self._begun = b""
        elif not self._begun:
            self._begun = data
        else:
            if isinstance(self._begun, bytes):
                self._begun = bytearray(self._begun)
            self._begun += data

    def _end_line(self) -> Iterator[bytes]:
        line, fault = bytes(self._begun).strip(), self._fault
        self._begun, self._fault = b"", None
        self.lines += 1
        if fault is not None:
            self._refuse(fault)
        elif line:
            self._take(line)
        if len(self._answers) >= self._most_jobs or self._ready_bytes >= _PUSH_BYTES:
            yield from self._push()

    def _take(self, line: bytes) -> None:
        key = None if self._key is None else f"{self._key}/{self.lines}"
        try:
            ready = _readied(self._gate, line, key)
        except PayloadError as error:
            self._refuse(str(error))
            return
        self._ready.append(ready)
        self._ready_bytes += len(ready)
        self._answers.append(None)

    def _refuse(self, why: str) -> None:
        self._answers.append(_encode({"error": why, "line": self.lines}) + b"\n")

    def _push(self) -> Iterator[bytes]:
        """Put what is ready on the queue, and yield the answers in order."""
        if not self._answers:
            return
        answers, ready = self._answers, self._ready
        self._answers, self._ready, self._ready_bytes = [], [], 0
        taken = iter(self._submit(ready))
        yield b"".join([next(taken) if answer is None else answer for answer in answers])

    def _submit(self, ready: Sequence[bytes]) -> list[bytes]:
        if not ready:
            gevent.sleep(0)  # errors alone are no wait, in which others have their turn
            return []
        self._pay(len(ready))
        refusal = self._refusal_so_far()
        if refusal is None:
            try:
                return [b'{"id":"%b"}\n' % one.encode() for one in self._gate.submit(ready)]
            except Refused as error:
                refusal = self._refusal = error
        told = {"error": str(refusal), "retry_after_s": math.ceil(refusal.retry_after_s)}
        return [_encode(told) + b"\n"] * len(ready)

    def _refusal_so_far(self) -> Refused | None:
        """Return why a push needs no trial: it would wait for Redis as long as the last one did."""
        gate = self._gate
        if not gate.is_away:
            self._refusal = None
        if gate.pressure == "high":
            return Refused(_high(gate), gate.retry_after_s)
        return self._refusal


def _high(gate: Gate) -> str:
    return f"{gate.depth:,} jobs wait, more than high_water allows: send again later"


def _readied(gate: Gate, payload: bytes, key: str | None) -> bytes:
    """Return the payload as it goes on the queue; raises PayloadError."""
    if not _OBJECT.match(payload):
        hint = "; for many, send application/x-ndjson" if payload.lstrip()[:1] == b"[" else ""
        begins = f"it begins with {payload[:20]!r}" if payload else "the body is empty"
        raise PayloadError(f"a JSON object expected, {begins}{hint}")
    if key is None:
        gate.check(payload)
        return payload
    own = job.decode(payload).dedupe_key
    if own is None:
        return _keyed(payload, key)
    if own == key:
        return payload
    raise PayloadError("both `dedupe_key` and an Idempotency-Key are given: keep one")


def _keyed(payload: bytes, key: str) -> bytes:
    """Return an object with one key more, as its last: of equal ones that holds, however a null
    before it is spelled.
    """
    ready = b'%b,"dedupe_key":%b}' % (payload.rstrip(_SPACE)[:-1], json.dumps(key).encode())
    if len(ready) > MAX_BYTES:
        most = MAX_BYTES - len(ready) + len(payload)
        raise PayloadError(f"a job of at most {most:,} bytes expected, with an Idempotency-Key")
    return ready


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome in the words of the API; what is not known is left out."""
    what = found["outcome"]
    told = {
        "state": _STATES.get(what, what),
        "at": _moment(found.get("at_ms")),
        "due": _moment(found.get("due_ms")),
        "tries": _tries(found),
        "last_reply": found.get("last"),
        "reason": found.get("reason"),
        "recipients": found.get("rcpt"),
        "parts": [_told(part) for part in found.get("parts", ())] or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _tries(found: dict[str, Any]) -> int | None:
    """Return how many tries there were; what is remembered of a job does not count its last one."""
    if found["outcome"] == "delivered":
        return int(found.get("tries", 0)) + 1
    return found.get("tries")


def _moment(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return (
        datetime.fromtimestamp(at_ms / 1000, UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
