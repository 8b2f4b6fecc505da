"""`geomail listen`, or `run`, with one door, as a process of its own, to be killed and measured."""

import os
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from http_house import WITHIN_S, Answer, ask

_ADDRESS = re.compile(r"listening door=\w+ address=127\.0\.0\.1:(\d+)")


class Listening:
    """A process with a door on a free port; it is there when this is made.

    With a `relay` it is a worker, which delivers too.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        door: str = "http",
        relay: str | None = None,
        **settings: object,
    ) -> None:
        self._said = folder / "stderr"
        what = ["listen"] if relay is None else ["run", "--relay", relay]
        command = [sys.executable, "-m", "geomail", *what, f"--{door}", "127.0.0.1:0"]
        command += ["--redis", url, "--data", str(folder)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GEOMAIL_")}
        environ |= {f"GEOMAIL_{name.upper()}": str(value) for name, value in settings.items()}
        with self._said.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, env=environ, cwd=folder)
        self.port = self._wait()

    def _wait(self) -> int:
        deadline = time.monotonic() + WITHIN_S
        while not (found := _ADDRESS.search(self.said)):
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        return int(found[1])

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request, by a client of its own."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            return ask(client, method, path, body, headers)
        finally:
            client.close()

    @property
    def said(self) -> str:
        """Return what it has logged."""
        return self._said.read_text()

    @property
    def peak_mb(self) -> float:
        """Return the most memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1000

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def leave(self) -> int:
        """Ask it to leave; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()
