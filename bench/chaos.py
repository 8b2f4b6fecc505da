"""Load through a fault: what is lost, what comes twice, how long everything stands still.

    python bench/chaos.py [--rate 1000] [--seconds 60] [--fault NAME]... [--kills N] [--lease 30]

    none                 nothing: what the others are to be compared with
    kill-child           kill -9 of a worker of two under their parent (--processes 2), at random
    kill-lone            kill -9 of the only worker, started again at once, in the same data folder
    kill-without-journal the same with journal = false
    kill-redis           kill -9 of Redis (appendfsync everysec), started again at once on its files
    stop                 SIGSTOP of one worker of two, for one and a half leases, then SIGCONT
    cut-redis            a proxy between worker and Redis that cuts connections (cutter.py)
    cut-host             the same between worker and host
    flush                SCRIPT FLUSH, and CLIENT KILL of a connection chosen at random
    host-refuses         the host ends in order, and is back after 3 s
    host-hangs           SIGSTOP of the host for 3 s: connections stay, nobody answers

Each fault has a Redis, a host (geomail's sink, which accepts all at once) and workers of its own.
A producer pushes RATE mails of 1 KB a second for SECONDS, or for as long as the strikes take; then
what is left gets the time to arrive. KILLS is how often a kill-… strikes; without it, as often as
fits. Strikes come at random moments, after half to one and a half times their interval.

mails        whose LPUSH was answered; a push that Redis did not live to answer is not repeated
lost         of these, neither arrived nor in Redis
dead         kept by Redis as dead letters: not lost, but for a person to look at
twice        arrivals of what had arrived before
stall        the longest time without any arrival, while the producer pushed
again after  longest time from the end of a strike (the kill; Redis, the host back) to an arrival
wait         the longest that one mail took from its LPUSH to its arrival

Retries come after 1 s here, not 60 s, so that a fault's end can be waited for.
"""

import argparse
import bisect
import json
import os
import random
import re
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import stand
import redis
from cutter import Cutter
from scene import Scene, number_of, wait_for

from geomail.queue import Link, Queue, embedded

_HOST_AWAY_S = 3.0
_TAIL_S = 3.0
_STARTED = re.compile(r"started process=(\d+) pid=(\d+)")
_COLUMNS = [
    "fault",
    "times",
    "mails",
    "lost",
    "dead",
    "twice",
    "twice a time",
    "stall s",
    "again after s",
    "wait s",
]


def main() -> None:
    """Run each fault that was asked for, and print the table."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.OTHERS_CORE)
    rows = [_run(FAULTS[name], args) for name in args.fault or FAULTS]
    print(f"\n| {' | '.join(_COLUMNS)} |")
    print("|" + "---|" * len(_COLUMNS))
    for row in rows:
        print(f"| {' | '.join(row)} |")


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fault", action="append", choices=FAULTS, metavar="NAME")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--lease", type=float, default=30)
    return parser.parse_args()


# ---- how workers are set up


def _one(scene: Scene) -> None:
    scene.hire()
    scene.wait_until_running()


def _one_without_journal(scene: Scene) -> None:
    scene.hire(journal=False)
    scene.wait_until_running()


def _two(scene: Scene) -> None:
    for name in ("worker", "other"):
        scene.hire(name=name)
        scene.wait_until_running(name=name)


def _two_under_a_parent(scene: Scene) -> None:
    scene.hire("--processes", "2")
    scene.wait_until_running(2)


def _one_behind_a_cutter_to_redis(scene: Scene) -> None:
    scene.cutter = Cutter(scene.redis_port)
    scene.redis_port = scene.cutter.port
    _one(scene)


def _one_behind_a_cutter_to_the_host(scene: Scene) -> None:
    scene.cutter = Cutter(scene.host_port)
    scene.host_port = scene.cutter.port
    _one(scene)


# ---- strikes: each returns when it was over


def _strike_nothing(_scene: Scene) -> float:
    return time.time()


def _kill_child(scene: Scene) -> float:
    def both_run() -> bool:
        log = scene.log_of()
        return len(_children(log)) == 2 and log.count(" running ") == len(_STARTED.findall(log))

    wait_for(both_run, "both workers to run")
    os.kill(random.choice(_children(scene.log_of())), signal.SIGKILL)
    return time.time()


def _children(log: str) -> list[int]:
    newest = {place: int(pid) for place, pid in _STARTED.findall(log)}
    return [pid for pid in newest.values() if _lives(pid)]


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def _kill_lone(scene: Scene, *, journal: bool = True) -> float:
    killed_s = scene.kill(scene.crew[0])
    scene.hire(journal=journal)
    scene.wait_until_running()
    return killed_s


def _kill_without_journal(scene: Scene) -> float:
    return _kill_lone(scene, journal=False)


def _kill_redis(scene: Scene) -> float:
    scene.server.kill()
    scene.server = embedded.start_private(scene.server.folder, port=scene.server.port)
    stand.pin(scene.server.pid, stand.OTHERS_CORE)
    return time.time()


def _stop_worker(scene: Scene) -> float:
    victim = scene.crew[0]
    os.kill(victim.pid, signal.SIGSTOP)
    time.sleep(1.5 * scene.args.lease)
    os.kill(victim.pid, signal.SIGCONT)
    return time.time()


def _cut(scene: Scene) -> float:
    assert scene.cutter
    scene.cutter.cut()
    return time.time()


def _flush(scene: Scene) -> float:
    scene.redis.script_flush()
    ours = scene.redis.client_id()
    clients = [int(client["id"]) for client in scene.redis.client_list() if client["name"] == ""]
    with suppress(redis.ResponseError):  # it has just gone by itself
        scene.redis.client_kill_filter(_id=random.choice([one for one in clients if one != ours]))
    return time.time()


def _host_refuses(scene: Scene) -> float:
    scene.host.stop()
    time.sleep(_HOST_AWAY_S)
    scene.host.start()
    return time.time()


def _host_hangs(scene: Scene) -> float:
    scene.host.signal(signal.SIGSTOP)
    time.sleep(_HOST_AWAY_S)
    scene.host.signal(signal.SIGCONT)
    return time.time()


@dataclass(frozen=True, slots=True)
class Fault:
    """Who works, what happens to them, how often; `every_s` None: once."""

    name: str
    staff: Callable[[Scene], None]
    strike: Callable[[Scene], float]
    every_s: float | None

    def times(self, args: argparse.Namespace) -> int:
        """Return how often it strikes."""
        if args.kills and self.name.startswith("kill-"):
            return int(args.kills)
        return max(1, int((args.seconds - _TAIL_S) / self.every_s)) if self.every_s else 1

    def pause_s(self) -> float:
        """Return how long to wait before the next strike."""
        return random.uniform(0.5, 1.5) * (self.every_s or 3.0)


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("none", _one, _strike_nothing, None),
        Fault("kill-child", _two_under_a_parent, _kill_child, 3.0),
        Fault("kill-lone", _one, _kill_lone, 3.0),
        Fault("kill-without-journal", _one_without_journal, _kill_without_journal, 3.0),
        Fault("kill-redis", _one, _kill_redis, 6.0),
        Fault("stop", _two, _stop_worker, None),
        Fault("cut-redis", _one_behind_a_cutter_to_redis, _cut, 0.25),
        Fault("cut-host", _one_behind_a_cutter_to_the_host, _cut, 0.25),
        Fault("flush", _one, _flush, 0.5),
        Fault("host-refuses", _one, _host_refuses, 10.0),
        Fault("host-hangs", _one, _host_hangs, 10.0),
    )
}


# ---- a run


def _run(fault: Fault, args: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="geomail-chaos-") as name, ExitStack() as stack:
        scene = Scene(args, Path(name), stack)
        fault.staff(scene)
        ends_s = _drive(fault, scene)
        stopped_s = time.time()
        left, dead = _wait_for_rest(scene)
        scene.dismiss()
        scene.host.stop()
        row = _account(fault, scene, ends_s=ends_s, stopped_s=stopped_s, left=left, dead=dead)
    print("  ".join(f"{column} {value}" for column, value in zip(_COLUMNS, row, strict=True)))
    return row


def _drive(fault: Fault, scene: Scene) -> list[float]:
    """Let the producer push while the fault strikes; return when each strike was over."""
    scene.producer.start()
    until_s = time.monotonic() + scene.args.seconds
    ends_s = []
    for _ in range(fault.times(scene.args)):
        time.sleep(fault.pause_s())
        ends_s.append(fault.strike(scene))
    time.sleep(max(_TAIL_S, until_s - time.monotonic()))
    scene.producer.stop()
    return ends_s


def _wait_for_rest(scene: Scene) -> tuple[int, set[int]]:
    """Wait until nothing moves any more; return how many jobs are left, and which are dead."""
    queue = Queue(Link(scene.server.url))
    left, moved_s = -1, time.monotonic()
    while left != 0 and time.monotonic() < moved_s + 2 * scene.args.lease + 30:
        counts, before = queue.counts(), left
        left = counts.waiting + counts.in_flight + counts.delayed + sum(counts.parked.values())
        moved_s = moved_s if left == before else time.monotonic()
        time.sleep(0.1)
    if left:
        print(f"{left:,} mails are stuck in Redis: {counts}")
    letters = (queue.dead_show(letter.id) for letter in queue.dead_list(100_000))
    dead = {
        number_of(json.loads(letter.payload or b"")["to"].popitem()[0])
        for letter in letters
        if letter
    }
    queue.close()
    return left, dead


def _account(
    fault: Fault, scene: Scene, *, ends_s: list[float], stopped_s: float, left: int, dead: set[int]
) -> list[str]:
    pushed_s = scene.producer.pushed_s
    arrived_s = defaultdict(list)
    for at_s, number in scene.host.arrivals():
        arrived_s[number].append(at_s)
    missing = pushed_s.keys() - arrived_s.keys() - dead
    times = sorted(at_s for all_s in arrived_s.values() for at_s in all_s)
    twice = len(times) - len(arrived_s)
    waits_s = (
        min(arrived_s[number]) - at_s for number, at_s in pushed_s.items() if number in arrived_s
    )
    return [
        fault.name,
        str(len(ends_s)),
        f"{len(pushed_s):,}",
        f"{max(0, len(missing) - left):,}",
        f"{len(dead):,}",
        f"{twice:,}",
        f"{twice / len(ends_s):.2f}",
        f"{_longest_gap(times, stopped_s):.2f}",
        f"{max(_until_next(times, end_s) for end_s in ends_s):.2f}",
        f"{max(waits_s):.2f}",
    ]


def _longest_gap(times: list[float], stopped_s: float) -> float:
    busy = [*times[: bisect.bisect(times, stopped_s)], stopped_s]
    return max(later - sooner for sooner, later in pairwise(busy))


def _until_next(times: list[float], moment_s: float) -> float:
    index = bisect.bisect(times, moment_s)
    return times[index] - moment_s if index < len(times) else float("inf")


if __name__ == "__main__":
    main()
