"""The gate: what all doors push goes through here, and no answer comes before Redis has it.

Many connections submit, one greenlet pushes. What is submitted while a push is under way makes the
next one, up to _FLIGHT_JOBS or _FLIGHT_BYTES, so pushes size themselves: one job when little
happens, hundreds under load. A push is one script (queue/door.py): all of it is in Redis, or none.

    ids = gate.submit([payload, …])     blocks the greenlet until they are in Redis
    Refused                             they are not, as far as anybody knows; `retry_after_s`

Promised: when `submit` returns, the queue answers for the jobs. It comes back within some 10 s
whatever Redis does, or refuses then; the next one tries anew, so doors stay open while Redis is
away. A look at the queue once a second keeps `pressure`, `depth` and `is_away` true to a second,
and writes `T:pressure`.

`room` and `rates` are what all doors share out among their clients (intake/limits.py), `guesses`
counts wrong secrets (intake/guesses.py), `unheard` takes the jobs of those who have gone
(intake/unheard.py).

Not promised: that what was refused is not there. A reply that was lost, or comes too late, leaves a
job that its client was told to send again; `dedupe_key` in the payload keeps it from going twice.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import Event

from geomail import job, log, metrics
from geomail.config import Settings
from geomail.errors import GeomailError, RedisAway, RedisUnusable
from geomail.intake import limits
from geomail.intake.guesses import Guesses
from geomail.intake.unheard import Unheard
from geomail.queue import Link, Queue
from geomail.queue.gauge import Gauge, Pressure

PATIENCE_S = 5.0  # and as long again for the answer to the last try
_FLIGHT_JOBS, _FLIGHT_BYTES = 500, 1_000_000  # one push of queue/door.py
_LOOK_S, _LOOK_TIMEOUT_S = 1.0, 3.0
_MOST_LATE_S = 6 * PATIENCE_S
_RETRY_AWAY_S, _RETRY_HIGH_S = 10.0, 30.0


class Refused(GeomailError):
    """The queue does not take jobs now; the text says why."""

    def __init__(self, why: str, retry_after_s: float = _RETRY_AWAY_S) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class _Parcel:
    """What one caller submits, and what becomes of it."""

    __slots__ = ("done", "failure", "ids", "payloads", "size")

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads
        self.size = sum(map(len, payloads))
        self.ids: list[str] = []
        self.failure: Refused | None = None
        self.done = Event()


class Gate:
    """The way into one list: the first of `settings.queues`."""

    def __init__(self, link: Link, settings: Settings) -> None:
        """Prepare it; nothing is sent before `start`.

        `link`: one with `patience_s` = PATIENCE_S, so that a submit ends.
        """
        self.queue = settings.queues[0][0]
        self.depth = 0
        self.pressure: Pressure = "ok"
        self.is_away = False
        """Whether Redis did not answer when it was last asked."""
        self.room = limits.room_of(settings)
        self.rates = limits.Rates(settings.door_rate)
        self.guesses = Guesses()
        self._high_water = settings.high_water
        self.unheard = Unheard(link.patient(), self.queue, self.room)
        self._queue = Queue(link, self.queue)
        self._gauge = Gauge(link, self.queue)
        self._waiting: deque[_Parcel] = deque()
        self._work = Event()
        self._closed = Event()
        self._pusher: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin to push, and to look at the queue once a second."""
        self._pusher = gevent.spawn(self._push_for_ever)
        self.unheard.start()
        gevent.spawn(self._look_for_ever)

    def check(self, payload: bytes) -> None:
        """Raise PayloadError, with the reason, for what admission would call dead at once."""
        job.decode(payload)

    def submit(self, payloads: Sequence[bytes]) -> list[str]:
        """Put jobs on the queue, first one first, and return their ids when they are in Redis.

        Their ends are written down for `outcome`. Best given at most 500 jobs at a time: of more,
        some may be there when Refused is raised.
        """
        if not payloads:
            return []
        if self._closed.is_set():
            raise Refused("geomail is about to end: try again")
        parcel = _Parcel(payloads)
        self._waiting.append(parcel)
        self._work.set()
        if not parcel.done.wait(_MOST_LATE_S):
            raise Refused("the queue took too long: try again")
        if parcel.failure is not None:
            raise parcel.failure
        return parcel.ids

    def outcome(self, job_id: str) -> dict[str, Any] | None:
        """Say what became of a job, as Queue.outcome does; raises Refused while Redis is away."""
        try:
            return self._queue.outcome(job_id)
        except (RedisAway, RedisUnusable) as error:
            raise Refused(str(error)) from error

    @property
    def retry_after_s(self) -> float:
        """How long a client should wait that can't be served now, in seconds."""
        return _RETRY_AWAY_S if self.is_away else _RETRY_HIGH_S

    def close(self) -> None:
        """Push what waits, then hang up; what is submitted later is refused."""
        self._closed.set()
        self._work.set()
        if self._pusher is not None:
            self._pusher.join(timeout=_MOST_LATE_S)
        self.unheard.close(PATIENCE_S)
        self._queue.close()

    # ---- pushing

    def _push_for_ever(self) -> None:
        while self._waiting or not self._closed.is_set():
            self._work.clear()
            while self._waiting:
                self._push(self._next_flight())
            if not self._closed.is_set():
                self._work.wait()

    def _next_flight(self) -> list[_Parcel]:
        """Return what goes in one push, in order."""
        flight = [self._waiting.popleft()]
        jobs, size = len(flight[0].payloads), flight[0].size
        while self._waiting:
            following = self._waiting[0]
            jobs, size = jobs + len(following.payloads), size + following.size
            if jobs > _FLIGHT_JOBS or size > _FLIGHT_BYTES:
                break
            flight.append(self._waiting.popleft())
        return flight

    def _push(self, flight: list[_Parcel]) -> None:
        payloads = [payload for parcel in flight for payload in parcel.payloads]
        try:
            ids = self._queue.submit(payloads)
        except (RedisAway, RedisUnusable) as error:
            self._refuse(flight, str(error))
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            log.error("push_broke", why=repr(error))
            self._refuse(flight, "geomail could not push this: see its log")
        else:
            self._confirm(flight, ids)

    def _confirm(self, flight: list[_Parcel], ids: list[str]) -> None:
        metrics.count("submitted", len(ids))
        self._note_away(None)
        at = 0
        for parcel in flight:
            parcel.ids = ids[at : at + len(parcel.payloads)]
            at += len(parcel.payloads)
            parcel.done.set()

    def _refuse(self, flight: list[_Parcel], why: str) -> None:
        """Refuse these and all that wait behind them: they have waited as long."""
        self._note_away(why)
        refused = [*flight, *self._waiting]
        self._waiting.clear()
        metrics.count("refused", sum(len(parcel.payloads) for parcel in refused))
        for parcel in refused:
            parcel.failure = Refused(why)
            parcel.done.set()

    # ---- looking

    def _look_for_ever(self) -> None:
        while not self._closed.wait(_LOOK_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the top of a greenlet
                log.error("look_broke", why=repr(error))
        self._gauge.close()

    def _look(self) -> None:
        try:
            seen = self._gauge.read(self._high_water, timeout_s=_LOOK_TIMEOUT_S, tries=self.is_away)
        except RedisUnusable as error:
            self._note_away(str(error))
            return
        if seen is None:
            self._note_away("Redis does not answer")
            return
        self.depth, pressure, why_full = seen
        self._note_away(why_full or None)
        if pressure != self.pressure:
            log.info("pressure", list=self.queue, is_now=pressure, jobs=self.depth)
        self.pressure = pressure

    def _note_away(self, why: str | None) -> None:
        if why is not None and not self.is_away:
            log.warning("door_refuses", list=self.queue, why=why)
        elif why is None and self.is_away:
            log.info("door_takes_again", list=self.queue)
        self.is_away = why is not None
