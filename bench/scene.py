"""Who takes part in a run of the chaos bench: a Redis, a host, a producer, workers.

The host is geomail's sink in a process of its own, and records when which mail came; the producer a
thread, which knows what Redis has acknowledged. All are ended with the scene, and whoever was
stopped is continued first.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import stand
import redis
from cutter import Cutter
from redis.backoff import NoBackoff
from redis.retry import Retry

import geomail
from geomail.demo.processes import Worker
from geomail.queue import embedded

_START_S = 30.0
_TICK_S = 0.002


class Host:
    """geomail's sink in a process of its own, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = stand.free_port()
        self.start()

    def start(self) -> None:
        """Listen."""
        environ = {key: value for key, value in os.environ.items() if "GEOMAIL_" not in key}
        environ["PYTHONPATH"] = str(Path(geomail.__file__).parent.parent)
        command = [sys.executable, "-m", "geomail", "sink", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--record", str(self._folder / "arrived")]
        with (self._folder / "host.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environ, stdout=subprocess.PIPE, stderr=log
            )
        stand.pin(self._process.pid, stand.OTHERS_CORE)
        assert self._process.stdout
        if not self._process.stdout.readline():
            raise SystemExit(f"the sink does not start: {self._folder / 'host.log'}")
        # What it says later is nobody's business, but the pipe must not run full.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End in order: everything that was taken is on record."""
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        self._process.wait(20)

    def arrivals(self) -> Iterator[tuple[float, int]]:
        """Return time and number of each mail taken until now."""
        for line in (self._folder / "arrived").read_text().splitlines():
            at_s, _, recipient = line.split(" ")
            yield float(at_s), number_of(recipient)


class Producer(threading.Thread):
    """Pushes mails at an even rate, as a program that doesn't repeat what was not answered."""

    def __init__(self, port: int, rate: int) -> None:
        super().__init__(name="producer", daemon=True)
        self._rate = rate
        self._redis: Any = redis.Redis(
            port=port, client_name="producer", socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        self._ended = threading.Event()
        self.pushed_s: dict[int, float] = {}

    def run(self) -> None:
        """Push until `stop`; what could not be pushed for a while comes at once then."""
        body, began_s, number = stand.text_of(1024), time.monotonic(), 0
        while not self._ended.wait(_TICK_S):
            due = int((time.monotonic() - began_s) * self._rate)
            numbers = range(number, min(due, number + 500))
            if numbers:
                self._push(numbers, body)
            number = numbers.stop

    def stop(self) -> None:
        """Let it end."""
        self._ended.set()
        self.join()

    def _push(self, numbers: range, body: str) -> None:
        now_s = time.time()
        try:
            self._redis.lpush("queue:email", *(stand.mail(number, body) for number in numbers))
        except redis.RedisError:
            return
        self.pushed_s.update(dict.fromkeys(numbers, now_s))


class Scene:
    """One fault's Redis, host, producer and workers."""

    def __init__(self, args: Namespace, folder: Path, stack: ExitStack) -> None:
        self.args = args
        self.folder = folder
        self.server = embedded.start_private(folder / "redis")
        stack.callback(lambda: self.server.kill())
        stand.pin(self.server.pid, stand.OTHERS_CORE)
        self.host = Host(folder)
        stack.callback(self.host.stop)
        self.producer = Producer(self.server.port, args.rate)
        self.redis: Any = redis.Redis(port=self.server.port)
        self.redis_port, self.host_port = self.server.port, self.host.port
        self.cutter: Cutter | None = None
        self.crew: list[Worker] = []
        stack.callback(self.dismiss)

    def hire(self, *flags: str, name: str = "worker", journal: bool = True) -> Worker:
        """Start a worker, or start it again: its data folder is named after it."""
        lease_s = self.args.lease
        config = f"lease_s = {lease_s}\nbeat_s = {min(5.0, lease_s / 6)}\n"
        config += f"retry_base_s = 1\nretry_cap_s = 10\njournal = {str(journal).lower()}\n"
        flags += ("--redis", f"redis://127.0.0.1:{self.redis_port}", "--from", stand.SENDER)
        flags += ("--relay", f"smtp://127.0.0.1:{self.host_port}")
        worker = Worker(self.folder / name, flags, config=config)
        stand.pin(worker.pid, stand.WORKERS_CORE)
        self.crew.append(worker)
        return worker

    def log_of(self, name: str = "worker") -> str:
        """Return what the worker of that name has said since its start."""
        return (self.folder / name / "worker.log").read_text(errors="replace")

    def wait_until_running(self, workers: int = 1, *, name: str = "worker") -> None:
        """Wait until the worker of that name, or all of its, have begun to work."""
        wait_for(lambda: self.log_of(name).count(" running ") >= workers, f"{name} to run")

    def kill(self, worker: Worker) -> float:
        """End a worker as a crash would, wait until it is gone, and return when it was killed."""
        self.crew.remove(worker)
        if not worker.is_running():
            raise SystemExit(f"a worker has ended by itself: {worker.last_words()}")
        os.kill(worker.pid, signal.SIGKILL)
        killed_s = time.time()
        wait_for(lambda: not worker.is_running(), "a killed worker to be gone")
        return killed_s

    def dismiss(self) -> None:
        """End the workers in order, and the proxy."""
        for worker in self.crew:
            if worker.is_running():
                os.kill(worker.pid, signal.SIGCONT)
            worker.drain()
        self.crew.clear()
        if self.cutter:
            self.cutter.stop()
            self.cutter = None


def number_of(address: str) -> int:
    """Return which mail went to this recipient."""
    return int(address.partition("+")[2].partition("@")[0])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()` holds, or end the bench."""
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {_START_S:.0f} s for {what}")
        time.sleep(0.01)
