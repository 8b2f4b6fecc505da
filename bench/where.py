"""Where each microsecond of a mail goes: each step of a worker alone, beside a whole worker.

    python bench/where.py --part steps [--count 40000] [--runs 5] [--connections 20]
    python bench/where.py --part garbage [--connections 20] [--connections 2000]

steps     CPU time a mail, user and system, of one core. The parts take turns, and their medians
          make the table:
            take + settle   the real calls to a real Redis, in batches as large as those of a whole
                            worker, which are counted first (by Redis's SLOWLOG, in a run of its
                            own); the client's side only (bench/steps.py)
            decode + route  admission of those batches into the lane, from JSON to the ready queue
            compose         the letters of what is in the lane
            outcome         the record of a delivered mail, its entry in the journal, counters
            conversation    bench/driver.py: CONNECTIONS sessions with smtp-sink, finished letters;
                            its waits and turns of the event loop are in it
            lanes, senders  real lanes and senders, that are given the same few mails over and over
                            (bench/steps.py), less composing and conversation
            whole           a worker that delivers COUNT mails to smtp-sink
            the rest        whole less all steps: popper and settler, greenlets that wake each
                            other, and what steps cost each other in caches
          Nothing is traced: a profiler would make what is called often look dear. The kernel's part
          is what its clock has seen, a look every few ms: from COUNT 40000 on it is worth reading.
garbage   what the tuning of Python's collector is worth (worker/heap.py: what is there at the start
          is frozen, and thresholds grow with the connections): whole workers by turns with it and
          without. Without it means that gc.freeze and gc.set_threshold do nothing in that process.

Both parts without --part. Each run has a fresh append-only Redis and mails of 1 KB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import stand
import conversation
import redis_cost

_STEPS = Path(__file__).parent / "steps.py"
_PARTS = ("steps", "garbage")
_ROWS = (  # name, and what DESIGN's budget gives it in µs
    ("queue", "take + settle, client side", 5),
    ("admit", "decode + route", 4),
    ("compose", "compose", 8),
    ("wire", "SMTP conversation, one write, one wait", 20),
    ("report", "bookkeeping: outcome, journal, counters", 5),
    ("house", "bookkeeping: lanes, senders", 0),
    ("rest", "the rest", 0),
    ("whole", "a whole worker", 42),
)
_SIZE = 1024
_KERNEL = "kernel's part of "
_UNTUNED = "import gc\ngc.freeze = lambda: None\ngc.set_threshold = lambda *_: None\n"


def main() -> None:
    """Print the parts that were asked for."""
    args = _arguments()
    stand.need("smtp-sink")
    stand.introduce(**vars(args))
    parts = [args.part] if args.part else _PARTS
    with stand.smtp_sink() as port:
        if "steps" in parts:
            _print_steps(port, args)
        if "garbage" in parts:
            for connections in args.connections:
                _print_garbage(port, connections, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--part", choices=_PARTS)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--connections", type=int, action="append")
    args = parser.parse_args()
    args.connections = args.connections or [20]
    return args


# ---- the steps


def _print_steps(port: int, args: argparse.Namespace) -> None:
    taken, settled = _batches(port, args)
    print(f"a whole worker takes {taken} and settles {settled} at a time\n")
    seen: dict[str, list[float]] = defaultdict(list)
    parts = [partial(_whole, port), partial(_wire, port)]
    parts += [partial(_step, step, (taken, settled)) for step in ("queue", "thinking")]
    parts += [partial(_step, "lanes", (args.connections[0], port))]
    for number in range(args.runs):
        for part in parts if number % 2 else reversed(parts):
            for name, used_us in part(args).items():
                seen[name].append(used_us)
                print(f"run {number + 1}  {name:<24}{used_us:7.2f} µs a mail", flush=True)
    _print_table({name: stand.median(values) for name, values in seen.items()}, args)


def _batches(port: int, args: argparse.Namespace) -> tuple[int, int]:
    """Return how many mails a worker takes at a time, and how many it settles, on average."""
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=_SIZE)
        observer = redis_cost.Observer(url)
        with stand.worker(folder, _flags(port, url, args.connections[0])) as worker:
            observer.begin()
            stand.watch(queue, worker, args.count)
            calls = observer.calls()
            worker.drain()
        observer.redis.close()
    taken, settled = (args.count / len(calls[verb]) for verb in ("take", "settle"))
    return max(1, round(taken)), max(1, round(settled))


def _whole(port: int, args: argparse.Namespace) -> dict[str, float]:
    run = _run(port, args.connections[0], args)
    return {"whole": run.cpu_us, f"{_KERNEL}whole": run.system_us}


def _run(port: int, connections: int, args: argparse.Namespace) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=_SIZE)
        with stand.worker(folder, _flags(port, url, connections)) as worker:
            run = stand.watch(queue, worker, args.count)
            worker.drain()
    return run


def _flags(port: int, url: str, connections: int) -> list[str]:
    relay = f"smtp://127.0.0.1:{port}"
    return ["--relay", relay, "--redis", url, "--concurrency", str(connections)]


def _wire(port: int, args: argparse.Namespace) -> dict[str, float]:
    told = conversation.drive(port, "data", args.count, args.connections[0])
    user_us, system_us = (told[f"{part}_s"] / args.count * 1e6 for part in ("user", "system"))
    return {"wire": user_us + system_us, f"{_KERNEL}wire": system_us}


def _step(step: str, how: tuple[int, int], args: argparse.Namespace) -> dict[str, float]:
    with stand.fresh_queue() as (queue, url, _):
        stand.push(queue, args.count, size=_SIZE)
        numbers = map(str, (args.count, *how))
        done = subprocess.run(
            [sys.executable, str(_STEPS), step, url, *numbers],
            capture_output=True,
            text=True,
            preexec_fn=stand.on_core(stand.WORKERS_CORE),
            check=False,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise SystemExit(f"steps.py failed: {said[-1] if said else done.returncode}")
    told = json.loads(done.stdout.splitlines()[-1])
    return {name: used_s / args.count * 1e6 for name, used_s in told.items()}


def _print_table(seen: dict[str, float], args: argparse.Namespace) -> None:
    for kernel in ("", _KERNEL):
        us = {name: seen.get(kernel + name, 0.0) for name in (*(row[0] for row in _ROWS), "lanes")}
        seen[f"{kernel}house"] = us["lanes"] - us["compose"] - us["wire"]
        seen[f"{kernel}rest"] = us["whole"] - us["queue"] - us["admit"] - us["report"] - us["lanes"]
    print(f"\nCPU time a mail in µs, medians of {args.runs}\n")
    print("| step | budget | measured | the kernel's part |")
    print("|---|---|---|---|")
    for name, told, budget in _ROWS:
        kernel_us = seen.get(_KERNEL + name)
        part = "" if kernel_us is None else f"{kernel_us:.1f}"
        print(f"| {told} | {budget or ''} | {seen[name]:.1f} | {part} |")
    print(flush=True)


# ---- the garbage collector


def _print_garbage(port: int, connections: int, args: argparse.Namespace) -> None:
    print(f"\n{connections:,} connections")
    runs: dict[str, list[stand.Run]] = {"tuned": [], "untuned": []}
    for number in range(args.runs):
        for name in list(runs) if number % 2 else list(reversed(runs)):
            with _collector(name):
                run = _run(port, connections, args)
            runs[name].append(run)
            told = f"{run.rate:>8,.0f} mails/s  {run.cpu_us:5.1f} µs of CPU a mail"
            print(f"run {number + 1}  {name:<8} {told}", flush=True)
    cpu = {name: stand.median([run.cpu_us for run in seen]) for name, seen in runs.items()}
    rate = {name: stand.median([run.rate for run in seen]) for name, seen in runs.items()}
    print(f"medians of {args.runs}, tuned over untuned:", end="")
    print(f" CPU time a mail {cpu['tuned'] / cpu['untuned']:.3f}", end="")
    print(f" ({cpu['tuned']:.1f} and {cpu['untuned']:.1f} µs),", end="")
    print(f" rate {rate['tuned'] / rate['untuned']:.3f}", flush=True)


@contextmanager
def _collector(name: str) -> Iterator[None]:
    """Leave the collector "tuned" in what is started meanwhile, or "untuned"."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
        if name == "untuned":
            Path(folder, "sitecustomize.py").write_text(_UNTUNED)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            os.environ.pop("PYTHONPATH", None)
            if before is not None:
                os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    main()
