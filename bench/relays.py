"""What a relay that refuses connections costs another one.

    python bench/relays.py [--count 50000] [--size 1024] [--runs 5] [--concurrency 20]
                           [--answer-ms 0]

Each mail names its relay in the payload. Only mails of the healthy relay are counted. It is
Postfix's smtp-sink, which answers at once, so the worker's core is the limit; or with --answer-ms
a host that takes its time, as hosts do: geomail's own sink, in this script.

    alone    COUNT mails for it, and it is the only relay there is
    parked   the same, while COUNT mails for a relay whose port refuses every connection are parked
             since before: probes go on, the list holds healthy mails only
    mixed    the same, but those COUNT mails lie on the list as well, one after each healthy one:
             each of them has to be taken and parked in between, which is work on the same core

Timed as in bench/stand.py, from the worker's first take to the last healthy mail settled. The three
take turns, and who goes first changes.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import stand

from geomail.queue import Queue
from geomail.sink import Sink

_HEALTHY, _REFUSING = "healthy", "refusing"
_MODES = ("alone", "parked", "mixed")


def main() -> None:
    """Run all by turns, and print medians and ratios."""
    args = _arguments()
    stand.introduce(**vars(args))
    # Bound, and never listening: a port that refuses, and that nobody else can get.
    with _healthy_host(args.answer_ms / 1000) as port, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        ports = {_HEALTHY: port, _REFUSING: refusing.getsockname()[1]}
        rates: dict[str, list[float]] = {mode: [] for mode in _MODES}
        for number in range(args.runs):
            for mode in _MODES[number % 3 :] + _MODES[: number % 3]:
                rates[mode].append(_run(mode, ports, args))
    alone = stand.median(rates["alone"])
    print(f"\nmedian of {args.runs}")
    for mode in _MODES:
        rate = stand.median(rates[mode])
        print(f"  {mode:<7}{rate:>9,.0f} mails/s  {rate / alone:.2f} of alone")


@contextmanager
def _healthy_host(answer_s: float) -> Iterator[int]:
    if not answer_s:
        with stand.smtp_sink() as port:
            yield port
        return
    stand.pin(0, stand.OTHERS_CORE)
    with Sink(delay_s=answer_s) as sink:
        yield sink.address[1]


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--answer-ms", type=float, default=0)
    return parser.parse_args()


def _run(mode: str, ports: dict[str, int], args: argparse.Namespace) -> float:
    relays = [_HEALTHY] if mode == "alone" else [_HEALTHY, _REFUSING]
    config = "".join(
        f'[relay.{relay}]\nurl = "smtp://127.0.0.1:{ports[relay]}"\n' for relay in relays
    )
    with stand.fresh_queue() as (queue, url, folder):
        flags = ["--redis", url, "--concurrency", str(args.concurrency)]
        if mode == "parked":
            stand.push(queue, args.count, size=args.size, relays=[_REFUSING])
            with stand.worker(folder, flags, config=config) as worker:
                _wait_until_parked(queue, args.count)
                worker.drain()
            relays = [_HEALTHY]
        stand.push(queue, args.count, size=args.size, relays=relays)
        with stand.worker(folder, flags, config=config) as worker:
            run = stand.watch(queue, worker, args.count)
            worker.drain()
        counts = queue.counts()
    parked = sum(counts.parked.values())
    told = f"{run.rate:>9,.0f} mails/s  {run.cpu_us:6.1f} µs of CPU a mail"
    print(f"{mode:<7}{told}  {parked:,} parked, {counts.dead:,} dead", flush=True)
    return run.rate


def _wait_until_parked(queue: Queue, count: int) -> None:
    # A probe holds one of them at a time, so all of them may never be seen at once.
    while sum(queue.counts().parked.values()) < count - 1:
        time.sleep(0.1)


if __name__ == "__main__":
    main()
