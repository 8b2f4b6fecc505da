"""A worker that stands still for longer than its lease, and then goes on as if nothing had been.

Others have brought back what it held. It may finish what was on the wire, and begins nothing.
"""

import signal
from pathlib import Path

import pytest

from scenarios.at_rest import check
from scenarios.stage import Host, Stage, mail, until, users

CONCURRENCY = 4
BLOCKS_ON_SIGNAL = """
import signal, time
stand_still = time.sleep  # gevent's patch comes later
signal.signal(signal.SIGUSR1, lambda number, frame: stand_still({seconds}))
"""


def fence(stage: Stage, name: str) -> None:
    """Do what a reaper does when the lease of worker `name` has run out."""
    until(lambda: stage.counts().workers[name].lease_left_ms <= 0)
    assert stage.queue.reap([name]) > 0


def test_stopped_and_continued(stage: Stage) -> None:
    host = stage.host(delay_s=0.05)
    stage.push(map(mail, range(100)))
    frozen = stage.worker("--concurrency", str(CONCURRENCY), relay=host, lease_s=0.6, beat_s=0.1)
    host.has_taken(12)
    [name] = stage.counts().workers
    frozen.signal(signal.SIGSTOP)
    fence(stage, name)
    other = stage.worker(relay=host, data=stage.folder / "elsewhere")
    until(stage.is_clean)
    check(stage, pushed=100, delivered=len(host.arrivals()))
    other.kill()
    frozen.signal(signal.SIGCONT)
    frozen.says("lease_lost")
    stage.push([mail(100)])
    until(lambda: "u100@example.org" in host.arrivals())  # it works on, under another name
    until(stage.is_clean)
    _check_arrivals(host, 101)


def test_its_hub_was_blocked(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = stage.host(delay_s=0.05)
    stage.push(map(mail, range(100)))
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(BLOCKS_ON_SIGNAL.format(seconds=2))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hooks))
        blocked = stage.worker(
            "--concurrency", str(CONCURRENCY), relay=host, lease_s=0.6, beat_s=0.1
        )
    host.has_taken(12)
    [name] = stage.counts().workers
    blocked.signal(signal.SIGUSR1)
    fence(stage, name)
    blocked.says("lease_lost list=")
    until(stage.is_clean)
    check(stage, pushed=100, delivered=len(host.arrivals()))
    _check_arrivals(host, 100)
    assert blocked.is_running


def _check_arrivals(host: Host, count: int) -> None:
    """Check that all arrived, and twice only what was on the wire, or read and not settled yet."""
    arrivals = host.arrivals()
    assert arrivals.keys() == set(users(count))
    assert arrivals.total() - count <= 2 * CONCURRENCY
