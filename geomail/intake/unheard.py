"""Jobs whose clients have gone: nobody would hear a refusal, so they are kept until Redis has them.

One greenlet pushes, some hundreds at a time, over a connection that repeats the same request until
it is answered: queue/door.py counts requests, so however often Redis was away, a job is there once.
What waits holds a share of the room that all doors have; where that is used up, who brings more has
to wait.

Promised: a job is lost only with the process: `close` waits a moment for Redis, and says how many
are left. Not promised: an order.
"""

from collections import deque
from collections.abc import Sequence

import gevent
from gevent.event import Event

from geomail import log, metrics
from geomail.errors import RedisUnusable
from geomail.intake.limits import Room, Share
from geomail.queue import Link, Queue

_FLIGHT_JOBS, _FLIGHT_BYTES = 500, 1_000_000  # one push of queue/door.py
_OVERHEAD = 500  # bytes that a job takes beside its own
_ROOM_S = 1.0
_AGAIN_S = 1.0
_Load = tuple[Sequence[bytes], Share]


class Unheard:
    """What waits to be pushed into one list."""

    def __init__(self, link: Link, name: str, room: Room) -> None:
        """Prepare it; `link` must be one that never gives up."""
        self._queue = Queue(link, name)
        self._room = room
        self._waiting: deque[_Load] = deque()
        self._work = Event()
        self._closed = Event()
        self._pushing: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin to push."""
        self._pushing = gevent.spawn(self._push_for_ever)

    def take(self, payloads: Sequence[bytes]) -> None:
        """Keep jobs until they are in Redis; returns at once, or when there is room for them."""
        share = self._room.share()
        size = sum(map(len, payloads)) + _OVERHEAD * len(payloads)
        while not share.hold(min(size, self._room.limit), patience_s=_ROOM_S):
            if self._closed.is_set():
                log.error("jobs_lost", jobs=len(payloads), why="geomail leaves, Redis is away")
                return
        self._waiting.append((payloads, share))
        self._work.set()

    def close(self, patience_s: float) -> None:
        """Wait until Redis has everything, at most so long, and say what it has not."""
        self._closed.set()
        self._work.set()
        if self._pushing is not None:
            self._pushing.join(timeout=patience_s)
        left = sum(len(payloads) for payloads, _ in self._waiting)
        if left:
            log.error("jobs_lost", jobs=left, why="geomail leaves, and Redis does not answer")
        else:
            self._queue.close()

    def _push_for_ever(self) -> None:
        while self._waiting or not self._closed.is_set():
            self._work.clear()
            while self._waiting:
                if not self._push(self._flight()) and self._closed.wait(_AGAIN_S):
                    return
            if not self._closed.is_set():
                self._work.wait()

    def _flight(self) -> list[_Load]:
        flight: list[_Load] = []
        jobs = size = 0
        for payloads, share in self._waiting:
            jobs, size = jobs + len(payloads), size + share.bytes
            if flight and (jobs > _FLIGHT_JOBS or size > _FLIGHT_BYTES):
                break
            flight.append((payloads, share))
        return flight

    def _push(self, flight: list[_Load]) -> bool:
        jobs = [payload for payloads, _ in flight for payload in payloads]
        try:
            self._queue.submit(jobs, told=False)
        except RedisUnusable as error:
            log.error("jobs_wait", jobs=len(jobs), why=error)
            return False
        metrics.count("submitted", len(jobs))
        for _ in flight:
            _, share = self._waiting.popleft()
            share.hold(0)
        return True
