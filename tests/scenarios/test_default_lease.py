"""A machine is lost, with the lease that is the default: another delivers what it held.

The other has no journal of it and no word from anybody: only the lease tells, 30 seconds of it.
"""

import signal
import sys
import time

import pytest

from scenarios.at_rest import check
from scenarios.stage import Stage, mail, once_each, until, users

DEFAULTS = {"lease_s": 30, "beat_s": 5}


@pytest.mark.slow
def test_a_lost_machine(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    slow, host = stage.host(delay_s=600), stage.host()
    other = stage.worker(relay=host, data=stage.folder / "other", **DEFAULTS)
    other.says("running")
    other.signal(signal.SIGSTOP)  # so that the first takes all
    lost = stage.worker(relay=slow, data=stage.folder / "lost", **DEFAULTS)
    lost.says("running")
    stage.push(map(mail, range(20)))
    until(lambda: stage.counts().in_flight >= 2)  # as many as it sends to a host it has just met
    lost.kill()
    check(stage, pushed=20, delivered=0)  # while nobody moves anything
    other.signal(signal.SIGCONT)
    began = time.monotonic()
    host.has_taken(20, within_s=75)
    took_s = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"a lost machine's mail went on after {took_s:.1f} s\n")
    until(stage.is_clean)
    once_each(host.arrivals(), users(20))
    assert "lease_lost" not in other.stderr
