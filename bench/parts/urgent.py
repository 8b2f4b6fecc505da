"""An urgent mail behind 100,000 others for the same relay, at full speed.

Two lists, urgent=8 and bulk=1, and one host that answers at once. An urgent mail is pushed every
5 to 15 ms; its time is that from the call of LPUSH to the 250. By turns, RUNS times:

    empty     urgent mails alone, for 5 s
    bulk      BULK mails alone
    both      BULK mails, and urgent ones from the first of them to the last

The rate of the bulk is that of its middle eight tenths. Then weights: three lists, 8, 4 and 1, with
BULK / 4 mails each, and the shares among those that arrived while none was near its end; with 1, 20
and 200 connections.
"""

import itertools
import random
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import stand
import redis
from farm import Arrival, Plan
from trial import Books, Trial, aim, mails, trial

from geomail.queue import Link, Queue

_URGENT, _BULK = "urgent", "bulk"
_FLAGS = ("--queue", f"{_URGENT}=8", "--queue", f"{_BULK}=1")
_FIRST_URGENT = 10_000_000
_EVERY_S = (0.005, 0.015)
_EMPTY_S, _QUICK_EMPTY_S = 5.0, 2.0
_WEIGHTS = {"eight": 8, "four": 4, "one": 1}
_CONCURRENCIES = (1, 20, 200)
_ALLOWED_S, _TIMES_EMPTY, _LEAST_BULK, _MOST_OFF = 0.020, 3, 0.95, 0.10


@dataclass(slots=True)
class _Seen:
    """What the turns have shown so far."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: {"empty": [], "both": []})
    rates: dict[str, list[float]] = field(default_factory=lambda: {"bulk": [], "both": []})


def run(args: Namespace) -> None:
    """Run the turns, then the weights."""
    seen = _Seen()
    for number in range(args.runs):
        turns = [_empty, _bulk, _both]
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn(seen, args)
    empty, both = (sorted(seen.took_s[name]) for name in ("empty", "both"))
    allowed_s = max(_ALLOWED_S, _TIMES_EMPTY * _p99(empty))
    print(f"urgent  empty: {_told(empty)}")
    said = aim(f"p99 of {allowed_s * 1000:.1f} ms at most", is_met=_p99(both) <= allowed_s)
    print(f"        behind bulk: {_told(both)} {said}")
    alone, beside = (stand.median(seen.rates[name]) for name in ("bulk", "both"))
    said = aim("0.95", is_met=beside >= _LEAST_BULK * alone)
    print(f"        bulk {alone:,.0f} mails/s alone, {beside:,.0f} with urgent ones:", end=" ")
    print(f"{beside / alone:.3f} {said}", flush=True)
    for concurrency in _CONCURRENCIES:
        _weights(concurrency, args)


def _p99(sorted_s: list[float]) -> float:
    return sorted_s[len(sorted_s) * 99 // 100]


def _told(sorted_s: list[float]) -> str:
    p50_ms, p99_ms = sorted_s[len(sorted_s) // 2] * 1000, _p99(sorted_s) * 1000
    worst_ms = sorted_s[-1] * 1000
    return f"{len(sorted_s):,} mails, p50 {p50_ms:.2f}, p99 {p99_ms:.2f}, worst {worst_ms:.2f} ms"


# ---- the turns


def _empty(seen: _Seen, args: Namespace) -> None:
    ends_s = _QUICK_EMPTY_S if args.quick else _EMPTY_S
    with trial([Plan("host")]) as this:
        with this.hire([*_FLAGS, "--relay", this.farm.url("host")]) as worker:
            this.wait_for(lambda: "running" in _log(this), worker, "for a worker")
            began_s = time.monotonic()
            pushed = _push_urgent(this, until=lambda: time.monotonic() > began_s + ends_s)
            arrivals = this.arrived(len(pushed), worker, within_s=30)
        print(f"urgent  empty: {_books(this, _URGENT, _BULK)}", flush=True)
    # The first one makes the connection.
    seen.took_s["empty"] += _took(pushed, arrivals)[1:]


def _bulk(seen: _Seen, args: Namespace) -> None:
    _beside("bulk", seen, args)


def _both(seen: _Seen, args: Namespace) -> None:
    _beside("both", seen, args)


def _beside(name: str, seen: _Seen, args: Namespace) -> None:
    with trial([Plan("host")]) as this:
        this.push(mails(range(args.bulk), size=args.size), Queue(Link(this.url), _BULK))
        pushed: dict[int, float] = {}
        with this.hire([*_FLAGS, "--relay", this.farm.url("host")]) as worker:
            this.wait_for(lambda: this.farm.mails(["host"]) > 0, worker, "for a first mail")
            if name == "both":
                pushed = _push_urgent(
                    this, until=lambda: this.farm.mails(["host"]) >= 0.95 * args.bulk
                )
            arrivals = this.arrived(args.bulk + len(pushed), worker, within_s=120)
            cpu_us = stand.cpu_s(worker.pid) / len(arrivals) * 1e6
        bulk = [arrival for arrival in arrivals if arrival.number < _FIRST_URGENT]
        seen.rates[name].append(_middle_rate(bulk))
        if pushed:
            seen.took_s[name] += _took(pushed, arrivals)
        told = f"{seen.rates[name][-1]:,.0f} mails/s, {cpu_us:.0f} µs of CPU a mail with the start;"
        told += f" {_books(this, _URGENT, _BULK)}"
        print(f"urgent  {name}: {told}", flush=True)


def _push_urgent(this: Trial, until: Callable[[], bool]) -> dict[int, float]:
    """Push one urgent mail after the other, and return the time of each one's LPUSH."""
    pushed = {}
    with redis.Redis.from_url(this.url) as server:
        for number in itertools.count(_FIRST_URGENT):
            payload = stand.mail(number, stand.text_of(1024))
            pushed[number] = time.monotonic()
            server.lpush(_URGENT, payload)
            this.pushed += 1
            if until():
                return pushed
            time.sleep(random.uniform(*_EVERY_S))
    return pushed


def _took(pushed: dict[int, float], arrivals: list[Arrival]) -> list[float]:
    at_s = {arrival.number: arrival.at_s for arrival in reversed(arrivals)}
    late = [number for number in pushed if number not in at_s]
    if late:
        print(f"        {len(late):,} urgent mails did not arrive in time", flush=True)
    return [at_s[number] - pushed_s for number, pushed_s in pushed.items() if number in at_s]


def _middle_rate(arrivals: list[Arrival]) -> float:
    first, last = len(arrivals) // 10, len(arrivals) * 9 // 10
    return (last - first) / (arrivals[last].at_s - arrivals[first].at_s)


def _log(this: Trial) -> str:
    return (this.folder / "worker" / "worker.log").read_text()


def _books(this: Trial, *lists: str) -> Books:
    return this.books(*(Queue(Link(this.url), name) for name in lists))


# ---- weights


def _weights(concurrency: int, args: Namespace) -> None:
    each, dues = args.bulk // 4, [w / sum(_WEIGHTS.values()) for w in _WEIGHTS.values()]
    timed = int(0.8 * each / max(dues))  # by then the heaviest list has had eight tenths
    flags = ["--concurrency", concurrency]
    flags += [f for name, weight in _WEIGHTS.items() for f in ("--queue", f"{name}={weight}")]
    with trial([Plan("host")]) as this:
        for number, name in enumerate(_WEIGHTS):
            numbers = range(number * _FIRST_URGENT, number * _FIRST_URGENT + each)
            this.push(mails(numbers, size=args.size), Queue(Link(this.url), name))
        with this.hire([*flags, "--relay", this.farm.url("host")]) as worker:
            arrivals = this.arrived(timed, worker, within_s=60 + timed / 500)
        books = _books(this, *_WEIGHTS)
    seen = Counter(arrival.number // _FIRST_URGENT for arrival in arrivals[timed // 20 : timed])
    had = [seen[number] / seen.total() / due for number, due in enumerate(dues)]
    worst = max(abs(part - 1) for part in had)
    print(f"urgent  weights, {concurrency} connections: each list had", end=" ")
    print(", ".join(f"{part:.3f}" for part in had), "of its due:", end=" ")
    print(f"{worst:.1%} off at most {aim('10 %', is_met=worst <= _MOST_OFF)}; {books}", flush=True)
