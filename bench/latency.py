"""Mails a second to a host that is far away, beside the clients that others write.

    python bench/latency.py [--rtt-ms 0,1,10,50] [--connections 20] [--in-flight 8] [--size 1024]
                            [--runs 3] [--warm 2] [--seconds 8] [--only NAME]...

The far host is geomail's sink behind a delay line (bench/far_host.py), the same for all. geomail
sends from a fresh append-only Redis, once with DATA, once with CHUNKING and IN_FLIGHT messages
under way on a connection; it composes each mail from JSON and settles it. The others (bench/peers)
send one message made up before, over and over, keep their connections, and keep no account. All
have the same number of connections and the same core, and take turns; who begins changes.

Timed are SECONDS out of the middle, which begin WARM seconds after the first mail (of each
connection, with the others): no start, no greeting, no tail. `of the bound` is the rate in parts of
connections / round trip, which is what one message a round trip allows. What a run claims to have
sent is held against what the sink has counted, after each run; a difference ends the bench.

`host` is how busy sink and delay line have kept their core: near 100 % the rate is theirs and not
the client's, as it is bound to be with a round trip of 0 or 1 ms. A round trip takes longer than it
is told to, by what the kernel takes to wake somebody up: it is measured with NOOPs before.
"""

import argparse
import smtplib
import time
from collections.abc import Callable
from dataclasses import dataclass

import stand
import peers
import sinks

_FASTEST = 30_000  # mails a second: more were never seen, so more need not wait
_SPARE_S = 4.0
_NOOPS = 21


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those who are compared; `run` sends, and returns how fast and how many in all."""

    name: str
    run: Callable[[sinks.Host, float], tuple[stand.Run, int]]


def main() -> None:
    """Run all contenders at all distances, and print a table for each."""
    args = _arguments()
    stand.introduce(**vars(args))
    contenders = _contenders(args)
    for rtt_ms in args.rtt_ms:
        with sinks.far(rtt_ms) as host:
            _compare(contenders, host, rtt_ms, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--rtt-ms", type=_numbers, default=[0.0, 1.0, 10.0, 50.0])
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    return parser.parse_args()


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _contenders(args: argparse.Namespace) -> list[Contender]:
    found = [
        Contender("geomail, DATA", lambda host, rtt_s: _geomail(host, rtt_s, args, "off")),
        Contender("geomail, CHUNKING", lambda host, rtt_s: _geomail(host, rtt_s, args, "on")),
    ]
    for peer in (peers.smtplib, peers.aiosmtplib, peers.nodemailer):
        if _is_wanted(peer.__name__, args):
            try:
                found.append(_contender(peer(), args))
            except peers.Missing as missing:
                print(f"skipped     {peer.__name__}: {missing}")
    found = [contender for contender in found if _is_wanted(contender.name, args)]
    if not found:
        raise SystemExit("--only names nobody: geomail, smtplib, aiosmtplib, nodemailer")
    print()
    return found


def _is_wanted(name: str, args: argparse.Namespace) -> bool:
    return not args.only or any(wanted.lower() in name.lower() for wanted in args.only)


def _contender(peer: peers.Peer, args: argparse.Namespace) -> Contender:
    content = stand.message(args.size)
    how = {"connections": args.connections, "warm_s": args.warm, "timed_s": args.seconds}
    print(f"peer        {peer.name}, {peer.use}")
    return Contender(peer.name, lambda host, _rtt_s: peer.run(host.port, content, **how))


def _compare(
    contenders: list[Contender], host: sinks.Host, rtt_ms: float, args: argparse.Namespace
) -> None:
    bound = args.connections / rtt_ms * 1000 if rtt_ms else 0.0
    told = f", bound {bound:,.0f} mails/s" if bound else ", straight to the sink"
    print(f"round trip {rtt_ms:g} ms{told}, NOOP {_noop_ms(host.port):.2f} ms")
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    costs: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(args.runs):
        first = number % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            run = _run(contender, host, rtt_ms / 1000, bound)
            rates[contender.name].append(run.rate)
            costs[contender.name].append(run.cpu_us)
    print(f"median of {args.runs}")
    for name, seen in rates.items():
        _print(name, stand.Run(stand.median(seen), stand.median(costs[name])), bound)
    print()


def _run(contender: Contender, host: sinks.Host, rtt_s: float, bound: float) -> stand.Run:
    before, used = host.taken(), host.cpu_s()
    run, claimed = contender.run(host, rtt_s)
    taken = host.taken() - before
    if taken != claimed:
        raise SystemExit(f"{contender.name} sent {claimed:,}, and the sink took {taken:,}")
    shares = [
        (after - earlier) / max(1, taken) * run.rate
        for earlier, after in zip(used, host.cpu_s(), strict=True)
    ]
    busy = f"  host: sink {shares[0]:4.0%}, delay line {shares[1]:4.0%}"
    _print(contender.name, run, bound, busy)
    return run


def _print(name: str, run: stand.Run, bound: float, more: str = "") -> None:
    part = f"{run.rate / bound:6.2f} of the bound" if bound else " " * 19
    print(f"  {name:<20}{run.rate:>9,.0f} mails/s {part} {run.cpu_us:7.1f} µs{more}", flush=True)


def _geomail(
    host: sinks.Host, rtt_s: float, args: argparse.Namespace, chunking: str
) -> tuple[stand.Run, int]:
    in_flight = args.in_flight if chunking == "on" else 1
    fastest = min(_FASTEST, args.connections * in_flight / rtt_s if rtt_s else _FASTEST)
    count = int(fastest * (args.warm + args.seconds + _SPARE_S))
    config = f'[relay.default]\nurl = "smtp://127.0.0.1:{host.port}"\nchunking = "{chunking}"\n'
    config += f"in_flight = {args.in_flight}\n"
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, count, size=args.size)
        flags = ["--redis", url, "--concurrency", str(args.connections)]
        with stand.worker(folder, flags, config=config) as worker:
            run = stand.watch_midway(queue, worker, warm_s=args.warm, timed_s=args.seconds)
            worker.drain()
        return run, queue.counts().stats.get("delivered", 0)


def _noop_ms(port: int) -> float:
    took = []
    with smtplib.SMTP("127.0.0.1", port) as client:
        for _ in range(_NOOPS):
            began = time.perf_counter()
            client.noop()
            took.append((time.perf_counter() - began) * 1000)
    return stand.median(took)


if __name__ == "__main__":
    main()
