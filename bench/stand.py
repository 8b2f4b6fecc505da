"""The test stand of the benches: what the machine is, who runs on which core, a worker watched.

With two cores or more the worker has one for itself; Redis, the sink and this script share another.
A worker is watched through Redis, a look every 20 ms. What is timed lies between two looks: the
first at which it has taken something, and the first at which all that can be settled is settled.
Rate and CPU time are those of the mails settled in between; Python's start is not in it. Where the
first round trips of a connection would count too, the looks lie in the middle of the work instead.
"""

import ground  # noqa: F401, I001 - says what is missing

import argparse
import base64
import functools
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
    """What one run showed: mails settled a second, CPU time of the worker a mail in µs.

    `system_us`: the kernel's part of that, where it was looked at.
    """

    rate: float
    cpu_us: float
    system_us: float = 0.0


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command line whose --help is the head of the bench's file."""
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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


def on_core(core: int) -> Callable[[], None]:
    """Return what a child calls before it begins, to be on one core with all of its threads."""
    return lambda: os.sched_setaffinity(0, {core})


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used so far, to a hundredth of a second."""
    return sum(_times_s(pid))


def family_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of those it has started, and they, while they live."""
    return sum(_family_times_s(pid))


def _family_times_s(pid: int) -> tuple[float, float]:
    user_s, system_s = _times_s(pid)
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            with suppress(OSError):
                childs = _family_times_s(int(child))
                user_s, system_s = user_s + childs[0], system_s + childs[1]
    return user_s, system_s


def _times_s(pid: int) -> tuple[float, float]:
    # The name, which may hold anything, ends with the last parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    a_tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return int(fields[11]) * a_tick_s, int(fields[12]) * a_tick_s


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
def smtp_sink(*flags: str, stdout: IO[bytes] | None = None) -> Iterator[int]:
    """Run Postfix's smtp-sink with `flags` on a free loopback port, and give the port."""
    port = free_port()
    user = ["-u", "postfix"] if os.geteuid() == 0 else []
    # It takes 256 connections at a time unless told otherwise.
    command = [need("smtp-sink"), *user, "-m", "20000", *flags, f"127.0.0.1:{port}", "1024"]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL) as process:
        pin(process.pid, OTHERS_CORE)
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def smtp_source(
    port: int, *, count: int, size: int, concurrency: int, core: int = WORKERS_CORE
) -> float:
    """Send `count` mails by Postfix's smtp-source, and return how many a second, start included."""
    command = [need("smtp-source"), "-d", "-s", str(concurrency), "-l", str(size)]
    command += ["-m", str(count), "-f", SENDER, "-t", "demo@example.com", f"127.0.0.1:{port}"]
    began = time.monotonic()
    with subprocess.Popen(command) as process:
        pin(process.pid, core)
    if process.returncode:
        raise SystemExit(f"smtp-source failed: status {process.returncode}")
    return count / (time.monotonic() - began)


@contextmanager
def worker(
    folder: Path,
    flags: Sequence[str],
    *,
    config: str = "",
    home: Path | None = None,
    cores: Sequence[int] = (WORKERS_CORE,),
) -> Iterator[Worker]:
    """Run a worker on its own core, or on `cores`; `home`: where another revision's package is."""
    flags = [*flags, "--from", SENDER]
    with Worker(folder / "worker", flags, config=config, home=home) as process:
        os.sched_setaffinity(process.pid, cores)
        yield process


@dataclass(frozen=True, slots=True)
class Door:
    """A process that listens, and where."""

    pid: int
    port: int


@contextmanager
def door(folder: Path, flag: str, url: str, *more: str) -> Iterator[Door]:
    """Run `geomail listen` with the door of this flag, on its own core; `url` is that of Redis."""
    port = free_port()
    flags = [flag, f"127.0.0.1:{port}", "--redis", url, "--data", str(folder), *more]
    command = [sys.executable, "-m", "geomail", "listen", *flags]
    with (folder / "door.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        pin(process.pid, WORKERS_CORE)
        try:
            _wait_for(port)
            yield Door(process.pid, port)
        finally:
            process.terminate()


def push(
    queue: Queue, count: int, *, size: int, relays: Sequence[str] = ("",), kind: str = "text"
) -> None:
    """Push `count` mails with bodies of `size` bytes to each of `relays`, by turns."""
    make = KINDS[kind]
    body = text_of(size)
    for first in range(0, count, _PUSH_AT_ONCE):
        numbers = range(first, min(count, first + _PUSH_AT_ONCE))
        queue.push([make(number, body, relay) for number in numbers for relay in relays])


def mail(number: int, body: str, relay: str = "", *, domain: str = "example.com") -> bytes:
    """Return the payload of a mail."""
    to = {f"demo+{number}@{domain}": "Ada Lovelace"}
    fields = {"to": to, "subject": f"Your order {number}", "body": body}
    return json.dumps(fields | ({"relay": relay} if relay else {})).encode()


def distinct(number: int, body: str, relay: str = "") -> bytes:
    """Return the payload of a mail whose text no other mail has."""
    begin = f"Order {number}.\n"
    return mail(number, begin + body[len(begin) :], relay)


def both(number: int, body: str, relay: str = "") -> bytes:
    """Return the payload of a mail with text and html, half of `body` each, and non-ASCII."""
    half = body[: len(body) // 2]
    to = {"email": f"demo+{number}@example.com", "name": "Jörg Müller"}
    fields: dict[str, object] = {"to": [to]}
    fields |= {"subject": f"Ihre Bestellung {number}: schöne Grüße", "text": half + "Grüße\n"}
    fields |= {"html": f"<p>{half}</p>\n<p>Grüße</p>\n"}
    return json.dumps(fields | ({"relay": relay} if relay else {}), ensure_ascii=False).encode()


def attached(number: int, body: str, relay: str = "") -> bytes:
    """Return the payload of a mail with a short text, and `body` attached in base64."""
    fields: dict[str, object] = {"to": f"demo+{number}@example.com", "text": "See there.\n"}
    fields |= {"subject": f"Your order {number}"}
    content = base64.b64encode(body.encode()).decode()
    fields |= {"attachments": [{"filename": "order.pdf", "content": content}]}
    return json.dumps(fields | ({"relay": relay} if relay else {})).encode()


KINDS = {"text": mail, "distinct": distinct, "both": both, "attachment": attached}


def message(size: int) -> bytes:
    """Return a finished message like ours with a body of `size` bytes, for those who only send."""
    head = (
        f"From: {SENDER}\nTo: Ada Lovelace <demo@example.com>\nSubject: Your order 4711\n"
        "Date: Thu, 01 Jan 2026 12:00:00 +0000\nMessage-ID: <4711.0123456789ab.1@example.com>\n"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
        "Content-Transfer-Encoding: 7bit\n\n"
    )
    return (head + text_of(size)).replace("\n", "\r\n").encode()


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
    return _run_between(began, ended)


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    user_s: float
    system_s: float
    taken: int
    delivered: int
    waiting: int


def watch_midway(queue: Queue, process: Worker, *, warm_s: float, timed_s: float) -> Run:
    """Return what went on in `timed_s`, which begin `warm_s` after the first mail was delivered.

    More mails have to wait than can be delivered meanwhile: a list that runs empty is an error.
    """
    first = began = _look(queue, process)
    while began.delivered == first.delivered:
        time.sleep(_LOOK_S)
        began = _look(queue, process)
        if began.at_s > first.at_s + _PATIENCE_S:
            raise SystemExit(f"nothing is delivered: {process.last_words()}")
    time.sleep(warm_s)
    began = _look(queue, process)
    time.sleep(timed_s)
    ended = _look(queue, process)
    if not ended.waiting:
        raise SystemExit("the list ran empty before the time was over: too few were pushed")
    return _run_between(began, ended)


def _run_between(began: _Look, ended: _Look) -> Run:
    mails = max(1, ended.delivered - began.delivered)
    system_us = (ended.system_s - began.system_s) / mails * 1e6
    user_us = (ended.user_s - began.user_s) / mails * 1e6
    return Run(mails / (ended.at_s - began.at_s), user_us + system_us, system_us)


def _look(queue: Queue, process: Worker) -> _Look:
    counts = queue.counts()
    if not process.is_running():
        raise SystemExit(f"the worker has ended: {process.last_words()}")
    # With `--processes` the workers are its children.
    user_s, system_s = _family_times_s(process.pid)
    taken, delivered = counts.stats.get("taken", 0), counts.stats.get("delivered", 0)
    waiting = counts.list + counts.arrive
    return _Look(time.monotonic(), user_s, system_s, taken, delivered, waiting)


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
    raise SystemExit(f"nobody listens on port {port}")


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
