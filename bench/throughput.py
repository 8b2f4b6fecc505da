"""Mails a second through one worker, beside Postfix's smtp-source on the same sink.

    python bench/throughput.py [--count 100000] [--size 1024] [--kind text|distinct|both|attachment]
                               [--runs 5] [--concurrency 20] [--processes 1]
    python bench/throughput.py --against-nothing      one run of 20,000, for development

A run of geomail: a fresh append-only Redis, a backlog of JSON payloads with text bodies of SIZE
bytes, then a worker that delivers them to smtp-sink. Timed is the worker at work (bench/stand.py):
from its first take to the last mail settled, Redis's fsync every second included. A run of
smtp-source: `smtp-source -d -s CONCURRENCY -l SIZE -m COUNT`, from its start to its end. It sends
one message made up before, over and over; it reads no queue and keeps no account: that is the price
of the wire alone. The two take turns, and who goes first changes, so that a machine which grows
slower slows both.

With more PROCESSES the workers get all cores, those of Redis and the sink too; CONCURRENCY is each
one's, the CPU time that of all of them, and smtp-source stays one process on one core, with as many
connections as all workers together. Many connections need open files (`ulimit -Hn`).

smtp-sink keeps no ids, and writing each mail to a file (its -D) would be what is measured. So none
lost, none twice is looked at in a run of its own: 20,000 mails into geomail's sink, which records
every recipient. Counted there are distinct recipients, and those that came more than once.

Kinds of mail: `text`, the same in each, as in bulk (geomail encodes it once); `distinct`, another
text in each; `both`, text and html with non-ASCII names, words and subject, SIZE in both
together; `attachment`, SIZE bytes in base64 behind a short text. smtp-source sends a text always.
"""

import argparse
from collections import Counter

import stand

from geomail.demo.processes import Catcher


def main() -> None:
    """Run what was asked for, and print medians and their ratio."""
    args = _arguments()
    stand.need("smtp-sink")
    if args.against_nothing:
        args.count, args.runs = min(args.count, 20_000), 1
    stand.introduce(**vars(args))
    with stand.smtp_sink() as port:
        if args.against_nothing:
            geomail(port, args, 1)
            return
        stand.need("smtp-source")
        ours, theirs = [], []
        for number in range(1, args.runs + 1):
            turns = [lambda n=number: ours.append(geomail(port, args, n)[0])]
            turns.append(lambda n=number: theirs.append(smtp_source(port, args, n)))
            for turn in turns if number % 2 else reversed(turns):
                turn()
    rate, their_rate = stand.median([run.rate for run in ours]), stand.median(theirs)
    print(f"\nmedian of {args.runs}: geomail {rate:,.0f} mails/s", end="")
    print(f" at {stand.median([run.cpu_us for run in ours]):.1f} µs of CPU a mail,", end="")
    print(f" smtp-source {their_rate:,.0f} mails/s, ratio {rate / their_rate:.2f}\n")
    _verify(min(args.count, 20_000), args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--kind", choices=list(stand.KINDS), default="text")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--against-nothing", action="store_true")
    return parser.parse_args()


def geomail(port: int, args: argparse.Namespace, number: int) -> tuple[stand.Run, float]:
    """Deliver to `port`, print it as the run of that number; return the peak memory in MB, too."""
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=args.size, kind=args.kind)
        flags = ["--relay", f"smtp://127.0.0.1:{port}", "--redis", url, *_flags(args)]
        with stand.worker(folder, flags, cores=_cores(args)) as worker:
            run = stand.watch(queue, worker, args.count)
            told = f"{run.rate:>9,.0f} mails/s  {run.cpu_us:6.1f} µs of CPU a mail"
            peak_mb = worker.peak_mb() or 0.0
            print(f"run {number}  geomail      {told}  {peak_mb:,.0f} MB", flush=True)
            worker.drain()
    return run, peak_mb


def _flags(args: argparse.Namespace) -> list[str]:
    return ["--concurrency", str(args.concurrency), "--processes", str(args.processes)]


def _cores(args: argparse.Namespace) -> list[int]:
    return stand.CORES if args.processes > 1 else [stand.WORKERS_CORE]


def smtp_source(port: int, args: argparse.Namespace, number: int) -> float:
    """Send by smtp-source to `port`, print it as the run of that number; return mails a second."""
    connections = args.concurrency * args.processes
    rate = stand.smtp_source(port, count=args.count, size=args.size, concurrency=connections)
    print(f"run {number}  smtp-source  {rate:>9,.0f} mails/s", flush=True)
    return rate


def _verify(count: int, args: argparse.Namespace) -> None:
    with stand.fresh_queue() as (queue, url, folder), Catcher(folder) as catcher:
        stand.push(queue, count, size=args.size, kind=args.kind)
        flags = ["--relay", f"smtp://127.0.0.1:{catcher.port}", "--redis", url, *_flags(args)]
        with stand.worker(folder, flags, cores=_cores(args)) as worker:
            stand.watch(queue, worker, count)
            worker.drain()
        catcher.stop()
        seen = Counter(recipient for _, recipient in catcher.arrivals())
    twice = sum(1 for times in seen.values() if times > 1)
    print(f"counted: {count:,} pushed, {count - len(seen):,} lost, {twice:,} twice")
    if twice or len(seen) != count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
