"""Nothing to do: the next mail goes at once, and waiting costs nearly nothing."""

import os
import statistics
import sys
import time
from pathlib import Path

import pytest

from scenarios.stage import Stage, mail, until

LATENCY_MS = 15.0 if os.environ.get("CI") == "true" else 10.0
CPU_SHARE = 0.01


def test_a_mail_is_on_its_way_at_once(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    host = stage.host()
    stage.worker(relay=host)
    stage.push([mail("first")])
    host.has_taken(1)
    took_ms = []
    for number in range(50):
        until(lambda: stage.counts().in_flight == 0)
        pushed = time.time()
        stage.push([mail(number)])
        host.has_taken(number + 2)
        took_ms.append((host.mails[-1].at - pushed) * 1000)
    median = statistics.median(took_ms)
    with capsys.disabled():
        sys.stdout.write(f"idle: LPUSH to the host {median:.2f} ms, worst {max(took_ms):.1f} ms\n")
    assert median <= LATENCY_MS


def test_waiting_costs_nearly_no_cpu(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    host = stage.host()
    worker = stage.worker(relay=host, lease_s=30, beat_s=5)
    stage.push([mail(0)])
    host.has_taken(1)
    until(stage.is_clean)
    began, used_before = time.monotonic(), _cpu_s(worker.pid)
    time.sleep(6)  # nothing is waited for: this is the time that is measured
    share = (_cpu_s(worker.pid) - used_before) / (time.monotonic() - began)
    with capsys.disabled():
        sys.stdout.write(f"idle: {100 * share:.2f} % of a core\n")
    assert share <= CPU_SHARE


def _cpu_s(pid: int) -> float:
    # The scheduler's own count, in ns; stat's is in ticks of 10 ms.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
