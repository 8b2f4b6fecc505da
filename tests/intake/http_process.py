"""`geomail listen --http` as a process of its own, to be killed and measured."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from http_house import WITHIN_S

_ADDRESS = re.compile(r"listening door=http address=127\.0\.0\.1:(\d+)")


class Listening:
    """A process with a door on a free port; it is there when this is made."""

    def __init__(self, url: str, folder: Path, **settings: object) -> None:
        self._said = folder / "stderr"
        command = [sys.executable, "-m", "geomail", "listen", "--redis", url, "--data", str(folder)]
        command += ["--http", "127.0.0.1:0"]
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
