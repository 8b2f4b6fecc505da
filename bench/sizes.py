"""Large mails: how fast they go, and how much memory they need.

    python bench/sizes.py [--part rate|one|many]... [--runs 5] [--count 6000]
                          [--megabytes 10] [--waiting 60] [--slow 1]

    rate   COUNT mails with text of 100 KB into Postfix's smtp-sink, beside
           `smtp-source -d -s 20 -l 102400` into the same one, by turns; timed as in throughput.py.
    one    one mail of 10 MB at a time (concurrency 1, one pushed when the one before is settled):
           the most memory that the worker has held, over what it held before the first, in parts of
           the octets on the wire; after the first one and after five, and what it holds at rest
           then. Once as text, once as an attachment, which comes as base64.
    many   WAITING such mails on the list, concurrency 20: the same for all of them, and the most
           payloads that were in the worker's hands at a look (`memory_mb` bounds those, and they
           are counted as Redis counts them: taken and not settled). Into a sink that answers each
           DATA after SLOW seconds, so that mails are held as long as hosts have them held.

Memory is the resident set, its peak as the kernel keeps it (VmHWM), reset before the first mail.
`rate` needs smtp-sink and smtp-source; for the others the host is smtp-sink too, on the other core.
"""

import argparse
import base64
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import stand

from geomail.config import Settings
from geomail.demo.processes import Worker
from geomail.job import Address, Email, decode
from geomail.letter import compose
from geomail.queue import Queue

_RATE_SIZE = 102_400
_CONCURRENCY = 20
_ONES = 5
_LOOK_S = 0.01
_PATIENCE_S = 120.0
_KINDS = ("text", "attachment")


def main() -> None:
    """Run the parts that were asked for."""
    args = _arguments()
    stand.introduce(**vars(args))
    with stand.smtp_sink() as port:
        for part in args.part or _PARTS:
            _PARTS[part](port, args)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--part", action="append", choices=tuple(_PARTS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=6_000)
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--waiting", type=int, default=60)
    parser.add_argument("--slow", type=int, default=1)
    return parser.parse_args()


# ---- 100 KB


def _rate(port: int, args: argparse.Namespace) -> None:
    stand.need("smtp-source")
    ours: list[stand.Run] = []
    theirs: list[float] = []
    for number in range(args.runs):
        for is_ours in (True, False) if number % 2 else (False, True):
            if is_ours:
                ours.append(_geomail(port, args))
            else:
                theirs.append(_smtp_source(port, args))
    rate, their_rate = stand.median([run.rate for run in ours]), stand.median(theirs)
    cpu_us = stand.median([run.cpu_us for run in ours])
    print(f"rate   median of {args.runs}: geomail {rate:,.0f} mails/s at {cpu_us:,.0f} µs,", end="")
    print(f" smtp-source {their_rate:,.0f}, ratio {rate / their_rate:.2f}\n", flush=True)


def _geomail(port: int, args: argparse.Namespace) -> stand.Run:
    with stand.fresh_queue() as (queue, url, folder):
        stand.push(queue, args.count, size=_RATE_SIZE)
        with stand.worker(folder, _flags(port, url, _CONCURRENCY)) as worker:
            run = stand.watch(queue, worker, args.count)
            print(f"  geomail      {run.rate:>8,.0f} mails/s  {run.cpu_us:6,.0f} µs of CPU a mail")
            worker.drain()
    return run


def _smtp_source(port: int, args: argparse.Namespace) -> float:
    rate = stand.smtp_source(port, count=args.count, size=_RATE_SIZE, concurrency=_CONCURRENCY)
    print(f"  smtp-source  {rate:>8,.0f} mails/s", flush=True)
    return rate


def _flags(port: int, url: str, concurrency: int) -> list[str]:
    relay = f"smtp://127.0.0.1:{port}"
    return ["--relay", relay, "--redis", url, "--concurrency", str(concurrency)]


# ---- 10 MB


def _one(port: int, args: argparse.Namespace) -> None:
    for kind in _KINDS:
        payload = _payload(kind, int(args.megabytes * 1e6))
        with (
            stand.fresh_queue() as (queue, url, folder),
            stand.worker(folder, _flags(port, url, 1)) as worker,
        ):
            idle_mb = _settle_in(queue, worker)
            for number in range(1, _ONES + 1):
                queue.push([payload])
                _wait(queue, worker, 1 + number)
                if number in (1, _ONES):
                    over_mb = _memory_mb(worker, "VmHWM") - idle_mb
                    _print_peak(f"{number}", kind, payload, over_mb=over_mb)
            rest_mb = _memory_mb(worker, "VmRSS") - idle_mb
            print(f"       at rest {rest_mb:,.0f} MB over what it was before", flush=True)
            worker.drain()


def _many(_port: int, args: argparse.Namespace) -> None:
    bound_mb = Settings().memory_mb
    for kind in _KINDS:
        with stand.smtp_sink("-w", str(args.slow)) as port:
            _many_of(kind, port, bound_mb, args)


def _many_of(kind: str, port: int, bound_mb: int, args: argparse.Namespace) -> None:
    payload = _payload(kind, int(args.megabytes * 1e6))
    with stand.fresh_queue() as (queue, url, folder):
        flags = _flags(port, url, _CONCURRENCY)
        with stand.worker(folder, flags) as worker:
            idle_mb = _settle_in(queue, worker)
            worker.drain()
        for _ in range(args.waiting):
            queue.push([payload])
        with stand.worker(folder, flags) as worker:
            held = _wait(queue, worker, 1 + args.waiting)
            over_mb = _memory_mb(worker, "VmHWM") - idle_mb
            _print_peak(f"{args.waiting}", kind, payload, over_mb=over_mb)
            worker.drain()
    held_mb = held * len(payload) / 1e6
    print(f"       at most {held} of {args.waiting} were in its hands at a look:", end="")
    print(f" {held_mb:,.0f} MB of payloads, memory_mb is {bound_mb}", flush=True)


def _payload(kind: str, size: int) -> bytes:
    """Return a mail of about `size` octets on the wire, as a producer pushes it."""
    if kind == "text":
        return stand.mail(1, stand.text_of(size))
    blob = base64.b64encode(os.urandom(size * 3 // 4)).decode()
    fields = {"to": "demo@example.com", "subject": "The plans", "body": "See there.\n"}
    return json.dumps(fields | {"attachments": [{"filename": "a.zip", "content": blob}]}).encode()


def _octets(payload: bytes) -> int:
    email = decode(payload)
    assert isinstance(email, Email)
    sender = Address(stand.SENDER, "")
    return len(compose(email, id="1", first_seen_ms=0, sender=sender, eight_bit=True).content)


def _settle_in(queue: Queue, worker: Worker) -> float:
    """Deliver a small mail, forget the peak so far, and return what is held in MB then."""
    stand.push(queue, 1, size=1024)
    _wait(queue, worker, 1)
    with suppress(OSError):
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
    return _memory_mb(worker, "VmRSS")


def _wait(queue: Queue, worker: Worker, delivered: int) -> int:
    """Wait until so many are delivered in all; return the most that were in its hands at a look."""
    most, deadline = 0, time.monotonic() + _PATIENCE_S
    while True:
        counts = queue.counts()
        if counts.stats.get("delivered", 0) >= delivered:
            return most
        most = max(most, sum(held.jobs for held in counts.workers.values()))
        if counts.dead or not worker.is_running() or time.monotonic() > deadline:
            raise SystemExit(f"not delivered, {counts.dead} dead: {worker.last_words()}")
        time.sleep(_LOOK_S)


def _memory_mb(worker: Worker, field: str) -> float:
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"the kernel does not tell {field}")


def _print_peak(mails: str, kind: str, payload: bytes, *, over_mb: float) -> None:
    wire_mb = _octets(payload) / 1e6
    print(f"{mails:>3} of {kind:<11} {wire_mb:.1f} MB on the wire, payload", end="")
    print(f" {len(payload) / 1e6:.1f} MB: {over_mb:,.0f} MB over idle at the most,", end="")
    print(f" {over_mb / wire_mb:.1f} x the wire", flush=True)


_PARTS = {"rate": _rate, "one": _one, "many": _many}


if __name__ == "__main__":
    main()
