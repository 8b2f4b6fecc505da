"""What people use instead, beside geomail: mails a second into the same sink, in the same run.

    python bench/beside.py [--connections 20] [--size 1024] [--runs 5] [--warm 1] [--seconds 4]
                           [--only NAME]...

Two kinds of contenders, which should not be mixed up:

  jobs     take JSON jobs from a list of a fresh append-only Redis, compose each and send it. Only
           geomail settles: the others have forgotten a job once it is popped (Celery: once it has
           begun), write no outcome, and lose what was in hand when they are killed.
  wire     send one message made up before, over and over: no queue, no composing. What they show
           is the price of sending alone.

Python's own programs are there twice: `EmailMessage` composes and sends as the documentation of
email, smtplib and aiosmtplib says; `MIMEText` belongs to Python's legacy API, and takes a fifth of
the time to compose. At the end stands a table in which each is compared with geomail.

All send mails with a text of SIZE bytes over CONNECTIONS kept connections, one message at a time on
each, from one core; Redis, the sink and this script share the other. The sink is Postfix's
smtp-sink, which answers at once and counts. Timed are SECONDS, which begin WARM seconds after the
first mail: by the sink's count, and by the CPU time of all processes of the contender. Contenders
take turns, who begins changes, and medians are compared. After each turn what a contender claims to
have sent, and what is missing from its list, is held against the sink's count. A difference is told
(Celery, when it is ended, may put back a task that has been sent), and geomail's ends the bench.
What can't be had on this machine is skipped, and said.

Where others use the cores too, a rate tells little, and the CPU time a mail still something.
"""

import argparse
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import stand
import peers
import redis
import sinks

_LIST = "bench:mails"
_PATIENCE_S = 60.0
_LOOK_S = 0.02
# More jobs a second than any of them was ever seen to send, so that no list runs empty.
_OURS_A_SECOND, _THEIRS_A_SECOND = 35_000, 8_000
_SOURCE_A_SECOND = 45_000

_Install = Callable[[], peers.Peer]
_PYTHONS = (peers.redis_smtplib, peers.redis_gevent, peers.redis_aiosmtplib)
_TAKING_JOBS: tuple[_Install, ...] = (
    *(partial(install, way) for install in _PYTHONS for way in peers.WAYS),
    peers.celery_processes,
    peers.celery_greenlets,
    peers.phpmailer,
    peers.redis_nodemailer,
)
_SENDING_ONLY = (peers.nodemailer, peers.slimta)


class _Gone(Exception):
    """Who was to send has ended before its first mail came."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn showed, what the contender says it has sent, and what its list lacks."""

    run: stand.Run
    claimed: int
    popped: int | None = None


@dataclass(slots=True)
class Contender:
    """One of those who are compared, and what was seen of it."""

    kind: str
    name: str
    turn: Callable[[sinks.Counted], Turn]
    seen: list[stand.Run] = field(default_factory=list)


def main() -> None:
    """Let all take turns, and print medians and ratios."""
    args = _arguments()
    stand.introduce(**vars(args))
    contenders = _contenders(args)
    for number in range(args.runs):
        first = number % len(contenders)
        print(f"\nturn {number + 1}")
        for contender in contenders[first:] + contenders[:first]:
            contender.seen.append(take_turn(contender))
    _conclude(contenders, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    return parser.parse_args()


def _contenders(args: argparse.Namespace) -> list[Contender]:
    found = [Contender("jobs", "geomail", partial(_geomail, args))]
    found += _installed("jobs", _TAKING_JOBS, _taking_jobs, args)
    found += [Contender("wire", "smtp-source -d", partial(_smtp_source, args))]
    found += _installed("wire", _SENDING_ONLY, _sending_only, args)
    return [contender for contender in found if _is_wanted(contender.name, args)]


def _installed(
    kind: str,
    wanted: tuple[_Install, ...],
    turn: Callable[[argparse.Namespace, peers.Peer, sinks.Counted], Turn],
    args: argparse.Namespace,
) -> Iterator[Contender]:
    for install in wanted:
        try:
            peer = install()
        except peers.Missing as missing:
            print(f"skipped     {getattr(install, 'func', install).__name__}: {missing}")
            continue
        if _is_wanted(peer.name, args):
            print(f"peer        {peer.name}: {peer.use}")
            yield Contender(kind, peer.name, partial(turn, args, peer))


def _is_wanted(name: str, args: argparse.Namespace) -> bool:
    return not args.only or any(wanted.lower() in name.lower() for wanted in args.only)


def take_turn(contender: Contender) -> stand.Run:
    """Let it send into a sink of its own; ends the bench when geomail has miscounted."""
    with sinks.counted() as sink:
        turn = contender.turn(sink)
        taken = sink.taken()
    told = f"{turn.run.rate:>9,.0f} mails/s {turn.run.cpu_us:8.1f} µs of CPU a mail"
    odd = "" if taken == turn.claimed else f", but {turn.claimed:,} by its own account"
    if turn.popped not in (None, taken):
        odd += f", and {turn.popped:,} gone from its list"
    print(f"  {contender.kind}  {contender.name:<34}{told}, {taken:,} counted{odd}", flush=True)
    if odd and contender.name == "geomail":
        raise SystemExit("geomail has miscounted")
    return turn.run


def _geomail(args: argparse.Namespace, sink: sinks.Counted) -> Turn:
    count = _jobs(_OURS_A_SECOND, args)
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, count, size=args.size)
        flags = ["--relay", f"smtp://127.0.0.1:{sink.port}", "--redis", url]
        flags += ["--concurrency", str(args.connections)]
        with stand.worker(folder, flags) as worker:
            run = _watch(sink, worker.pid, lambda: worker.is_running(), args)
            worker.drain()
        counts = queue.counts()
        delivered = counts.stats.get("delivered", 0)
        if counts.waiting + delivered != count:
            left = f"{counts.waiting:,} left, {delivered:,} delivered"
            raise SystemExit(f"geomail: {count:,} jobs, {left}")
        if not counts.waiting:
            raise SystemExit("geomail: the list ran empty before the time was over")
        return Turn(run, delivered)


def _taking_jobs(args: argparse.Namespace, peer: peers.Peer, sink: sinks.Counted) -> Turn:
    count = _jobs(_THEIRS_A_SECOND, args)
    with stand.fresh_queue() as (_, url, _folder), redis.Redis.from_url(url) as link:
        port = link.connection_pool.connection_kwargs["port"]
        _push(link, peer, count, args.size)
        process = peer.start(sink.port, args.connections, port)
        with _ended(peer, process):
            run = _watch(sink, process.pid, lambda: process.poll() is None, args)
            process.send_signal(signal.SIGTERM)
            claimed = _claim(peer, process)
        left = link.llen(_LIST) if not peer.push else link.llen("celery") + link.hlen("unacked")
        if not left:
            raise SystemExit(f"{peer.name}: the list ran empty before the time was over")
        return Turn(run, claimed, count - left)


def _sending_only(args: argparse.Namespace, peer: peers.Peer, sink: sinks.Counted) -> Turn:
    process = peer.start(sink.port, args.connections, args.warm, args.seconds + 0.5)
    with _ended(peer, process):
        assert process.stdin is not None
        process.stdin.write(stand.message(args.size))
        process.stdin.close()
        process.stdin = None
        run = _watch(sink, process.pid, lambda: process.poll() is None, args)
        return Turn(run, _claim(peer, process))


def _smtp_source(args: argparse.Namespace, sink: sinks.Counted) -> Turn:
    count = _jobs(_SOURCE_A_SECOND, args)
    command = [stand.need("smtp-source"), "-d", "-s", str(args.connections), "-l", str(args.size)]
    command += ["-m", str(count), "-f", stand.SENDER, "-t", "demo@example.com"]
    with subprocess.Popen(
        [*command, f"127.0.0.1:{sink.port}"],
        preexec_fn=stand.on_core(stand.WORKERS_CORE),
        start_new_session=True,
    ) as process:
        run = _watch(sink, process.pid, lambda: process.poll() is None, args)
        if process.wait(_PATIENCE_S):
            raise SystemExit(f"smtp-source failed: status {process.returncode}")
    return Turn(run, count)


def _jobs(a_second: int, args: argparse.Namespace) -> int:
    return int(a_second * (args.warm + args.seconds + 1))


def _push(link: redis.Redis, peer: peers.Peer, count: int, size: int) -> None:
    body = stand.text_of(size)
    payloads = [stand.mail(number, body) for number in range(count)]
    if peer.push:
        port = str(link.connection_pool.connection_kwargs["port"])
        lines = b"\n".join(payloads)
        subprocess.run([*peer.push, port, "push"], input=lines, check=True)
        return
    for first in range(0, count, 1000):
        link.lpush(_LIST, *payloads[first : first + 1000])


def _watch(
    sink: sinks.Counted, pid: int, is_running: Callable[[], bool], args: argparse.Namespace
) -> stand.Run:
    deadline = time.monotonic() + _PATIENCE_S
    while not sink.taken():
        if not is_running():
            raise _Gone
        if time.monotonic() > deadline:
            raise SystemExit("nothing has come to the sink")
        time.sleep(_LOOK_S)
    time.sleep(args.warm)
    before, used, began = sink.taken(), stand.family_cpu_s(pid), time.monotonic()
    time.sleep(args.seconds)
    mails, seconds = sink.taken() - before, time.monotonic() - began
    return stand.Run(mails / seconds, (stand.family_cpu_s(pid) - used) / max(1, mails) * 1e6)


def _claim(peer: peers.Peer, process: "subprocess.Popen[bytes]") -> int:
    out, said = process.communicate(timeout=_PATIENCE_S)
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        raise SystemExit(f"{peer.name} failed: {lines[-1] if lines else process.returncode}")
    return int(json.loads(out.splitlines()[-1])["all"])


@contextmanager
def _ended(peer: peers.Peer, process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    except _Gone:
        _claim(peer, process)  # says why
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.wait()


def _conclude(contenders: list[Contender], args: argparse.Namespace) -> None:
    seen = {contender.name: _median(contender) for contender in contenders}
    ours = seen.get("geomail")
    print(f"\nmedians of {args.runs}\n")
    print("| | kind | mails/s | CPU a mail | geomail is | its mail costs |")
    print("|---|---|---|---|---|---|")
    for contender in contenders:
        run = seen[contender.name]
        told = f"{run.rate:,.0f} | {run.cpu_us:,.0f} µs"
        times = " | "
        if ours and run is not ours:
            times = f"{ours.rate / run.rate:.1f} times as fast"
            times += f" | {run.cpu_us / ours.cpu_us:.1f} times geomail's"
        print(f"| {contender.name} | {contender.kind} | {told} | {times} |")


def _median(contender: Contender) -> stand.Run:
    rates = [run.rate for run in contender.seen]
    return stand.Run(stand.median(rates), stand.median([run.cpu_us for run in contender.seen]))


if __name__ == "__main__":
    main()
