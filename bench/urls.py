"""URL tasks: how many a second, and what one costs.

    python bench/urls.py [--tasks 1000] [--concurrency 100] [--answer-ms 200] [--many 20000]

`requests`: TASKS requests made by CONCURRENCY greenlets, without queue or worker, to a server that
answers each after so many milliseconds. `worker`: the same as jobs, pushed at once to a worker that
is idle; timed from the push until Redis counts the last as delivered. Beside each stands what the
server's time alone would take. Both come three times: the connections of the first are new.
`flat out`: MANY jobs to a server that answers at once, rate and CPU time of the worker a task.
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import stand
from gevent.pool import Pool

from geomail.carriers.requests import Requests
from geomail.config import Settings
from geomail.job import HttpTask
from geomail.queue import Queue

_PATIENCE_S = 60.0
_TURNS = 3
_CONFIG = """
url_hosts = ["*"]
url_networks = ["127.0.0.0/8"]
url_concurrency = {concurrency}
"""


def main() -> None:
    """Measure, and print."""
    args = _arguments()
    stand.introduce(**vars(args))
    stand.pin(0, stand.OTHERS_CORE)
    floor_s = args.tasks / args.concurrency * args.answer_ms / 1000
    with _url_host(args.answer_ms / 1000) as url:
        stand.pin(0, stand.WORKERS_CORE)
        _requests(args, url, floor_s)
        stand.pin(0, stand.OTHERS_CORE)
        _worker(args, url, floor_s)
    with _url_host(0) as url:
        _flat_out(args, url)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--answer-ms", type=float, default=200.0)
    parser.add_argument("--many", type=int, default=20_000)
    return parser.parse_args()


def _requests(args: argparse.Namespace, url: str, floor_s: float) -> None:
    settings = Settings(url_hosts=("*",), url_networks=("127.0.0.0/8",))
    requests = Requests(settings)
    task = HttpTask(url, param={"order": 4711, "by": {"name": "Ada Lovelace"}})

    def fetch(_number: int) -> None:
        answer = requests.fetch(task, job_id="1")
        assert answer.outcome.code == 200, answer

    pool = Pool(args.concurrency)
    for _ in range(_TURNS):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for number in range(args.tasks):
            pool.spawn(fetch, number)
        pool.join()
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        _tell("requests", args.tasks, took_s, floor_s, cpu_s / args.tasks * 1e6)
    requests.close()


def _worker(args: argparse.Namespace, url: str, floor_s: float) -> None:
    with stand.fresh_queue() as (queue, redis_url, folder):
        config = _CONFIG.format(concurrency=args.concurrency)
        with stand.worker(folder, ["--redis", redis_url], config=config) as worker:
            while not queue.counts().workers:
                time.sleep(0.01)
            time.sleep(0.5)
            for turn in range(1, _TURNS + 1):
                before_cpu_s = worker.cpu_s() or 0.0
                began_s = time.perf_counter()
                queue.push([_job(url, number) for number in range(args.tasks)])
                _wait_for(queue, turn * args.tasks)
                took_s = time.perf_counter() - began_s
                cpu_us = ((worker.cpu_s() or 0.0) - before_cpu_s) / args.tasks * 1e6
                _tell("worker", args.tasks, took_s, floor_s, cpu_us)
            worker.drain()


def _flat_out(args: argparse.Namespace, url: str) -> None:
    with stand.fresh_queue() as (queue, redis_url, folder):
        for first in range(0, args.many, 500):
            queue.push([_job(url, first + number) for number in range(500)])
        config = _CONFIG.format(concurrency=args.concurrency)
        with stand.worker(folder, ["--redis", redis_url], config=config) as worker:
            run = stand.watch(queue, worker, args.many // 500 * 500)
            print(f"flat out  {run.rate:,.0f} tasks/s, {run.cpu_us:.0f} µs of CPU a task")
            worker.drain()


def _job(url: str, number: int) -> bytes:
    param = {"order": number, "by": {"name": "Ada Lovelace"}}
    return json.dumps({"url": url, "param": param}).encode()


def _wait_for(queue: Queue, delivered: int) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while queue.counts().stats.get("delivered", 0) < delivered:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"they are not done: {queue.counts()}")
        time.sleep(0.005)


def _tell(what: str, tasks: int, took_s: float, floor_s: float, cpu_us: float) -> None:
    print(
        f"{what:<9} {tasks:,} tasks in {took_s:.3f} s ({floor_s:.1f} s is the server's), "
        f"{cpu_us:.0f} µs of CPU a task",
        flush=True,
    )


@contextmanager
def _url_host(delay_s: float) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("url_host.py")), str(delay_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stand.pin(process.pid, stand.OTHERS_CORE)
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/orders/new"
        process.stdin.close()
        connections, requests = process.stdout.read().split()
        print(f"          {int(requests):,} requests came by {int(connections):,} connections")


if __name__ == "__main__":
    main()
