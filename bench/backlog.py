"""Does a long list cost anything, and does the worker grow while it works it off?

    python bench/backlog.py [--few 10000] [--many 1000000] [--runs 5] [--looks 10]

Rate and CPU time a mail are those of FEW mails: once with no more than those waiting, once with
MANY behind them, by turns, each run with a fresh append-only Redis and a worker that has delivered
FEW others before, so that nothing of its start is in it. It begins when Redis has rewritten its
append-only file, as it does after so large a push, in a process of its own: on two cores that has
no core. Then one worker works off MANY mails, and its memory is read LOOKS times on the way, in
equal steps of delivered mails.
"""

import argparse
import time
from pathlib import Path

import stand
import redis

from geomail.demo.processes import Worker
from geomail.queue import Queue

_LOOK_S = 0.005
_PATIENCE_S = 60.0
_SIZE = 1024


def main() -> None:
    """Print both."""
    args = _arguments()
    stand.need("smtp-sink")
    stand.introduce(**vars(args))
    with stand.smtp_sink() as port:
        _compare(port, args)
        _grow(port, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--looks", type=int, default=10)
    return parser.parse_args()


def _compare(port: int, args: argparse.Namespace) -> None:
    depths = {"few": 2 * args.few, "many": args.many}
    runs: dict[str, list[stand.Run]] = {name: [] for name in depths}
    for number in range(args.runs):
        for name in list(depths) if number % 2 else list(reversed(depths)):
            runs[name].append(_run(port, depths[name], args.few))
            rate, cpu_us = runs[name][-1].rate, runs[name][-1].cpu_us
            print(
                f"{depths[name]:>9,} waiting  {rate:>8,.0f} mails/s  {cpu_us:5.1f} µs", flush=True
            )
    rates = {name: stand.median([run.rate for run in seen]) for name, seen in runs.items()}
    print(f"medians of {args.runs}: {args.many:,} waiting over {2 * args.few:,}:", end="")
    print(f" rate {rates['many'] / rates['few']:.3f}\n", flush=True)


def _run(port: int, depth: int, few: int) -> stand.Run:
    """Return how the second FEW mails of `depth` went."""
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, depth, size=_SIZE)
        _let_it_rewrite(url)
        with stand.worker(
            folder, ["--relay", f"smtp://127.0.0.1:{port}", "--redis", url]
        ) as worker:
            began = _wait(queue, worker, few)
            ended = _wait(queue, worker, 2 * few)
            worker.drain()
    mails = ended[0] - began[0]
    return stand.Run(mails / (ended[1] - began[1]), (ended[2] - began[2]) / mails * 1e6)


def _grow(port: int, args: argparse.Namespace) -> None:
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.many, size=_SIZE)
        _let_it_rewrite(url)
        with stand.worker(
            folder, ["--relay", f"smtp://127.0.0.1:{port}", "--redis", url]
        ) as worker:
            held = []
            for number in range(1, args.looks + 1):
                _wait(queue, worker, args.many * number // args.looks)
                held.append(_memory_mb(worker))
            worker.drain()
    print(f"memory after each {args.many // args.looks:,} mails, in MB:", end="")
    print("", ", ".join(f"{each:.1f}" for each in held), end="")
    print(f"; from the first look to the last {held[-1] - held[0]:+.1f}")


def _let_it_rewrite(url: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    with redis.Redis.from_url(url) as link:
        while link.info("persistence")["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline:
                raise SystemExit("Redis does not end rewriting its append-only file")
            time.sleep(_LOOK_S)


def _wait(queue: Queue, worker: Worker, delivered: int) -> tuple[int, float, float]:
    """Wait until so many are delivered; return how many, when, and the CPU time used by then."""
    deadline = time.monotonic() + _PATIENCE_S + delivered / 1000
    while time.monotonic() < deadline and worker.is_running():
        done = queue.counts().stats.get("delivered", 0)
        if done >= delivered:
            return done, time.monotonic(), worker.cpu_s() or 0.0
        time.sleep(_LOOK_S)
    raise SystemExit(f"only {done:,} of {delivered:,} came: {worker.last_words()}")


def _memory_mb(worker: Worker) -> float:
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("the kernel does not tell VmRSS")


if __name__ == "__main__":
    main()
