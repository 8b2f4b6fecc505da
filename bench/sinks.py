"""The hosts of the benches that smtp-sink can't play (with CHUNKING, with TLS, or far away), and
smtp-sink with a count.

Each is a process of its own on the core of all that is not the worker, and ends with its context.
`taken()` is the host's own count: who claims to have delivered more than that has miscounted.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import stand

_BENCH = Path(__file__).parent


class Program:
    """A program of this folder that says its port, and ends when its standard input does."""

    def __init__(self, name: str, *arguments: object) -> None:
        command = [sys.executable, str(_BENCH / name), *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        stand.pin(self.pid, stand.OTHERS_CORE)
        said = self._next_line()
        if not said:
            raise SystemExit(f"{name} did not start")
        self.port = int(said)

    def ask(self) -> int:
        """Return what it answers to a line: a number."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._next_line())

    def _next_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()


@dataclass(frozen=True, slots=True)
class Host:
    """A sink and what lies before it."""

    sink: Program
    line: Program | None = field(default=None)

    @property
    def port(self) -> int:
        """Return where a client knocks."""
        return (self.line or self.sink).port

    def taken(self) -> int:
        """Return how many mails it has taken so far."""
        return self.sink.ask()

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU time used so far by the sink and by the delay line."""
        return stand.cpu_s(self.sink.pid), stand.cpu_s(self.line.pid) if self.line else 0.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Postfix's smtp-sink, which writes a line into a file with each mail."""

    port: int
    counts: Path

    def taken(self) -> int:
        """Return how many mails it has taken so far."""
        with self.counts.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 200))
            seen = re.findall(rb"mesg=(\d+)\r", file.read())
        return int(seen[-1]) if seen else 0


@contextmanager
def counted() -> Iterator[Counted]:
    """Run smtp-sink, counting."""
    with (
        tempfile.NamedTemporaryFile(prefix="geomail-bench-") as file,
        stand.smtp_sink("-c", stdout=file) as port,
    ):
        yield Counted(port, Path(file.name))


@contextmanager
def near(*tls: object) -> Iterator[Host]:
    """Run geomail's sink on this machine; `tls` is what sink_host.py is told."""
    with Program("sink_host.py", *tls) as sink:
        yield Host(sink)


@contextmanager
def far(rtt_ms: float) -> Iterator[Host]:
    """Run geomail's sink behind a delay line; with a round trip of 0 there is none."""
    with ExitStack() as stack:
        sink = stack.enter_context(Program("sink_host.py"))
        line = None
        if rtt_ms:
            line = stack.enter_context(Program("far_host.py", rtt_ms, sink.port))
        yield Host(sink, line)
