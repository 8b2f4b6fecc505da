"""How fast one mail is when nothing else happens, and what waiting costs.

    python bench/idle.py [--count 500] [--pause 0.02] [--rest 10]

A worker with nothing to do waits for a list; a sink runs inside this script, so that one clock
tells both ends. COUNT mails are pushed one by one, each PAUSE seconds after the one before had
arrived. Timed is from the call of LPUSH to the moment in which the sink has the whole mail, in the
instant before it writes 250. The first mail makes the connection: it is shown, and not counted.
Then nothing is pushed for REST seconds, and the CPU time of the worker is read before and after.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import time

import stand
from gevent.event import AsyncResult

from geomail.demo.processes import Worker
from geomail.queue import Queue
from geomail.sink import Sink

_PATIENCE_S = 10.0


def main() -> None:
    """Push, wait, and print."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.OTHERS_CORE)
    arrived = _Arrivals()
    with stand.fresh_queue() as (queue, url, folder), Sink(on_mail=arrived.note) as sink:
        flags = ["--relay", f"smtp://127.0.0.1:{sink.address[1]}", "--redis", url]
        with stand.worker(folder, flags) as worker:
            while not queue.counts().workers:
                time.sleep(0.01)
            first, *took = [
                _send_one(queue, arrived, number, args.pause) for number in range(args.count + 1)
            ]
            took.sort()
            print(f"the first mail   {first * 1000:7.2f} ms, connection and EHLO included")
            print(f"p50 of {args.count:<8}  {took[len(took) // 2] * 1000:7.2f} ms")
            print(f"p99 of {args.count:<8}  {took[len(took) * 99 // 100] * 1000:7.2f} ms")
            print(f"idle             {_share(worker, args.rest):7.2%} of a core")
            worker.drain()


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--rest", type=float, default=10.0)
    return parser.parse_args()


class _Arrivals:
    """Tells when the next mail has arrived."""

    def __init__(self) -> None:
        self.next: AsyncResult[float] = AsyncResult()

    def note(self, _mail_from: str, _recipients: tuple[str, ...], _content: bytes) -> None:
        self.next.set(time.perf_counter())


def _send_one(queue: Queue, arrived: _Arrivals, number: int, pause_s: float) -> float:
    time.sleep(pause_s)
    arrived.next = AsyncResult()
    job = stand.mail(number, stand.text_of(1024))
    began = time.perf_counter()
    queue.push([job])
    at = arrived.next.get(timeout=_PATIENCE_S)
    assert at is not None
    return at - began


def _share(worker: Worker, rest_s: float) -> float:
    before_s, began = worker.cpu_s(), time.monotonic()
    time.sleep(rest_s)
    after_s, lasted_s = worker.cpu_s(), time.monotonic() - began
    assert before_s is not None
    assert after_s is not None
    return (after_s - before_s) / lasted_s


if __name__ == "__main__":
    main()
