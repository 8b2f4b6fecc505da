"""A worker in the test's own process, with everything of it at hand; Redis and hosts are real.

Signals are given by `tell` and `hang_up`, for the process's own are pytest's. Whatever a test
leaves behind ends with it.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Self

import gevent
import redis

from geomail import config
from geomail.config import Settings
from geomail.delivery.lane import Lane
from geomail.queue import Counts, Link, Queue, embedded
from geomail.queue.link import Connection
from geomail.sink import Sink
from geomail.worker.life import Worker

QUICK = {
    "lease_s": "0.6",
    "beat_s": "0.1",
    "retry_base_s": "0.1",
    "retry_cap_s": "1",
    "backoff_base_s": "0.05",
    "backoff_cap_s": "0.2",
    "connect_s": "2",
    "greeting_s": "2",
    "command_s": "2",
    "quit_s": "0.5",
    "grace_s": "5",
    "from": "news@example.com",
}
"""Settings with which a life takes a second."""


def until(is_so: Callable[[], object], what: str = "", *, within_s: float = 5.0) -> None:
    """Wait until `is_so()`; fail when it is not within `within_s`."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or is_so}"
        gevent.sleep(0.005)


def url(sink: Sink) -> str:
    """Return the relay URL of a sink."""
    return f"smtp://127.0.0.1:{sink.address[1]}"


def mail(name: object, **more: object) -> bytes:
    """Return a payload whose one recipient says which it is."""
    return json.dumps(
        {"to": [f"u{name}@example.org"], "text": "t", "id": f"n{name}", **more}
    ).encode()


def mails(count: int) -> list[bytes]:
    """Return payloads numbered from 0."""
    return [mail(number) for number in range(count)]


class Hired(Worker):
    """A worker that `start` sets to work, and `dismiss` ends wherever it is."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis is not None
        link = Link(settings.redis)
        self.queues = [
            Queue(link, name, lease_s=settings.lease_s, beat_s=settings.beat_s)
            for name, _ in settings.queues
        ]
        super().__init__(settings, link, self.queues)
        self._life: gevent.Greenlet[..., int] = gevent.Greenlet(self.run)
        self._greenlets: list[gevent.Greenlet[..., Any]] = [self._life]
        self._beginning: gevent.Greenlet[..., None] | None = None

    @property
    def lane(self) -> Lane:
        """Return the first lane."""
        return self.lanes.lanes[0]

    def start(self) -> Self:
        """Begin, and return when it is running."""
        self._life.start()
        until(lambda: self._is_running or self._life.ready(), "a worker that runs")
        return self

    def begin(self) -> Self:
        """Begin, without waiting for Redis."""
        self._life.start()
        gevent.sleep(0.05)
        return self

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Do what a signal would do."""
        self._on_stop(number)

    def hang_up(self) -> None:
        """Do what SIGHUP would do."""
        self._on_hangup()

    @property
    def has_left(self) -> bool:
        """True when its life is over."""
        return self._life.ready()

    def wait(self, within_s: float = 5.0) -> int:
        """Return the exit status; fail when it has not left within `within_s`."""
        self._life.join(within_s)
        assert self._life.ready(), f"still there after {within_s} s"
        return self._life.get()

    def dismiss(self) -> None:
        """End all of its greenlets, none of them in the midst of a word with Redis."""
        self.lanes.is_draining = self.popper.is_draining = True
        for lane in self.lanes.lanes:
            lane.ready.clear()
        if self._beginning is not None:
            self._beginning.join(2)
        lines = [line for queue in self.queues for line in vars(queue).values()]
        turns = [line._turn for line in lines if isinstance(line, Connection)]
        for turn in turns:
            until(partial(self._has, turn), "a connection with no word under way")
        gevent.killall([*self._greenlets, *self.popper._waits.values(), self.lanes._watchdog])
        self.lanes.staffing._pool.kill(timeout=1)
        for turn in turns:
            turn.release()
        for queue in self.queues:
            queue.close()

    def _has(self, turn: Lock) -> bool:
        for queue in self.queues:
            queue.wake()  # it may have begun to wait only now
        return turn.acquire(timeout=0.1)

    def _listen_to_signals(self) -> None:
        pass

    def _start(self, name: str, work: Callable[[], None]) -> "gevent.Greenlet[..., None]":
        started = super()._start(name, work)
        if name == "start":
            self._beginning = started
        self._greenlets.append(started)
        return started

    def _put_back(self, deadline: float) -> None:
        current = gevent.getcurrent()
        assert isinstance(current, gevent.Greenlet)
        self._greenlets.append(current)
        super()._put_back(deadline)


class Place:
    """A Redis, its queue as a person sees it, and the workers that a test hires."""

    def __init__(self, server: embedded.Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.desk = Queue(Link(server.url))
        self.redis: Any = redis.Redis(port=server.port)
        self._hired: list[Hired] = []
        self._victims: list[Queue] = []

    def settings(
        self, *relays: Sink | str, file: Path | None = None, queue: object = None, **more: object
    ) -> Settings:
        """Return quick settings with these relays, changed by `more`."""
        flags: dict[str, object] = {"--queue": queue or None, "--config": file and str(file)}
        flags["--relay"] = [url(relay) if isinstance(relay, Sink) else relay for relay in relays]
        given = {"redis": self.server.url, "data": self.folder, **QUICK, **more}
        environ = {f"GEOMAIL_{name.upper()}": str(value) for name, value in given.items()}
        return config.load(flags, environ, places=())

    def hire(self, *relays: Sink | str, **more: Any) -> Hired:
        """Return a worker that is not at work yet."""
        self._hired.append(Hired(self.settings(*relays, **more)))
        return self._hired[-1]

    def worker(self, *relays: Sink | str, **more: Any) -> Hired:
        """Return a worker at work."""
        return self.hire(*relays, **more).start()

    def push(self, *payloads: bytes) -> None:
        """Put payloads on the list, as producers do."""
        self.desk.push(payloads)

    def make_suspect(self, payload: bytes) -> None:
        """Let two workers die with a job in hand."""
        self.almost_suspect(payload)()

    def almost_suspect(self, payload: bytes) -> Callable[[], None]:
        """Let one worker die with a job in hand, and return the death of the second."""
        self.desk.register()
        self.push(payload)
        first, second = self._victim(), self._victim()
        assert len(first.take(1).slots) == 1
        self.desk.reap([first.worker])
        assert len(second.take(1).slots) == 1

        def die() -> None:
            self.desk.reap([second.worker])
            self.desk.leave()
            assert self.counts().suspects == 1

        return die

    def _victim(self) -> Queue:
        victim = Queue(Link(self.server.url))
        victim.register()
        self._victims.append(victim)
        return victim

    def counts(self) -> Counts:
        """Return where all jobs are."""
        return self.desk.counts()

    def held(self) -> int:
        """Return how many jobs Redis holds in any state."""
        now = self.counts()
        return now.waiting + now.delayed + now.dead + sum(now.parked.values()) + now.in_flight

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have a Redis that keeps its connections and answers nothing."""
        pid = self.redis.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Have a Redis that refuses every write, as the replica of nobody."""
        self.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.redis.execute_command("REPLICAOF", "NO", "ONE")

    def close(self) -> None:
        """Dismiss everybody."""
        for worker in self._hired:
            worker.dismiss()
        for queue in (self.desk, *self._victims):
            queue.close()
        self.redis.close()
