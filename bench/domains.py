"""What many domains with one mail each cost, and what they leave behind.

    python bench/domains.py [--domains 100000] [--concurrency 100] [--dead 0]

A worker with the relay `mx`; every domain has one MX host, of a name of its own, and all hosts are
sixteen of many_hosts.py. DEAD of each sixteen refuse connections, and stay so. Told is, every ten
seconds and at the end, how many mails are delivered and parked, and what the worker holds; then,
while nothing happens, its memory and CPU. Each mail costs three questions to the name server, a
connection, and a place in the Pool that somebody has to give up.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import stand
import farm
from name_server import name_server

from geomail.demo.processes import Worker
from geomail.queue import Queue

_HOSTS = 16
_AT_ONCE = 500
_LOOK_S, _TELL_S = 0.5, 10.0
_REST_S = 20.0


class _Names(Mapping[str, object]):
    """Every name that begins with a letter, and what it stands for."""

    def __init__(self, letter: str, meant: Callable[[str], object]) -> None:
        self._letter = letter
        self._meant = meant

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(self._letter)

    def __getitem__(self, name: str) -> object:
        return self._meant(name[1:])

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def main() -> None:
    """Push, watch, rest, and print."""
    args = _arguments()
    stand.introduce(**vars(args))
    ours, theirs = multiprocessing.Pipe()
    multiprocessing.Process(target=_answer, args=(theirs,), daemon=True).start()
    server, port = ours.recv(), stand.free_port()
    plans = [
        farm.Plan(
            f"h{number}",
            address=_address(number),
            port=port,
            does="refuse" if number < args.dead else "serve",
        )
        for number in range(_HOSTS)
    ]
    config = f'nameserver = "{server}"\nbackoff_base_s = 300\n[relay.default]\nurl = "mx:{port}"\n'
    with farm.farm(plans), stand.fresh_queue() as (queue, url, folder):
        flags = ["--redis", url, "--concurrency", str(args.concurrency)]
        with stand.worker(folder, flags, config=config) as worker:
            while not queue.counts().workers:
                time.sleep(_LOOK_S)
            print(f"nothing yet      {_rss_mb(worker):.0f} MB")
            for first in range(0, args.domains, _AT_ONCE):
                numbers = range(first, min(args.domains, first + _AT_ONCE))
                queue.push([stand.mail(n, "x\n", domain=f"d{n}.example") for n in numbers])
            _watch(queue, worker, args.domains)
            before, began = worker.cpu_s() or 0.0, time.monotonic()
            time.sleep(_REST_S)
            share = ((worker.cpu_s() or 0.0) - before) / (time.monotonic() - began)
            print(f"at rest          {_rss_mb(worker):.0f} MB, {share:.2%} of a core")
            worker.drain()


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--domains", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--dead", type=int, default=0)
    return parser.parse_args()


def _answer(pipe: Connection) -> None:
    sites = _Names("d", lambda rest: [f"m{rest}"])
    addresses = _Names("m", lambda rest: _address(int(rest.partition(".")[0]) % _HOSTS))
    with name_server(sites, addresses) as at:  # type: ignore[arg-type]
        pipe.send(at)
        pipe.recv()


def _address(number: int) -> str:
    return f"127.0.1.{number + 1}"


def _watch(queue: Queue, worker: Worker, count: int) -> None:
    """Wait until every mail is delivered or parked for a host of its own."""
    began = told_at = time.monotonic()
    peak_mb = 0.0
    while True:
        counts = queue.counts()
        delivered = counts.stats.get("delivered", 0)
        parked = sum(n for route, n in counts.parked.items() if "/" in route)
        peak_mb, now = max(peak_mb, _rss_mb(worker)), time.monotonic()
        is_over = delivered + parked >= count
        if is_over or now > told_at + _TELL_S:
            told_at = now
            print(
                f"{now - began:6.0f} s  {delivered} delivered, {parked} parked for"
                f" {len(counts.parked)} routes; {_rss_mb(worker):.0f} MB, most {peak_mb:.0f} MB,"
                f" {worker.cpu_s():.0f} s of CPU",
                flush=True,
            )
        if is_over:
            return
        time.sleep(_LOOK_S)


def _rss_mb(worker: Worker) -> float:
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
