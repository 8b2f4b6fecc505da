"""The HTTP door, by clients that cost little.

bench/http_clients.py, on kept connections. `one` is a job a request, whose answer is awaited before
the next is sent: with one connection that is the time of a round trip, push included. `many` is
NDJSON: all lines of a connection in one request, their answers read as they come. The aims are
3,000 requests/s, and 30,000 mails/s by NDJSON.
"""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import stand
from trial import aim

_CLIENTS = Path(__file__).parents[1] / "http_clients.py"
_AIMS = {"one": 3_000, "many": 30_000}
_ROWS = (("one", 1), ("one", 32), ("one", 500), ("many", 1), ("many", 8))


def run(args: Namespace) -> None:
    """Send in each way, and print how fast it went, and what it cost."""
    for way, connections in _ROWS:
        count = args.count // (10 if connections == 1 and way == "one" else 1)
        count -= count % connections
        runs = [_run(way, connections, count, args.size) for _ in range(args.runs)]
        rate = stand.median([each.rate for each in runs])
        cpu_us = stand.median([each.cpu_us for each in runs])
        name = f"{way}, {connections} connection{'s' if connections > 1 else ''}"
        told = f"{rate:>8,.0f} {'requests' if way == 'one' else 'mails'}/s"
        met = (
            aim(f"{_AIMS[way]:,}", is_met=rate >= _AIMS[way])
            if (way, connections) != _ROWS[0]
            else ""
        )
        print(
            f"http    {name:<28}{told}  {cpu_us:6.1f} µs of CPU a mail  {met}".rstrip(), flush=True
        )


def _run(way: str, connections: int, count: int, size: int) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder), stand.door(folder, "--http", url) as door:
        before = stand.cpu_s(door.pid)
        told = _send(door.port, way, connections, count, size)
        used_s = stand.cpu_s(door.pid) - before
        waiting = queue.counts().waiting
    if not told["taken"] == waiting == count:
        raise SystemExit(f"{told['taken']:,} were acknowledged, and {waiting:,} lie in Redis")
    return stand.Run(rate=count / told["seconds"], cpu_us=used_s / count * 1e6)


def _send(port: int, way: str, connections: int, count: int, size: int) -> dict[str, float]:
    words = [str(word) for word in (port, way, connections, count, size)]
    done = subprocess.run(
        [sys.executable, str(_CLIENTS), *words],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=stand.on_core(stand.OTHERS_CORE),
    )
    if done.returncode:
        raise SystemExit(f"{way}: the clients failed")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told
