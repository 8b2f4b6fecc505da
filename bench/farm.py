"""The hosts of hosts.py, seen from the bench: planned, started, asked what they saw.

All of them are one process (many_hosts.py) on the core of all that is not the worker. What they
count is what counts: a mail is delivered when its host has said 250, and at that moment.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import stand

_PROGRAM = Path(__file__).parent / "many_hosts.py"
_SPARE_FILES = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What one host does, as many_hosts.py explains it; `takes` 0: any number of connections."""

    name: str
    does: Literal["serve", "refuse", "time-out", "hang"] = "serve"
    per: Literal["flight", "reply", "mail", "turn"] = "flight"
    delay_s: float = 0.0
    takes: int = 0
    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """What a host has counted: `refused` of its `connections`, `busy` are answers that wait."""

    connections: int
    refused: int
    live: int
    peak: int
    mails: int
    busy: int


class Arrival(NamedTuple):
    """A mail that a host has said 250 to, at a time of CLOCK_MONOTONIC."""

    at_s: float
    host: str
    number: int


class Farm:
    """The hosts of one trial."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        stand.pin(self.pid, stand.OTHERS_CORE)
        self._names = [plan.name for plan in plans]
        self.ports: dict[str, int] = self._ask(json.dumps([asdict(plan) for plan in plans]))

    def counts(self) -> dict[str, Count]:
        """Return the counts of each host."""
        return {name: Count(**counts) for name, counts in self._ask("count").items()}

    def mails(self, names: Iterable[str]) -> int:
        """Return how many mails the hosts of these names have taken together."""
        counts = self.counts()
        return sum(counts[name].mails for name in names)

    def arrivals(self) -> list[Arrival]:
        """Return all mails that were taken, in the order of time."""
        times, hosts, numbers = self._ask("arrivals")
        names = (self._names[host] for host in hosts)
        return [Arrival(*fields) for fields in zip(times, names, numbers, strict=True)]

    def url(self, name: str) -> str:
        """Return the URL of a host that was planned without an address."""
        return f"smtp://127.0.0.1:{self.ports[name]}"

    def stop(self) -> None:
        """End it."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()

    def _ask(self, line: str) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        if said := process.stdout.readline():
            return json.loads(said)
        raise SystemExit("many_hosts.py has ended; what it said stands above")


@contextmanager
def farm(plans: Sequence[Plan]) -> Iterator[Farm]:
    """Run the hosts."""
    hosts = Farm(plans)
    try:
        yield hosts
    finally:
        hosts.stop()


def need_files(connections: int) -> None:
    """End where so many open files are not allowed; hosts and workers raise their limit by it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(
            f"{connections:,} connections need {needed:,} open files, and no more than {hard:,} are"
            " allowed here: raise the hard limit (ulimit -Hn), or ask for fewer"
        )
