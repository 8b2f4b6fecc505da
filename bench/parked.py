"""What mail costs while it waits for a host that is closed.

    python bench/parked.py [--mails 1000000] [--met 20000] [--routes 100000] [--rest 10]

A worker has two relays: `open`, a sink that takes everything, and `closed`, where nobody listens.
First nothing waits. Then MET mails for `closed` are pushed at once, and the worker parks them:
told is how long that takes, at a bounded rate. Somebody else parks more, until MAILS wait for it.
Then as many routes of other names as ROUTES says have a mail parked, to be tried in an hour. Each
time nothing is pushed for REST seconds, and the CPU time of the worker and of Redis in them is
told; then 50 mails to `open`, one by one, from LPUSH to 250.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import resource
import time
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path

import stand
from gevent.event import AsyncResult

from geomail.demo.processes import Worker
from geomail.queue import FRESH, Park, Queue
from geomail.sink import Sink

_PATIENCE_S = 300.0
_LATER_MS = 3_600_000
_ONE_BY_ONE = 50
_AT_ONCE = 500
_TWO_BEATS_S = 11.0
_CONFIG = """
backoff_base_s = 3600
backoff_cap_s = 3600
memory_mb = 64
[relay.open]
url = "smtp://127.0.0.1:{port}"
[relay.closed]
url = "smtp://127.0.0.1:{nobody}"
"""


def main() -> None:
    """Push, park, wait, and print."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.OTHERS_CORE)
    came = _Arrivals()
    with stand.fresh_queue() as (queue, url, folder), Sink(on_mail=came.note) as sink:
        config = _CONFIG.format(port=sink.address[1], nobody=stand.free_port())
        with stand.worker(folder, ["--redis", url], config=config) as worker:
            while not queue.counts().workers:
                time.sleep(0.01)

            def tell(what: str) -> None:
                shares = _rest(queue, worker, args.rest)
                took = sorted(_one(queue, came, number) for number in range(_ONE_BY_ONE))
                p50_ms = took[_ONE_BY_ONE // 2] * 1000
                print(f"{what:<28} {shares}; a mail to the other relay: p50 {p50_ms:.2f} ms")

            tell("nothing waits")
            began = time.monotonic()
            stand.push(queue, args.met, size=1024, relays=["closed"])
            while queue.counts().parked.get("closed", 0) < args.met:
                assert time.monotonic() < began + _PATIENCE_S, "they are not parked"
                time.sleep(0.2)
            print(f"{args.met:,} mails parked within {time.monotonic() - began:.1f} s")
            _park(queue, repeat("closed", args.mails - args.met))
            tell(f"{args.mails:,} wait")
            if args.routes:
                _park(queue, (f"mx/r{number}" for number in range(args.routes)))
                tell(f"and {args.routes:,} routes")
            worker.drain()


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--mails", type=int, default=1_000_000)
    parser.add_argument("--met", type=int, default=20_000)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--rest", type=float, default=10.0)
    return parser.parse_args()


class _Arrivals:
    """Tells when the next mail has arrived."""

    def __init__(self) -> None:
        self.next: AsyncResult[float] = AsyncResult()

    def note(self, *_mail: object) -> None:
        self.next.set(time.perf_counter())


def _rest(queue: Queue, worker: Worker, rest_s: float) -> str:
    time.sleep(2.0)  # what was going on ends
    before, began = (worker.cpu_s() or 0.0, _redis_cpu_s(queue)), time.monotonic()
    time.sleep(rest_s)
    after, lasted_s = (worker.cpu_s() or 0.0, _redis_cpu_s(queue)), time.monotonic() - began
    ours, theirs = ((now - then) / lasted_s for now, then in zip(after, before, strict=True))
    return f"the worker {ours:.2%} of a core, Redis {theirs:.2%}, {_rss_mb(worker):.0f} MB"


def _rss_mb(worker: Worker) -> float:
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _redis_cpu_s(queue: Queue) -> float:
    info: bytes = queue._desk.call("INFO", "cpu")
    said = dict(line.split(b":") for line in info.splitlines() if b":" in line)
    return float(said[b"used_cpu_user"]) + float(said[b"used_cpu_sys"])


def _one(queue: Queue, came: _Arrivals, number: int) -> float:
    came.next = AsyncResult()
    began = time.perf_counter()
    queue.push([stand.mail(number, stand.text_of(1024), "open")])
    at = came.next.get(timeout=20.0)
    assert at is not None
    return at - began


def _park(queue: Queue, routes: Iterator[str]) -> None:
    """Park a mail for each of these routes, as another worker would do."""
    queue.register()
    queue.hold("queue", queue.name, on=True)
    time.sleep(_TWO_BEATS_S)  # the worker under test takes nothing of it meanwhile
    body = stand.text_of(1024)
    while names := list(islice(routes, _AT_ONCE)):
        queue.beat()
        queue.push([stand.mail(number, body, "nobody") for number in range(len(names))])
        slots = queue.take(_AT_ONCE).slots
        pairs = zip(slots, names, strict=True)
        queue.settle([Park([slot], name, _LATER_MS, FRESH) for slot, name in pairs])
    queue.leave()
    queue.hold("queue", queue.name, on=False)
    time.sleep(_TWO_BEATS_S)


if __name__ == "__main__":
    main()
