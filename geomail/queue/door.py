"""A door of the queue: jobs whose ids are known at once, and what became of them.

What a door submits lies in `jobs` from the start, with a reference in `pushed`, both written by one
script. A door has a name of its own and numbers what it sends, one request at a time, so a request
whose reply was lost is never pushed twice. The end of a job whose id somebody was told (`told`) is
written down by whoever settles it, and kept for one to two days.

An idle worker waits for the producers' list by BLMOVE, which sees nothing of this. So it waits for
`T:nudge` too, by BLPOP on a connection of its own, and each push puts an empty element there where
none is; so does a take that leaves some of it to others. Why not otherwise: an element of the
producers' list can't be told from a producer's; BLMPOP waits for both, but pops, and what a client
that died has popped is gone (a nudge may go: the next look comes within 5 s); pub/sub wakes all
workers for each job, and wants rights of its own.

Promised: once `submit` returns, the queue answers for the jobs, and an idle worker is on its way.
"""

import secrets
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

import msgspec

from geomail import log
from geomail.errors import RedisUnusable
from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Script, Word
from geomail.queue.records import JobState, encode_state, parse_job

_PUSH, _OUTCOME = Script("push"), Script("outcome")
_PIECE_JOBS, _PIECE_BYTES = 500, 1_000_000


class Door:
    """One name under which jobs are submitted."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        """Open a door; nothing is sent yet."""
        self._connection = connection
        self._keys = keys
        self._name = secrets.token_hex(8)
        self._seq = 0
        self._turn = Lock()

    def submit(self, payloads: Sequence[bytes], state: JobState) -> list[str]:
        """Put jobs on the queue, first one first, and return their ids."""
        ids: list[str] = []
        piece: list[bytes] = []
        size = 0
        for payload in payloads:
            if piece and (len(piece) >= _PIECE_JOBS or size + len(payload) > _PIECE_BYTES):
                ids += self._push(piece, state)
                piece, size = [], 0
            piece.append(payload)
            size += len(payload)
        return ids + self._push(piece, state) if piece else ids

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _push(self, piece: list[bytes], state: JobState) -> list[str]:
        keys = self._keys
        names = (keys.jobs, keys.pushed, *keys.outcomes, keys.nudge)
        with self._turn:  # a number must not overtake a smaller one: that would be dropped
            self._seq += 1
            prefix = f"{self._name}.{self._seq}."
            arguments: list[Word] = [self._name, self._seq, encode_state(state), *piece]
            self._connection.run(_PUSH, names, arguments)
        return [f"{prefix}{index}" for index in range(len(piece))]


class Ear:
    """Hears that a door has pushed something."""

    def __init__(self, connection: Connection, keys: Keys, reply_s: float) -> None:
        """`reply_s`: how long a reply may take beside what is waited for."""
        self._connection = connection
        self._keys = keys
        self._reply_s = reply_s
        self._is_deaf = False

    def wait(self, timeout_s: float) -> bool:
        """Wait until a door has pushed something, or `timeout_s`; return whether one has.

        Where Redis refuses that for ever, nothing is heard: that costs seconds, and is said once.
        """
        command = ("BLPOP", self._keys.nudge, max(timeout_s, 0.001))
        try:
            reply = self._connection.attempt(*command, timeout_s=timeout_s + self._reply_s)
        except RedisUnusable as error:
            if not self._is_deaf:
                log.warning("doors_not_heard", why=error)
            self._is_deaf = True
            time.sleep(timeout_s)
            return False
        return reply is not None


def outcome(desk: Connection, keys: Keys, job_id: str) -> dict[str, Any] | None:
    """Say what became of a job, or None when nothing is known of it."""
    whole = job_id.partition("/")[0]
    if "." not in whole:  # no id: such fields are for the doors' own numbers
        return None
    names = (keys.jobs, keys.delayed, keys.dead, *keys.outcomes)
    *lines, due_ms, died_ms, waits, parts, header = desk.run(_OUTCOME, names, (whole,))
    ends = _ends(b"\n".join(filter(None, lines)))
    if due_ms:
        return {"outcome": "delayed", "due_ms": int(float(due_ms)), **_remembered(header)}
    dead = sum(end["outcome"] == "dead" for end in ends)
    if waits and not died_ms and (not parts or int(parts) > dead):
        ended = {"parts": ends} if parts and ends else {}
        return {"outcome": "waiting", **_remembered(header), **ended}
    if died_ms and not ends:
        return {"outcome": "dead", "at_ms": int(float(died_ms))}
    return _summed_up(ends)


def _remembered(header: bytes) -> dict[str, Any]:
    """Return what is known of the tries so far."""
    if not header:
        return {}
    _, _, state, _ = parse_job(header + b"\n")
    facts = {"tries": state.tries, "last": state.last, "rcpt": state.rcpt}
    return {field: fact for field, fact in facts.items() if fact}


def _ends(lines: bytes) -> list[dict[str, Any]]:
    """Read what was noted: the last line of each part counts, for a person may have put it back."""
    last: dict[str, dict[str, Any]] = {}
    for line in filter(None, lines.split(b"\n")):
        at_ms, what, name, json = line.decode().split(" ", 3)
        known = msgspec.json.decode(json)
        facts = {field: known[field] for field in ("tries", "last", "rcpt") if field in known}
        if what == "dead" and "reason" in known:
            facts["reason"] = known["reason"]
        last[name] = {"outcome": what, "at_ms": int(at_ms), **facts}
    return sorted(last.values(), key=lambda end: int(end["at_ms"]))


def _summed_up(ends: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the one end there is, or the worst of the parts' with all of them."""
    if len(ends) <= 1:
        return ends[0] if ends else None
    order = ("dead", "dropped", "duplicate", "delivered")
    worst = min(ends, key=lambda end: order.index(end["outcome"]))
    return {**worst, "parts": ends}
