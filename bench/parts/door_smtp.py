"""The SMTP door, by clients that pipeline.

`data` and `bdat` are bench/driver.py: geomail's own conversation over CONNECTIONS kept connections.
With DATA the content of one mail and the envelope of the next go in one write, so each connection
has one mail on its way; with BDAT it has up to eight. `smtp-source` is Postfix's, which waits for
each reply, four times a mail. The aim is 5,000 mails/s, pipelined.
"""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import stand
from trial import aim

_DRIVER = Path(__file__).parents[1] / "driver.py"
_AIM = 5000
_ROWS = (("data", 20), ("data", 100), ("bdat", 1), ("bdat", 20), ("smtp-source", 20), ("data", 1))


def run(args: Namespace) -> None:
    """Send to it in each way, and print how fast it went, and what it cost."""
    for way, connections in _ROWS:
        send = _by_smtp_source if way == "smtp-source" else _by_driver
        count = args.count // (10 if connections == 1 else 1)
        runs = [_run(send, way, connections, count) for _ in range(args.runs)]
        rate = stand.median([each.rate for each in runs])
        told = f"{rate:>8,.0f} mails/s  {stand.median([each.cpu_us for each in runs]):6.1f} µs"
        met = (
            f"  {aim('5,000', is_met=rate >= _AIM)}"
            if connections >= 20 and way != "smtp-source"
            else ""
        )
        name = f"{way}, {connections} connection{'s' if connections > 1 else ''}"
        print(f"smtp    {name:<28}{told} of CPU a mail{met}", flush=True)


def _run(
    send: Callable[[int, str, int, int], float], way: str, connections: int, count: int
) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder), stand.door(folder, "--smtp", url) as door:
        before = stand.cpu_s(door.pid)
        seconds = send(door.port, way, connections, count)
        used_s = stand.cpu_s(door.pid) - before
        waiting = queue.counts().waiting
    if waiting != count:
        raise SystemExit(f"{count:,} were acknowledged, and {waiting:,} lie in Redis")
    return stand.Run(rate=count / seconds, cpu_us=used_s / count * 1e6)


def _by_driver(port: int, way: str, connections: int, count: int) -> float:
    command = [sys.executable, str(_DRIVER), str(port), way, str(connections), str(count)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=stand.on_core(stand.OTHERS_CORE),
    )
    if done.returncode:
        raise SystemExit(f"{way}: the clients failed")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def _by_smtp_source(port: int, _way: str, connections: int, count: int) -> float:
    rate = stand.smtp_source(
        port, count=count, size=1024, concurrency=connections, core=stand.OTHERS_CORE
    )
    return count / rate
