"""The stage of a scenario: a Redis, hosts and workers as processes of their own, and what they did.

Everything that is started here is ended here, by its pid. Waits are for a condition, with a
deadline; what a worker said on standard error is shown when a wait fails.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis

from geomail.queue import Counts, DeadLetter, Link, Queue, embedded
from scenarios.sink_process import Mail, Orders

HERE = Path(__file__).parent
DEADLINE_S = 20.0
QUICK: Mapping[str, object] = {
    "lease_s": 2,
    "beat_s": 0.4,
    "retry_base_s": 0.1,
    "retry_cap_s": 1,
    "backoff_base_s": 0.1,
    "backoff_cap_s": 0.5,
    "connect_s": 2,
    "greeting_s": 2,
    "command_s": 2,
    "quit_s": 1,
    "from": "news@example.com",
}
"""Settings with which a scenario takes seconds."""


def until(condition: Callable[[], object], what: str = "", *, within_s: float = DEADLINE_S) -> None:
    """Wait until `condition()` holds; fail when it does not within `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or condition}"
        time.sleep(0.01)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mail(number: int | str, **more: object) -> dict[str, Any]:
    """Return a job whose recipient says which one it is."""
    fields: dict[str, Any] = {
        "to": [f"u{number}@example.org"],
        "subject": f"mail {number}",
        "text": f"This is mail {number}.\n",
        "id": f"n{number}",
    }
    return fields | more


def php(value: object) -> bytes:
    """Return what PHP's serialize() makes of strings, whole numbers, lists and maps."""
    if isinstance(value, dict):
        items = b"".join(php(key) + php(item) for key, item in value.items())
        return b"a:%d:{%s}" % (len(value), items)
    if isinstance(value, list | tuple):
        return php(dict(enumerate(value)))
    if isinstance(value, int):
        return b"i:%d;" % value
    text = value if isinstance(value, bytes) else str(value).encode()
    return b's:%d:"%s";' % (len(text), text)


class Process:
    """A program that a scenario runs; its output goes to files."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, env: Mapping[str, str], name: str
    ) -> None:
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=err)
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """Return what it has printed so far."""
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        """Return what it has complained about so far."""
        return self._err.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        """True while it lives."""
        return self._process.poll() is None

    def says(self, text: str, *, within_s: float = DEADLINE_S) -> None:
        """Wait until it has said `text` on standard error."""
        until(
            lambda: text in self.stderr or not self.is_running,
            f"{text!r} in {self.stderr[-3000:]!r}",
            within_s=within_s,
        )
        assert text in self.stderr, self.stderr

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """Wait for its end and return its exit status."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {within_s} s: {self.stderr[-3000:]}") from None

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        if self.is_running:
            self._process.kill()
        self._process.wait(DEADLINE_S)


class Host(Process):
    """An SMTP host, and the mails that it has taken."""

    def __init__(self, orders: Orders, *, folder: Path, name: str) -> None:
        command = [
            sys.executable,
            str(HERE / "sink_process.py"),
            msgspec.json.encode(orders).decode(),
        ]
        super().__init__(command, folder=folder, env=os.environ, name=name)
        until(lambda: self.stdout.endswith("\n") or not self.is_running, "a host that listens")
        assert self.is_running, self.stderr
        self.port = int(self.stdout)
        self.mails: list[Mail] = []
        self._record, self._read = Path(orders.record), 0
        self._decoder = msgspec.json.Decoder(Mail)

    @property
    def url(self) -> str:
        """Return the relay URL of this host, in clear."""
        return f"smtp://127.0.0.1:{self.port}"

    def look(self) -> list[Mail]:
        """Return all mails taken until now."""
        if self._record.exists():
            with self._record.open("rb") as file:
                file.seek(self._read)
                block = file.read()
            whole = block[: block.rfind(b"\n") + 1]
            self._read += len(whole)
            self.mails += map(self._decoder.decode, whole.splitlines())
        return self.mails

    def arrivals(self) -> Counter[str]:
        """Return how often each recipient was sent something."""
        return Counter(recipient for mail in self.look() for recipient in mail.to)

    def has_taken(self, number: int, *, within_s: float = DEADLINE_S) -> None:
        """Wait until it has taken so many mails."""
        until(
            lambda: len(self.look()) >= number,
            f"{number} mails at the host",
            within_s=within_s,
        )


Started = TypeVar("Started", bound=Process)


class Stage:
    """One scenario's Redis and processes, all in one folder."""

    def __init__(self, folder: Path, server: embedded.Server) -> None:
        self.folder = folder
        self.server = server
        self.processes: list[Process] = []
        self.queue = Queue(Link(server.url))
        self.redis: Any = redis.Redis(port=server.port)

    def close(self) -> None:
        """End everything that this scenario has started."""
        for process in self.processes:
            if process.is_running:
                process.kill()
        for process in self.processes:
            if not isinstance(process, Host):
                said = f"{process.stdout[-500:]}{process.stderr[-4000:]}"
                sys.stdout.write(f"--- {process.pid}\n{said}")
        self.queue.close()
        self.redis.close()
        self.server.kill()

    def restart_redis(self) -> None:
        """Start Redis again, with the same files on the same port."""
        self.server = embedded.start_private(self.server.folder, port=self.server.port)

    def host(self, **orders: Any) -> Host:
        """Start a host that does what `orders` say."""
        name = f"host{len(self.processes)}"
        orders.setdefault("record", str(self.folder / f"{name}.mails"))
        return self._add(Host(Orders(**orders), folder=self.folder, name=name))

    def worker(self, *flags: str, relay: Host | str | None = None, **settings: object) -> Process:
        """Start `geomail run` with `flags`, and quick settings changed by `settings`."""
        if relay is not None:
            flags = ("--relay", relay.url if isinstance(relay, Host) else relay, *flags)
        return self.geomail("run", *flags, **settings)

    def burst(self, *flags: str, relay: Host | str | None = None, **settings: object) -> str:
        """Run a burst that has to end with 0, and return its last line."""
        worker = self.worker("--burst", *flags, relay=relay, **settings)
        assert worker.wait(60) == 0, worker.stderr
        return worker.stdout.splitlines()[-1]

    def geomail(self, *words: str, **settings: object) -> Process:
        """Start any command of geomail."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
        given = {"redis": self.server.url, "data": self.folder / "data", **QUICK, **settings}
        env |= {f"GEOMAIL_{name.upper()}": str(value) for name, value in given.items()}
        name = f"geomail{len(self.processes)}"
        command = [sys.executable, "-m", "geomail", *words]
        return self._add(Process(command, folder=self.folder, env=env, name=name))

    def ask(self, *words: str, status: int = 0, **settings: object) -> str:
        """Run a command of geomail to its end and return what it printed."""
        process = self.geomail(*words, **settings)
        assert process.wait() == status, process.stderr
        return process.stdout

    def refusal(self, *words: str, status: int = 1, **settings: object) -> str:
        """Run a command of geomail that has to fail, and return the one line that it says."""
        process = self.geomail(*words, **settings)
        assert process.wait() == status, process.stderr
        assert process.stderr.count("\n") == 1, process.stderr
        return process.stderr

    def push(self, jobs: Iterable[object]) -> int:
        """LPUSH jobs as producers do, maps as JSON; return how many."""
        payloads = [j if isinstance(j, bytes) else json.dumps(j).encode() for j in jobs]
        with self.redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(payloads), 500):
                pipe.lpush("queue:email", *payloads[start : start + 500])
            pipe.execute()
        return len(payloads)

    # ---- what can be seen in Redis

    def counts(self) -> Counts:
        """Return where all jobs are."""
        return self.queue.counts()

    def held(self) -> int:
        """Return how many jobs Redis holds in any state."""
        counts = self.counts()
        parked = sum(counts.parked.values())
        return counts.waiting + counts.delayed + counts.dead + parked + counts.in_flight

    def dead(self) -> list[DeadLetter]:
        """Return all dead letters."""
        return self.queue.dead_list(10_000)

    def dump(self) -> bytes:
        """Return every key of Redis with its value, for a search."""
        return b"\n".join(
            key + b" " + (self.redis.dump(key) or b"") for key in self.redis.scan_iter(count=1000)
        )

    def is_clean(self) -> bool:
        """Return whether nothing of any job is left in Redis."""
        of_workers = (b":stats", b":workers", b":hosts", b":ceiling", b":pressure", b":nudge")
        kept = {key for key in self.redis.keys("*") if not key.endswith(of_workers)}
        return not [key for key in kept if b":open:" not in key]

    def program(self, *command: str) -> Process:
        """Start any program."""
        name = f"program{len(self.processes)}"
        return self._add(Process(command, folder=self.folder, env=os.environ, name=name))

    def _add(self, process: Started) -> Started:
        self.processes.append(process)
        return process


def once_each(arrivals: Mapping[str, int], recipients: Iterable[str]) -> None:
    """Check that each of `recipients` got exactly one mail, and nobody else any."""
    wanted = set(recipients)
    twice = {recipient: times for recipient, times in arrivals.items() if times > 1}
    missing, strange = wanted - arrivals.keys(), arrivals.keys() - wanted
    assert not missing, f"{len(missing)} of {len(wanted)} never arrived: {sorted(missing)[:5]}"
    assert not strange, f"nobody asked for {sorted(strange)[:5]}"
    assert not twice, f"{len(twice)} arrived more than once: {list(twice.items())[:5]}"


def users(count: int) -> list[str]:
    """Return the recipients of `mail(0)` … `mail(count - 1)`."""
    return [f"u{number}@example.org" for number in range(count)]
