"""An urgent mail behind bulk on one relay, and lists that share it by weight.

    python bench/urgent.py [--bulk 100000] [--rate 30] [--seconds 4] [--concurrency 20] [--runs 3]
                           [--weights 8,4,1]

`urgent`: RATE urgent mails a second are pushed at even times, whether or not the one before has
arrived, for SECONDS: to a worker that has nothing else, and to one that is in the midst of BULK
mails of 1 KB, which all go to the same host (Postfix's smtp-sink, so that the worker's core is the
limit). Each is timed from before its LPUSH until a look at Redis, one each millisecond, shows it
settled: that is later than the 250, so the times are rather too long. The bulk rate is that of the
same seconds, beside the rate without urgent mails; the two take turns.

`weights`: all lists are full, and what was delivered of each in SECONDS is held against its weight.
"""

import argparse
import time
from dataclasses import dataclass

import stand

from geomail.queue import Link, Queue

_LOOK_S = 0.001
_WARM_S = 1.0
_PATIENCE_S = 20.0
_BULK, _URGENT = "bulk", "urgent"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run showed: bulk mails a second, and how long each urgent mail took, in seconds."""

    bulk_rate: float
    took_s: list[float]

    def part(self, share: float) -> float:
        """Return the time in ms within which so many of the urgent mails had arrived."""
        return sorted(self.took_s)[min(len(self.took_s) - 1, int(share * len(self.took_s)))] * 1e3


def main() -> None:
    """Run both parts, and print their tables."""
    args = _arguments()
    stand.introduce(**vars(args))
    with stand.smtp_sink() as port:
        overtaking(port, args)
        shares(port, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bulk", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--weights", type=_weights, default=[8, 4, 1])
    return parser.parse_args()


def _weights(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def overtaking(port: int, args: argparse.Namespace) -> None:
    """Time urgent mails without bulk and behind it, and the bulk without urgent ones and with."""
    empty, alone, behind = [], [], []
    for _ in range(args.runs):
        empty.append(_told("nothing else", run_urgent(port, args, bulk=0, rate=args.rate)))
        alone.append(_told("bulk alone", run_urgent(port, args, bulk=args.bulk, rate=0)))
        behind.append(_told("behind bulk", run_urgent(port, args, bulk=args.bulk, rate=args.rate)))
    free, late = (stand.median([seen.part(0.99) for seen in runs]) for runs in (empty, behind))
    before, rate = (stand.median([seen.bulk_rate for seen in runs]) for runs in (alone, behind))
    print(f"median of {args.runs}: p99 {free:.1f} ms, behind bulk {late:.1f} ms", end="")
    print(f" ({late / free:.1f} times); bulk {rate / before - 1:+.1%}\n", flush=True)


def _told(what: str, seen: Seen) -> Seen:
    times = ""
    if seen.took_s:
        p50, p99, most = seen.part(0.5), seen.part(0.99), seen.part(1)
        times = f"p50 {p50:6.1f}  p99 {p99:6.1f}  max {most:6.1f} ms"
    print(f"  {what:<14}{seen.bulk_rate:>9,.0f} bulk mails/s  {times}", flush=True)
    return seen


def run_urgent(port: int, args: argparse.Namespace, *, bulk: int, rate: float) -> Seen:
    """Return how urgent mails fare for some seconds, with so many bulk mails before them."""
    with stand.fresh_queue() as (_, url, folder):
        queues = {name: Queue(Link(url), name) for name in (_BULK, _URGENT)}
        stand.push(queues[_BULK], bulk, size=1024)
        stand.push(queues[_URGENT], 1, size=1024)
        flags = ["--redis", url, "--relay", f"smtp://127.0.0.1:{port}"]
        flags += ["--concurrency", str(args.concurrency)]
        flags += ["--queue", f"{_BULK}=1", "--queue", f"{_URGENT}=8"]
        with stand.worker(folder, flags) as worker:
            _wait_for(queues[_URGENT], 1)
            time.sleep(_WARM_S)
            before, began_s = _delivered(queues[_BULK]), time.monotonic()
            took_s = _time_urgent(queues[_URGENT], rate, args.seconds)
            delivered, ended_s = _delivered(queues[_BULK]) - before, time.monotonic()
            if bulk and not queues[_BULK].counts().waiting:
                raise SystemExit("the list ran empty: pass a larger --bulk")
            worker.drain()
        for queue in queues.values():
            queue.close()
    return Seen(delivered / (ended_s - began_s), took_s)


def _time_urgent(queue: Queue, rate: float, seconds: float) -> list[float]:
    """Push at even times, and look for what has arrived; return how long each took."""
    began_s, body = time.monotonic(), stand.text_of(1024)
    known = _delivered(queue)
    pushed_s: list[float] = []
    took_s: list[float] = []
    while (now_s := time.monotonic()) < began_s + seconds or len(took_s) < len(pushed_s):
        if rate and len(pushed_s) / rate <= now_s - began_s < seconds:
            pushed_s.append(now_s)
            queue.push([stand.mail(len(pushed_s), body)])
        elif len(took_s) < len(pushed_s):
            arrived = _delivered(queue) - known
            seen_s = time.monotonic()
            took_s += [seen_s - pushed_s[number] for number in range(len(took_s), arrived)]
            if now_s > began_s + seconds + _PATIENCE_S:
                raise SystemExit(f"{len(pushed_s) - len(took_s)} urgent mails don't arrive")
        time.sleep(_LOOK_S)
    return took_s


def shares(port: int, args: argparse.Namespace) -> None:
    """Show what full lists get of one relay, beside what their weights say."""
    with stand.fresh_queue() as (_, url, folder):
        names = {f"list{number}": weight for number, weight in enumerate(args.weights)}
        queues = {name: Queue(Link(url), name) for name in names}
        flags = ["--redis", url, "--relay", f"smtp://127.0.0.1:{port}"]
        flags += ["--concurrency", str(args.concurrency)]
        for name, weight in names.items():
            stand.push(queues[name], args.bulk, size=1024)
            flags += ["--queue", f"{name}={weight}"]
        with stand.worker(folder, flags) as worker:
            for queue in queues.values():
                _wait_for(queue, 1)
            time.sleep(_WARM_S)
            before = {name: _delivered(queue) for name, queue in queues.items()}
            time.sleep(args.seconds)
            got = {name: _delivered(queue) - before[name] for name, queue in queues.items()}
            if not all(queue.counts().waiting for queue in queues.values()):
                raise SystemExit("a list ran empty: pass a larger --bulk")
            worker.drain()
        for queue in queues.values():
            queue.close()
    for name, weight in names.items():
        part, due = got[name] / sum(got.values()), weight / sum(names.values())
        print(f"  weight {weight:<5}{got[name] / args.seconds:>9,.0f} mails/s", end="")
        print(f"  {part:6.1%}, due {due:6.1%} ({part / due - 1:+.1%})", flush=True)


def _delivered(queue: Queue) -> int:
    # A look costs 20 µs this way, with counts() 200.
    found: bytes | None = queue._desk.call("HGET", queue._keys.stats, "delivered")
    return int(found or 0)


def _wait_for(queue: Queue, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while _delivered(queue) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing of {queue.name} is delivered")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
