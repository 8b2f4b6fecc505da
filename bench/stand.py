"""The test stand of the benches: what the machine is, who runs on which core, a worker watched.

With two cores or more the worker has one for itself; Redis, the sink and this script share another.
A worker is watched through Redis, a look every 20 ms. What is timed lies between two looks: the
first at which it has taken something, and the first at which all that can be settled is settled.
Rate and CPU time are those of the mails settled in between; Python's start is not in it.
"""

import functools
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import gevent
import redis

from geomail import __version__
from geomail.demo.processes import Worker
from geomail.queue import Link, Queue, embedded

CORES = sorted(os.sched_getaffinity(0))
WORKERS_CORE, OTHERS_CORE = CORES[-1], CORES[0]
SENDER = "bench@example.com"

_LOOK_S = 0.02
_PATIENCE_S = 60.0
_PUSH_AT_ONCE = 500
_LINE = "It was the best of times, it was the worst of times.\n"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run showed: mails settled a second, CPU time of the worker a mail in µs."""

    rate: float
    cpu_us: float


def introduce(**parameters: object) -> None:
    """Print machine, versions and parameters, before anything is measured."""
    load = os.getloadavg()[0]
    print(f"machine     {platform.machine()}, {_processor()}, {len(CORES)} cores, {_memory()}")
    print(f"system      {platform.platform()}")
    ours = f"geomail {__version__}, Python {platform.python_version()}"
    theirs = f"gevent {gevent.__version__}, redis-py {redis.__version__}"
    print(f"versions    {ours}, {theirs}, {_redis_version()}, {_postfix()}")
    told = ", ".join(f"{name} {value}" for name, value in parameters.items())
    print(f"parameters  {told}")
    shared = WORKERS_CORE == OTHERS_CORE
    where = "one core for all" if shared else f"worker on core {WORKERS_CORE}, all else on"
    print(f"cores       {where}{'' if shared else f' core {OTHERS_CORE}'}")
    quiet = "" if load < 0.5 else "  (not a quiet machine: these figures are no figures)"
    print(f"load        {load:.2f}{quiet}\n", flush=True)


def pin(pid: int, core: int) -> None:
    """Keep a process, and what it starts from now on, on one core."""
    os.sched_setaffinity(pid, {core})


@contextmanager
def fresh_queue() -> Iterator[tuple[Queue, str, Path]]:
    """Give the queue of a Redis of its own (append-only), its URL, and a folder; then end it."""
    with (
        tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder,
        embedded.start_private(Path(folder) / "redis") as server,
    ):
        pin(server.pid, OTHERS_CORE)
        queue = Queue(Link(server.url))
        yield queue, server.url, Path(folder)
        queue.close()


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Run Postfix's smtp-sink on a free loopback port, and give the port."""
    port = free_port()
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    command = [need("smtp-sink"), *user, f"127.0.0.1:{port}", "1024"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        pin(process.pid, OTHERS_CORE)
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


@contextmanager
def worker(folder: Path, flags: Sequence[str], *, config: str = "") -> Iterator[Worker]:
    """Run a worker on its own core."""
    flags = [*flags, "--from", SENDER]
    with Worker(folder / "worker", flags, config=config) as process:
        pin(process.pid, WORKERS_CORE)
        yield process


def push(queue: Queue, count: int, *, size: int, relays: Sequence[str] = ("",)) -> None:
    """Push `count` mails with bodies of `size` bytes to each of `relays`, by turns."""
    body = text_of(size)
    for first in range(0, count, _PUSH_AT_ONCE):
        numbers = range(first, min(count, first + _PUSH_AT_ONCE))
        queue.push([mail(number, body, relay) for number in numbers for relay in relays])


def mail(number: int, body: str, relay: str = "") -> bytes:
    """Return the payload of a mail."""
    to = {f"demo+{number}@example.com": "Ada Lovelace"}
    fields = {"to": to, "subject": f"Your order {number}", "body": body}
    return json.dumps(fields | ({"relay": relay} if relay else {})).encode()


def text_of(size: int) -> str:
    """Return a text of `size` bytes in short lines."""
    return (_LINE * (size // len(_LINE) + 1))[: size - 1] + "\n"


def watch(queue: Queue, process: Worker, count: int) -> Run:
    """Wait until `count` mails are delivered, and return how it went.

    To be called while the worker is still starting: the first look is to be before its first take.
    """
    before = began = _look(queue, process)
    while began.taken == before.taken:
        time.sleep(_LOOK_S)
        began = _look(queue, process)
    ended, moved_s = began, began.at_s
    while ended.delivered < before.delivered + count:
        time.sleep(_LOOK_S)
        last, ended = ended, _look(queue, process)
        moved_s = ended.at_s if ended.delivered > last.delivered else moved_s
        if ended.at_s > moved_s + _PATIENCE_S:
            missing = before.delivered + count - ended.delivered
            raise SystemExit(f"stuck, {missing:,} are missing: {process.last_words()}")
    mails = ended.delivered - began.delivered
    return Run(
        rate=mails / (ended.at_s - began.at_s), cpu_us=(ended.cpu_s - began.cpu_s) / mails * 1e6
    )


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    cpu_s: float
    taken: int
    delivered: int


def _look(queue: Queue, process: Worker) -> _Look:
    stats = queue.counts().stats
    cpu_s = process.cpu_s()
    if cpu_s is None or not process.is_running():
        raise SystemExit(f"the worker has ended: {process.last_words()}")
    return _Look(time.monotonic(), cpu_s, stats.get("taken", 0), stats.get("delivered", 0))


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def need(program: str) -> str:
    """Return the path of one of Postfix's programs, or end with what to install."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/lib/postfix/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise SystemExit(f"{program} is not installed: apt install postfix")
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    raise SystemExit("smtp-sink does not listen")


def _said(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _redis_version() -> str:
    words = _said(embedded.find_binary(), "--version").split()
    return " ".join(["Redis", *(word[2:] for word in words if word.startswith("v="))])


@functools.cache
def _postfix() -> str:
    version = _said("postconf", "-h", "mail_version") or _said(
        "/usr/sbin/postconf", "-h", "mail_version"
    )
    return f"Postfix {version or '-'}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
