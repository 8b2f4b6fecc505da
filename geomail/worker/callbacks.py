"""Callbacks: what whoever asked for it by `callback_url` is told when a job has ended.

An ending takes along the payload of an URL task, which is pushed by the script that settles the job
(settle.lua), when the slot moves and only then. From there on it is an URL task like others, with
the tries and the places of those, so that no mail waits for it. Its body:

    {"type": "message.delivered", "message.dead" or "message.duplicate",
     "id": …, "label": …, "at": "2030-01-01T09:00:00.000Z", "tries": 1,
     "recipients": [{"addr": …, "outcome": "delivered" or "dead",
                     "code": …, "reply": …, "host": …}]}

and of a task, as "task.done", "task.dead" or "task.duplicate", with `target`, `code`, `reply` and
`host` in place of the recipients. What is not known is left out. A job that was split ends part by
part, with one callback each, and each recipient is in one of them. Nothing is told of a try that
failed for now, nor of a callback.

A job that two workers have died with is put back, before it is tried, with what is to be told
should the next one die too: so Redis can say it without reading the payload (reap.lua).

Not promised: a callback for a payload that can't be read. A person who drops a dead letter, whose
end has been told, is no other end.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from geomail import log, metrics
from geomail.carriers.task import describe
from geomail.config import Settings
from geomail.delivery.outcome import Fate, Outcome
from geomail.job import Email, Job
from geomail.queue import (
    Dead,
    Done,
    Duplicate,
    Followed,
    JobState,
    Part,
    Record,
    Retry,
    Slot,
    Split,
    death_of,
)
from geomail.worker.clock import RedisClock

_encode = msgspec.json.Encoder().encode
_Known = Mapping[str, Outcome]


class Callbacks:
    """Adds to endings what follows them."""

    def __init__(self, settings: Settings, clock: RedisClock) -> None:
        self._clock = clock
        self._is_told = False
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings."""
        self._is_on = bool(settings.url_hosts)

    def after(
        self,
        record: Record,
        job: Job,
        pairs: Sequence[tuple[str, Outcome]] = (),
        host: str | None = None,
    ) -> Record:
        """Return `record` with what follows it, if anything does.

        `pairs`: who has had which outcome at which `host` in this try, if there was one.
        """
        if job.callback_url is None or record.slot.state.callback or not self._may_be():
            return record
        known = dict(pairs)
        delivered = [one for one, outcome in pairs if outcome.fate is Fate.DELIVERED]
        return _Ending(job, known, delivered, host, self._clock.now_ms()).of(record)

    def last_words(self, slot: Slot, job: Job) -> str | None:
        """Return what is to be pushed should `job` die with its workers; None: nothing."""
        if job.callback_url is None or slot.state.callback or not self._may_be():
            return None
        state = msgspec.structs.replace(slot.state, reason=death_of(slot.deaths + 1))
        ending = _Ending(job, {}, [], None, None)
        return ending.told_dead(slot.id, state, state.had or []).decode()

    def _may_be(self) -> bool:
        if not self._is_on:
            metrics.count("callbacks_left_out")
            if not self._is_told:
                self._is_told = True
                log.warning("callbacks_off", hint="set url_hosts to the hosts that may be told")
        return self._is_on


class _Ending:
    """One try's end, and the callbacks for what ends with it."""

    def __init__(
        self, job: Job, known: _Known, delivered: list[str], host: str | None, now_ms: int | None
    ) -> None:
        """`now_ms` None: nobody knows yet when it ends."""
        self._job = job
        self._known = known
        self._delivered = delivered
        self._host = host
        self._now_ms = now_ms

    def of(self, record: Record) -> Record:
        slot = record.slot
        had = [*(slot.state.had or ()), *self._delivered]
        match record:
            case Done():
                told = self._told("delivered", slot.id, slot.state.tries + 1, had)
                return Followed(record, [told])
            case Duplicate():
                told = self._told("duplicate", slot.id, slot.state.tries, self._all(slot.state))
                return Followed(record, [told])
            case Dead(_, state):
                told = self.told_dead(slot.id, state, had)
                return Followed(Dead(slot, _without_had(state)), [told])
            case Retry(_, due_in_ms, state) if had:
                return Retry(slot, due_in_ms, msgspec.structs.replace(state, had=had))
            case Split(_, parts):
                return self._of_split(record, parts, had)
        return record

    def _of_split(self, record: Split, parts: list[Part], had: list[str]) -> Record:
        told = [
            self.told_dead(f"{record.slot.id}/{number}", part.state, [])
            for number, part in enumerate(parts, 1)
            if part.fate == "dead"
        ]
        split = Split(record.slot, _had_by_one(parts, had))
        return Followed(split, told) if told else split

    def _all(self, state: JobState) -> list[str]:
        return state.rcpt or (self._job.recipients if isinstance(self._job, Email) else [])

    def told_dead(self, job_id: str, state: JobState, had: list[str]) -> bytes:
        """Return the callback for a job, or a part of one, that is dead but for who `had` it."""
        left = [one for one in self._all(state) if one not in had]
        return self._told("dead", job_id, state.tries, had, left, state.reason)

    def _told(
        self,
        what: str,
        job_id: str,
        tries: int,
        had: Sequence[str],
        dead: Sequence[str] = (),
        reason: str | None = None,
    ) -> bytes:
        job = self._job
        event: dict[str, Any] = {
            "type": f"message.{what}",
            "id": job_id,
            "label": job.label,
            "at": None if self._now_ms is None else _iso(self._now_ms),
            "tries": tries,
        }
        if isinstance(job, Email):
            word = "delivered" if what == "dead" else what
            rows = [self._row(one, word) for one in had]
            event["recipients"] = rows + [self._row(one, "dead", reason) for one in dead]
        else:
            event["type"] = f"task.{'done' if what == 'delivered' else what}"
            event |= self._row(describe(job), None, reason)
        json = {name: value for name, value in event.items() if value is not None}
        return _encode({"url": job.callback_url, "method": "POST", "json": json, "id": job_id})

    def _row(self, one: str, word: str | None, reason: str | None = None) -> dict[str, Any]:
        outcome = self._known.get(one)
        row: dict[str, Any] = {"addr": one, "outcome": word, "reply": reason}
        if word is None:
            row = {"target": one, "reply": reason}
        if outcome is not None:
            row |= {"code": outcome.code, "reply": outcome.text, "host": self._host}
        return {name: value for name, value in row.items() if value is not None}


def _iso(ms: int) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000))
    return f"{at}.{ms % 1000:03d}Z"


def _without_had(state: JobState) -> JobState:
    return msgspec.structs.replace(state, had=None) if state.had else state


def _had_by_one(parts: list[Part], had: list[str]) -> list[Part]:
    """Let one part that goes on remember who has had the mail: the first."""
    if not had:
        return parts
    found: list[Part] = []
    left: list[str] | None = had
    for part in parts:
        mine = left if part.fate != "dead" else None
        left = None if mine else left
        found.append(Part(msgspec.structs.replace(part.state, had=mine), part.fate))
    return found
