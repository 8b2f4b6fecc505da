"""The TCP door, by clients that send one document behind the other, and by some that hang up.

bench/tcp_clients.py: `kept` sends over CONNECTIONS kept connections without waiting, and reads the
answers beside; `turns` waits for each answer; `hang-up` opens a connection for each document and
closes it at once, as swoole_client does: timed until all lie in Redis. The aim is 20,000 documents
a second.
"""

import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import stand
from trial import aim

from geomail.queue import Queue

_CLIENTS = Path(__file__).parents[1] / "tcp_clients.py"
_AIM = 20_000
_ROWS = (("kept", 1), ("kept", 20), ("kept", 200), ("turns", 1), ("turns", 50), ("hang-up", 8))
_FEWER = {"turns": 5, "hang-up": 5}
_ALL_IN_S = 60.0


def run(args: Namespace) -> None:
    """Send to it in each way, and print how fast it went, and what it cost."""
    for way, connections in _ROWS:
        count = args.count // _FEWER.get(way, 1)
        runs = [_run(way, connections, count, args.size) for _ in range(args.runs)]
        rate = stand.median([each.rate for each in runs])
        told = f"{rate:>8,.0f} documents/s  {stand.median([each.cpu_us for each in runs]):6.1f} µs"
        met = f"  {aim('20,000', is_met=rate >= _AIM)}" if way == "kept" else ""
        name = f"{way}, {connections} connection{'s' if connections > 1 else ''}"
        print(f"tcp     {name:<24}{told} of CPU a document{met}", flush=True)


def _run(way: str, connections: int, count: int, size: int) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder), stand.door(folder, "--tcp", url) as door:
        before = stand.cpu_s(door.pid)
        seconds = _send(door.port, way, connections, count, size)
        if way == "hang-up":
            seconds += _wait_for_all(queue, count)
        used_s = stand.cpu_s(door.pid) - before
        waiting = queue.counts().waiting
    if waiting != count:
        raise SystemExit(f"{count:,} were sent, and {waiting:,} lie in Redis")
    return stand.Run(rate=count / seconds, cpu_us=used_s / count * 1e6)


def _wait_for_all(queue: Queue, count: int) -> float:
    began = time.perf_counter()
    while queue.counts().waiting < count:
        if time.perf_counter() - began > _ALL_IN_S:
            break
        time.sleep(0.01)
    return time.perf_counter() - began


def _send(port: int, way: str, connections: int, count: int, size: int) -> float:
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
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])
