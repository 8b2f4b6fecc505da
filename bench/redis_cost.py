"""What the queue costs Redis, and the longest that one call holds it up.

    python bench/redis_cost.py [--count 50000] [--runs 3] [--depth 1000000] [--only PART]

PART is cost, waiting, delayed, dead or sizes; all of them without it. Each has a fresh append-only
Redis (fsync every second), the redis-server that comes first on PATH. This script is the one
client; it takes and settles, and delivers nothing.

cost: COUNT mails of 1 KB, taken by 128 and settled by 64. CPU time of Redis is used_cpu of INFO
(all of its threads: reading, scripts, the append-only file, fsync); `scripts` is the part that
commandstats charges to EVALSHA. Beside it, as many fetched by RPOP with a count of 128, which loses
them with its client: what any queue has to pay.

waiting, delayed, dead: the longest call of each kind while DEPTH jobs of 100 bytes wait, are
delayed, or are dead. Taken are 10,000 jobs of 2 KB in batches of 1,000, so 2 MB a take: they lie
where a take looks first; for delayed they are due. Of each batch half is settled as delivered, a
quarter is delayed, a quarter dead, 64 records a call. Every call is in SLOWLOG, which tells time
that has passed: on a machine that does other things the longest may be theirs. So beside it stands
the longest by CPU time of Redis's main thread, reading the request and writing the reply included.

sizes: a payload alone, taken, delayed, taken again (by reference now), settled.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import stand
import redis

from geomail.queue import FRESH, Dead, Done, JobState, Queue, Record, Retry, Slot
from geomail.queue.keys import Keys
from geomail.queue.link import Script

_PARTS = ("cost", "waiting", "delayed", "dead", "sizes")
_TAKE, _SETTLE = 128, 64
_DEEP_TAKE, _DEEP_COUNT, _DEEP_SIZE, _SMALL = 1000, 10_000, 2000, b"x" * 100
_SIZES = (1_000, 100_000, 1_000_000, 5_000_000)
_TIMES = 10
_PIECE = 1000
_DAY_MS = 86_400_000
_VERBS = ("take", "settle", "beat", "reap", "dead", "push", "claim")


def main() -> None:
    """Run the parts that were asked for, each with its table."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.WORKERS_CORE)
    parts = [args.only] if args.only else _PARTS
    if "cost" in parts:
        _print_cost(args)
    if deep := [part for part in parts if part in ("waiting", "delayed", "dead")]:
        _print_deep(deep, args.depth)
    if "sizes" in parts:
        _print_sizes()


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--depth", type=int, default=1_000_000)
    parser.add_argument("--only", choices=_PARTS)
    return parser.parse_args()


@contextmanager
def _queue() -> Iterator[tuple[Queue, "Observer"]]:
    with stand.fresh_queue() as (queue, url, _):
        observer = Observer(url)
        # With one core for it, its child that rewrites the append-only file would hold it up.
        os.sched_setaffinity(observer.redis.info("server")["process_id"], stand.CORES)
        queue.register()
        _round(queue, b"{}")  # loads the scripts
        yield queue, observer
        observer.redis.close()


# ---- looking at Redis


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time of Redis, of its scripts, and of this process until now; calls of scripts."""

    redis_s: float
    scripts_s: float
    ours_s: float
    calls: int

    def since(self, before: "Spent", mails: int) -> "Spent":
        """Return what was spent since `before`, in µs a mail; calls are all of them."""
        return Spent(
            (self.redis_s - before.redis_s) / mails * 1e6,
            (self.scripts_s - before.scripts_s) / mails * 1e6,
            (self.ours_s - before.ours_s) / mails * 1e6,
            self.calls - before.calls,
        )


class Observer:
    """What Redis tells of itself."""

    def __init__(self, url: str) -> None:
        self.redis: Any = redis.Redis.from_url(url)
        self._verbs = {Script(verb).sha: verb for verb in _VERBS}

    def spent(self) -> Spent:
        """Return the CPU time spent until now."""
        cpu, stats = self.redis.info("cpu"), self.redis.info("commandstats")
        scripts = stats.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
        redis_s = cpu["used_cpu_sys"] + cpu["used_cpu_user"]
        return Spent(redis_s, scripts["usec"] / 1e6, time.process_time(), scripts["calls"])

    def main_thread_s(self) -> float:
        """Return the CPU time that the main thread has spent until now."""
        cpu = self.redis.info("cpu")
        spent: float = cpu["used_cpu_sys_main_thread"] + cpu["used_cpu_user_main_thread"]
        return spent

    def begin(self) -> None:
        """Forget the calls until now, and keep all from now on; wait for what runs beside."""
        while self.redis.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.1)
        self.redis.config_set("slowlog-max-len", 1_000_000)
        self.redis.config_set("slowlog-log-slower-than", 0)
        self.redis.slowlog_reset()

    def calls(self) -> dict[str, list[int]]:
        """Return the durations of all calls since `begin` in µs, by verb, in their order."""
        self.redis.config_set("slowlog-log-slower-than", -1)
        found = defaultdict(list)
        for entry in reversed(self.redis.slowlog_get(1_000_000)):
            words = entry["command"].split(b" ", 2)
            verb = self._verbs.get(words[1], "?") if words[0] == b"EVALSHA" else words[0].decode()
            found[verb].append(int(entry["duration"]))
        self.redis.slowlog_reset()
        return found


# ---- the cost of a mail


def _print_cost(args: argparse.Namespace) -> None:
    print(f"1 KB, {args.count:,} mails, takes of {_TAKE}, settles of {_SETTLE}: µs of CPU a mail\n")
    print("| run | Redis | of that scripts | this client | calls a mail | Redis, RPOP alone |")
    print("|---|---|---|---|---|---|")
    runs = []
    for number in range(1, args.runs + 1):
        ours, bare = _cost(args.count), _cost_of_rpop(args.count)
        runs.append(ours.redis_s)
        told = f"{ours.redis_s:.1f} | {ours.scripts_s:.1f} | {ours.ours_s:.1f}"
        print(
            f"| {number} | {told} | {ours.calls / args.count:.3f} | {bare.redis_s:.1f} |",
            flush=True,
        )
    print(f"\nmedian: {stand.median(runs):.1f} µs of Redis CPU a mail\n", flush=True)


def _cost(count: int) -> Spent:
    with _queue() as (queue, observer):
        stand.push(queue, count, size=1024)
        before = observer.spent()
        beat_s, taken = time.monotonic(), 0
        while taken < count:
            slots = queue.take(_TAKE).slots
            taken += len(slots)
            for part in _pieces(slots, _SETTLE):
                queue.settle([Done(slot) for slot in part])
            if time.monotonic() > beat_s + queue.beat_s:
                queue.beat()
                beat_s = time.monotonic()
        return observer.spent().since(before, count)


def _cost_of_rpop(count: int) -> Spent:
    with _queue() as (queue, observer):
        stand.push(queue, count, size=1024)
        before = observer.spent()
        while observer.redis.rpop(queue.name, _TAKE):
            pass
        return observer.spent().since(before, count)


# ---- the longest call beside a million others


def _print_deep(parts: Sequence[str], depth: int) -> None:
    what = f"{_DEEP_COUNT:,} jobs of {_DEEP_SIZE:,} bytes, takes of {_DEEP_TAKE:,}"
    print(f"{what}: each call in ms, beside {depth:,} others\n")
    print("| beside | verb | calls | median | longest | longest, CPU |")
    print("|---|---|---|---|---|---|")
    for part in parts:
        with _queue() as (queue, observer):
            keys = Keys(queue.name)
            _fill(part, observer.redis, keys, depth)
            queue.beat()
            observer.begin()
            longest = _work(queue, observer)
            if part == "dead":
                queue.dead_list(50)
                queue.dead_reasons()
                queue.expire_dead(30)
            queue.counts()
            _print_calls(part, observer.calls(), longest)
    print(flush=True)


def _fill(part: str, server: Any, keys: Keys, depth: int) -> None:
    """Lay down `depth` small jobs, and those that will be taken."""
    now_ms = int(time.time() * 1000)
    mails = [stand.mail(number, stand.text_of(_DEEP_SIZE - 90)) for number in range(_DEEP_COUNT)]
    if part == "waiting":
        _write_list(server, keys.list, [_SMALL] * depth)
    elif part == "delayed":
        _write_jobs(server, keys, keys.delayed, [_SMALL] * depth, at_ms=now_ms + _DAY_MS)
        _write_jobs(server, keys, keys.delayed, mails, at_ms=now_ms - 1000)
        return
    else:
        old = depth // 100  # these expire
        _write_jobs(server, keys, keys.dead, [_SMALL] * (depth - old), at_ms=now_ms - _DAY_MS)
        _write_jobs(server, keys, keys.dead, [_SMALL] * old, at_ms=now_ms - 40 * _DAY_MS)
    _write_list(server, keys.list, mails, at_the_end=True)


def _write_list(
    server: Any, key: bytes, payloads: Sequence[bytes], *, at_the_end: bool = False
) -> None:
    push = server.rpush if at_the_end else server.lpush
    for piece in _pieces(payloads, _PIECE):
        push(key, *piece)


def _write_jobs(
    server: Any, keys: Keys, places: bytes, payloads: Sequence[bytes], *, at_ms: int
) -> None:
    """Lay down jobs as a settle does, each with a time of its own."""
    state = b'0 %d {"tries":1,"last":"450 later"}\n' % at_ms
    for seq, piece in enumerate(_pieces(payloads, _PIECE), 1):
        ids = [f"{at_ms:016x}.{seq}.{index}" for index in range(len(piece))]
        with server.pipeline(transaction=False) as pipe:
            pipe.hset(
                keys.jobs, mapping=dict(zip(ids, (state + job for job in piece), strict=True))
            )
            pipe.zadd(places, {job_id: at_ms + index for index, job_id in enumerate(ids)})
            pipe.execute()


def _work(queue: Queue, observer: Observer) -> dict[str, float]:
    """Take and settle, and return the longest call of both by CPU time, in s."""
    longest = {"take": 0.0, "settle": 0.0}

    def timed(verb: str, call: Callable[[], Any]) -> Any:
        before_s = observer.main_thread_s()
        reply = call()
        longest[verb] = max(longest[verb], observer.main_thread_s() - before_s)
        return reply

    taken = 0
    while taken < _DEEP_COUNT:
        slots = timed("take", lambda: queue.take(_DEEP_TAKE)).slots
        # Small ones come in the last batch only; one without any other would be a mistake.
        taken += sum(len(slot.payload) > len(_SMALL) for slot in slots) or _DEEP_COUNT
        records = [_record(number, slot) for number, slot in enumerate(slots)]
        for part in _pieces(records, _SETTLE):
            timed("settle", partial(queue.settle, part))
        queue.beat()
    return longest


def _record(number: int, slot: Slot) -> Record:
    if number % 4 == 0:
        return Retry(slot, _DAY_MS, JobState(tries=1, last="450 4.2.0 later"))
    if number % 4 == 1:
        return Dead(slot, JobState(tries=1, reason="550 5.1.1 no such user"))
    return Done(slot)


def _print_calls(part: str, calls: dict[str, list[int]], longest: dict[str, float]) -> None:
    for verb in (*_VERBS, "EXEC"):
        if took := calls.get(verb):
            told = f"{stand.median(took) / 1000:.2f} | {max(took) / 1000:.2f}"
            cpu = f"{longest[verb] * 1000:.2f}" if verb in longest else ""
            print(f"| {part} | {verb} | {len(took)} | {told} | {cpu} |", flush=True)


# ---- large payloads


def _print_sizes() -> None:
    print(f"a payload alone, {_TIMES} times: longest (median) call in ms\n")
    print("| bytes | take | delay | take again | settle |")
    print("|---|---|---|---|---|")
    for size in _SIZES:
        with _queue() as (queue, observer):
            observer.begin()
            for _ in range(_TIMES):
                _round(queue, stand.mail(0, stand.text_of(size - 90)))
            calls = observer.calls()
        columns = [calls["take"][::2], calls["settle"][::2]]
        columns += [calls["take"][1::2], calls["settle"][1::2]]
        told = (
            f"{max(column) / 1000:.2f} ({stand.median(column) / 1000:.2f})" for column in columns
        )
        print(f"| {size:,} | {' | '.join(told)} |", flush=True)


def _round(queue: Queue, payload: bytes) -> None:
    queue.push([payload])
    [slot] = queue.take(_TAKE).slots
    queue.settle([Retry(slot, 0, FRESH)])
    [again] = queue.take(_TAKE).slots
    queue.settle([Done(again)])
    queue.beat()


def _pieces(values: Sequence[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


if __name__ == "__main__":
    main()
