"""The children of the demo and of the benches: a catcher and a worker, started, measured, ended.

A worker gets nothing from the user's settings: no variable, no geomail.toml. Each child is in a
session of its own, so that Ctrl-C reaches only the parent, which ends them in order; a child
that does not obey in time is killed. CPU time and peak memory come from /proc, while the process
lives; elsewhere than on Linux they are not known.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import geomail
from geomail.errors import GeomailError

_START_S = 20.0
_STOP_S = 5.0
_DRAIN_S = 35.0


class Catcher:
    """The sink of the demo, its record, and its word when a single mail has arrived."""

    def __init__(self, folder: Path) -> None:
        """Start it; raises GeomailError when it does not come up."""
        self._record, self._last = folder / "arrived", folder / "last.eml"
        self._socket, theirs = socket.socketpair()
        with theirs, (folder / "catcher.log").open("wb") as log:
            files = [str(self._record), str(self._last)]
            command = [sys.executable, "-m", "geomail.demo.catcher", *files]
            end = theirs.fileno()
            self._process = _spawn(command, folder, stdin=end, stdout=end, stderr=log.fileno())
        port = self.next_line(_START_S)
        if port is None:
            self.stop()
            raise GeomailError(f"the sink did not start: {_last_line(folder / 'catcher.log')}")
        self.port = int(port)

    def next_line(self, timeout_s: float) -> str | None:
        """Return the next line it says, or None when it says nothing for `timeout_s`."""
        self._socket.settimeout(timeout_s)
        with suppress(OSError):
            return self._socket.recv(1000).decode().strip() or None
        return None

    def arrivals(self) -> list[tuple[float, str]]:
        """Return time and recipient of all mails, once it was stopped."""
        lines = self._record.read_text().splitlines()
        fields = (line.split(" ") for line in lines)
        return [(float(at), recipient) for at, _, recipient in fields]

    def last_single(self) -> bytes:
        """Return the last single mail as it came over the wire, once it was stopped."""
        return self._last.read_bytes()

    def stop(self) -> None:
        """Hang up and wait until it has written everything."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        _wait_or_kill(self._process, _STOP_S)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Worker:
    """A `geomail run` with `flags`; its files are in `folder`, `config` is its geomail.toml.

    `home`: where the package lies that it is to run; None: where ours does.
    """

    def __init__(
        self, folder: Path, flags: Sequence[str], *, config: str = "", home: Path | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "worker.log"
        (folder / "geomail.toml").write_text(config)
        own = ["--config", str(folder / "geomail.toml"), "--data", str(folder)]
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "geomail", "run", *flags, *own]
            out = log.fileno()
            self._process = _spawn(
                command, folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, home=home
            )
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process.poll() is None

    def cpu_s(self) -> float | None:
        """Return the CPU time used so far in seconds, to a hundredth; None where nobody tells."""
        with suppress(OSError):
            # The name, which may hold anything, ends with the last parenthesis.
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None

    def peak_mb(self) -> float | None:
        """Return the most memory held so far in MB (1,000,000 bytes); None where nobody tells."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        return None

    def last_words(self) -> str:
        """Return the last line of its log."""
        return _last_line(self._log)

    def drain(self) -> int | None:
        """End it by SIGTERM and return its exit status; None when it had to be killed."""
        return self._end(_DRAIN_S)

    def _end(self, patience_s: float) -> int | None:
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
        return _wait_or_kill(self._process, patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(_STOP_S)


def _spawn(
    command: Sequence[str],
    folder: Path,
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    home: Path | None = None,
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(home or Path(geomail.__file__).parent.parent),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _environment(home: Path) -> dict[str, str]:
    """Return the environment for a child: no setting of geomail's, and the package in `home`."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
    places = filter(None, [str(home), environ.get("PYTHONPATH")])
    environ["PYTHONPATH"] = os.pathsep.join(places)
    return environ


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return "it said nothing"


def _wait_or_kill(process: "subprocess.Popen[bytes]", patience_s: float) -> int | None:
    try:
        return process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
