"""What a call costs, and that a bad one harms no other.

    python bench/calls.py [--count 1000] [--processes 4] [--part PART]

Of COUNT calls, PROCESSES at a time, one hangs (its deadline is a second), one dies by a signal, and
one raises. Each outcome is compared with what that call should have had; a single difference ends
the bench with status 1. First they are done by `geomail.carriers.calls` alone, without Redis, its
worker's side in this process. Shown are calls a second from the first to the last, the deadline
included; the time one takes (p50, p99 of those that work); and the CPU time of both sides: ours,
which is taken from the mails, and that of the template and all children, as the kernel has added
it up at their ends. Then they are jobs for an idle worker, timed from their push to the last end.

    fresh      each call in a process of its own (task_jobs = 1)
    kept       a process does a hundred (task_jobs = 100)
    program    [task.NAME] command = ["true"]
    worker     fresh, as jobs: those that fail have no second try, and are dead with their reason
    popen      beside them: one Python started for each call, importing the same module; 50 calls
"""

import ground  # noqa: F401, I001 - says what is missing
import geomail.__main__  # noqa: F401 - patches, before all else

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import stand
from gevent.pool import Pool

from geomail import config
from geomail.carriers.calls import Calls
from geomail.config import Command, Settings
from geomail.delivery.outcome import Outcome
from geomail.job import CallTask

_TASKS = """
import os, signal, time
import geomail

@geomail.task
class Task:
    def _task_work(self, params):
        assert params["text"]
    def _task_hang(self, params):
        time.sleep(3600)
    def _task_die(self, params):
        os.kill(os.getpid(), signal.SIGSEGV)
    def _task_raise(self, params):
        raise ValueError(params["text"])
"""
_WORKS = ("delivered", "done")
_ENDS = {
    "work": _WORKS,
    "true": _WORKS,
    "hang": ("later", "not over after 1 s: killed"),
    "die": ("later", "killed by SIGSEGV"),
    "raise": ("later", "ValueError: text"),
}
_PARTS = ("fresh", "kept", "program", "worker", "popen")
_POPENS = 50
_PATIENCE_S = 60.0
_CONFIG = """
tasks = ["bench_tasks"]
default_class = "Task"
task_s = 1
task_processes = {processes}
retries = 0
"""


def main() -> None:
    """Do the calls in each way, and print."""
    args = _arguments()
    stand.introduce(count=args.count, processes=args.processes)
    with tempfile.TemporaryDirectory(prefix="geomail-bench-") as folder:
        os.chdir(folder)
        Path("bench_tasks.py").write_text(_TASKS)
        for part in [args.part] if args.part else _PARTS:
            if part == "popen":
                _popen()
            elif part == "worker":
                _worker(args.count, args.processes)
            else:
                _measure(part, args.count, args.processes)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--part", choices=_PARTS)
    return parser.parse_args()


def _measure(part: str, count: int, processes: int) -> None:
    good = "true" if part == "program" else "work"
    workers = _workers(good, count)
    theirs = _theirs_s()
    calls = Calls(_settings(part))
    ours, began = time.process_time(), time.monotonic()
    done = Pool(processes).map(lambda worker: _timed(calls, worker), workers)
    took, ours = time.monotonic() - began, time.process_time() - ours
    calls.stop(1)
    theirs = _theirs_s() - theirs
    _compare(workers, [outcome for outcome, _ in done])
    times = sorted(took for (_, took), worker in zip(done, workers, strict=True) if worker == good)
    print(
        f"{part:<8} {count / took:8,.0f} calls/s  p50 {times[len(times) // 2] * 1000:6.2f} ms"
        f"  p99 {times[len(times) * 99 // 100] * 1000:6.2f} ms"
        f"  CPU a call: ours {ours / count * 1e6:5.0f} µs, children {theirs / count * 1e6:5.0f} µs",
        flush=True,
    )


def _workers(good: str, count: int) -> list[str]:
    workers = [good] * count
    for position, worker in ((0.2, "hang"), (0.4, "die"), (0.6, "raise")):
        workers[int(count * position)] = worker
    return workers


def _settings(part: str) -> Settings:
    return dataclasses.replace(
        config.load({}, {}, places=()),
        tasks=("bench_tasks",),
        commands={"Task.true": Command(("true",))},
        default_class="Task",
        task_jobs=100 if part == "kept" else 1,
        task_s=1.0,
    )


def _timed(calls: Calls, worker: str) -> tuple[Outcome, float]:
    began = time.monotonic()
    outcome = calls.call(CallTask(worker=worker, params={"text": "text"}), job_id=worker, tries=0)
    return outcome, time.monotonic() - began


def _compare(workers: list[str], outcomes: list[Outcome]) -> None:
    wrong = Counter(
        (worker, outcome.fate.value, outcome.text)
        for worker, outcome in zip(workers, outcomes, strict=True)
        if (outcome.fate.value, outcome.text) != _ENDS[worker]
    )
    if wrong:
        sys.exit(f"not as they should have ended: {wrong.most_common(5)}")


def _theirs_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _worker(count: int, processes: int) -> None:
    jobs = [
        json.dumps({"worker": worker, "params": {"text": "text"}}).encode()
        for worker in _workers("work", count)
    ]
    with stand.fresh_queue() as (queue, url, folder):
        (folder / "worker").mkdir()
        (folder / "worker/bench_tasks.py").write_text(_TASKS)
        config = _CONFIG.format(processes=processes)
        with stand.worker(folder, ["--redis", url], config=config) as worker:
            while not queue.counts().workers:
                time.sleep(0.01)
            os.sched_setaffinity(worker.pid, stand.CORES)
            before_s, began = worker.cpu_s() or 0.0, time.monotonic()
            for first in range(0, count, 500):
                queue.push(jobs[first : first + 500])
            while (counts := queue.counts()).stats.get("delivered", 0) + counts.dead < count:
                if time.monotonic() > began + _PATIENCE_S:
                    sys.exit(f"they are not done: {counts}")
                time.sleep(0.01)
            took, ours = time.monotonic() - began, (worker.cpu_s() or 0.0) - before_s
            worker.drain()
        reasons = sorted(letter.reason for letter in queue.dead_list(100))
    if reasons != sorted(f"call: {text}" for fate, text in _ENDS.values() if fate == "later"):
        sys.exit(f"not as they should have ended: {reasons}")
    print(
        f"worker   {count / took:8,.0f} calls/s"
        f"                                CPU a call: ours {ours / count * 1e6:5.0f} µs",
        flush=True,
    )


def _popen() -> None:
    theirs, times = _theirs_s(), []
    for _ in range(_POPENS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import bench_tasks"], check=True)
        times.append(time.monotonic() - began)
    theirs = _theirs_s() - theirs
    print(
        f"popen    {_POPENS / sum(times):8,.0f} calls/s"
        f"  p50 {sorted(times)[_POPENS // 2] * 1000:6.2f} ms  one at a time"
        f"   CPU a call: children {theirs / _POPENS * 1e6:5.0f} µs"
    )


if __name__ == "__main__":
    main()
