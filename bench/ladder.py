"""Mails a second with ten connections to ten thousand, and with one worker and two: one table.

    python bench/ladder.py [--concurrency 10,20,100,1000,10000] [--processes 1,2] [--runs 3]
                           [--count 20000] [--size 1024]

Each rung is bench/throughput.py with other numbers: a fresh append-only Redis, a backlog, a worker
that delivers it to smtp-sink, and `smtp-source -d` with as many connections by turns with it. The
rungs of CONCURRENCY have one process; those of more PROCESSES have 20 connections each. Wanted are
COUNT mails a run, but four for each connection at least, and above 2,000 connections there is one
run, not RUNS. A run begins without any connection, so that making them is in its rate: they grow
with what the host has taken, which is most of the time with 10,000 (`hosts.py --part many` has the
rate once they are there). They need open files, 1,200 more than connections (`ulimit -Hn`): a rung
that can't have them is left out, and that is said.

A second process helps where there is a core for it. With two cores Redis and the sink want one of
them, and two workers share what is left: what a second one brings, a third core would show.
"""

import argparse
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import stand
import throughput

_EACH, _MANY = 20, 2_000
_MORE_FILES = 1_200


@dataclass(frozen=True, slots=True)
class Rung:
    """So many connections of so many processes each, and what was seen of them; medians."""

    concurrency: int
    processes: int
    runs: int
    ours: stand.Run
    peak_mb: float
    their_rate: float


def main() -> None:
    """Climb, and print the table."""
    args = _arguments()
    stand.need("smtp-sink")
    stand.need("smtp-source")
    stand.introduce(**vars(args))
    rungs = [(concurrency, 1) for concurrency in args.concurrency]
    rungs += [(_EACH, processes) for processes in args.processes if (_EACH, processes) not in rungs]
    with stand.smtp_sink() as port:
        seen = [_climb(port, args, *rung) for rung in rungs if _may_have(*rung)]
    print(
        "\n| connections | processes | runs | geomail | CPU a mail | memory | smtp-source | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for rung in seen:
        print(f"| {' | '.join(_columns(rung))} |")


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--concurrency", type=_numbers, default="10,20,100,1000,10000")
    parser.add_argument("--processes", type=_numbers, default="1,2")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=1024)
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _may_have(concurrency: int, processes: int) -> bool:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency * processes + _MORE_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        print(f"skipped     {concurrency:,} connections: {wanted:,} open files, allowed {most:,}")
        return False
    return True


def _climb(port: int, args: argparse.Namespace, concurrency: int, processes: int) -> Rung:
    print(f"\n{concurrency:,} connections a process, processes: {processes}")
    runs = args.runs if concurrency <= _MANY else 1
    count = max(args.count, 4 * concurrency * processes)
    these = argparse.Namespace(
        count=count, size=args.size, kind="text", concurrency=concurrency, processes=processes
    )
    ours, peaks, theirs = [], [], []
    for number in range(1, runs + 1):
        for is_ours in (True, False) if number % 2 else (False, True):
            if is_ours:
                run, peak_mb = throughput.geomail(port, these, number)
                ours.append(run)
                peaks.append(peak_mb)
            else:
                theirs.append(throughput.smtp_source(port, these, number))
    whole = stand.Run(
        stand.median([run.rate for run in ours]), stand.median([run.cpu_us for run in ours])
    )
    return Rung(concurrency, processes, runs, whole, stand.median(peaks), stand.median(theirs))


def _columns(rung: Rung) -> Iterator[str]:
    yield f"{rung.concurrency:,}"
    yield str(rung.processes)
    yield str(rung.runs)
    yield f"{rung.ours.rate:,.0f} mails/s"
    yield f"{rung.ours.cpu_us:.1f} µs"
    yield f"{rung.peak_mb:,.0f} MB" if rung.processes == 1 else ""  # that is the parent's
    yield f"{rung.their_rate:,.0f}"
    yield f"{rung.ours.rate / rung.their_rate:.2f}"


if __name__ == "__main__":
    main()
