"""As many connections as one process may have, all of them busy.

The host answers whatever comes in one piece 1 s after it came, so a connection carries one mail a
second where content and next envelope travel together. Timed are TIMED seconds, from 3 s after the
moment in which 99 % of the connections were there (or no more came for 10 s). Memory is the
worker's resident set in the middle of it, all of it and what it has grown by since it ran idle,
over the connections.
"""

import time
from argparse import Namespace

from farm import Plan, need_files
from trial import Trial, aim, mails, trial

from geomail.demo.processes import Worker

_ANSWER_S = 1.0
_NEARLY_ALL, _SETTLED_S = 0.99, 3.0
_RAMP_S, _LONGEST_RAMP_S, _NO_MORE_S = 30.0, 60.0, 10.0
_LEAST_OF_BOUND, _MOST_KB = 0.9, 30.0


def run(args: Namespace) -> None:
    """Fill the connections, and print rate and memory."""
    wanted = args.connections
    need_files(wanted)
    with trial([Plan("many", delay_s=_ANSWER_S)]) as this:
        flags = ["--relay", this.farm.url("many"), "--concurrency", wanted]
        with this.hire(flags) as worker:
            this.wait_for(lambda: bool(this.queue.counts().workers), worker, "for a worker")
            time.sleep(1.0)
            idle_kb = _resident_kb(worker.pid)
        this.push(mails(range(int(wanted / _ANSWER_S * (_RAMP_S + args.timed))), size=args.size))
        with this.hire(flags) as worker:
            ramp_s = _fill(this, wanted)
            time.sleep(_SETTLED_S)
            _time(this, worker, args, idle_kb)
        books = this.books(is_left_expected=True)
    print(f"        {ramp_s:.0f} s until they were there; {books}", flush=True)


def _fill(this: Trial, wanted: int) -> float:
    """Wait until there are as many connections as there will be, and return how long it took."""
    began_s = grown_s = time.monotonic()
    most = 0
    while most < _NEARLY_ALL * wanted and time.monotonic() < began_s + _LONGEST_RAMP_S:
        time.sleep(0.1)
        live, now = this.farm.counts()["many"].live, time.monotonic()
        if live > most:
            most, grown_s = live, now
        elif now > grown_s + _NO_MORE_S:
            break
    return time.monotonic() - began_s


def _time(this: Trial, worker: Worker, args: Namespace, idle_kb: float) -> None:
    first = this.farm.counts()["many"]
    pace = this.pace(worker, ["many"], warm_s=0, timed_s=args.timed / 2)
    kb, seen = _resident_kb(worker.pid), this.farm.counts()["many"]
    later = this.pace(worker, ["many"], warm_s=0, timed_s=args.timed / 2)
    rate, bound = (pace.rate + later.rate) / 2, args.connections / _ANSWER_S
    said = aim("0.9", is_met=rate >= _LEAST_OF_BOUND * bound)
    print(f"many    {rate:,.0f} mails/s, {rate / bound:.3f} of {bound:,.0f}/s {said};", end=" ")
    print(f"{pace.cpu_us:.0f} and {later.cpu_us:.0f} µs of CPU a mail")
    print(
        f"        the worker's core is {later.busy:.0%} busy, the hosts are {later.hosts_busy:.0%}"
    )
    print(f"        {first.live:,} and {seen.live:,} connections, {seen.busy:,} busy;", end=" ")
    a_connection = kb / max(1, seen.live)
    said = aim("30 KB at most", is_met=a_connection <= _MOST_KB)
    print(f"{a_connection:.1f} KB a connection {said},", end=" ")
    print(
        f"{(kb - idle_kb) / max(1, seen.live):.1f} without the {idle_kb / 1000:.0f} MB of idleness"
    )


def _resident_kb(pid: int) -> float:
    """Return the resident set in KB of 1,000 bytes."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 as everywhere in /proc
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1.024
