"""kill -9 of a worker that has read answers which Redis does not have: the journal has them.

Without the journal each of them is sent again. With it goes twice only what a host has taken and we
have not read: one mail a connection at the most.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from geomail.queue.journal import read_records
from scenarios.stage import Stage, mail, once_each, until, users

WIDENING = 90


def journaled(stage: Stage) -> int:
    """Return how many outcomes are in journals."""
    files = (stage.folder / "data/journal").glob("*.records")
    return sum(len(list(read_records(file))) for file in files)


def widen(stage: Stage) -> None:
    """Send so many mails that the host gets all ten connections."""
    stage.push(map(mail, range(30, 30 + WIDENING)))
    until(stage.is_clean)


def test_answers_that_redis_never_heard_are_settled_by_the_next(stage: Stage) -> None:
    host = stage.host(delay_s=0.2)
    worker = stage.worker("--concurrency", "10", relay=host, lease_s=4)
    widen(stage)
    stage.push(map(mail, range(30)))
    until(lambda: stage.counts().in_flight == 30)
    os.kill(stage.server.pid, signal.SIGSTOP)
    before = journaled(stage)
    until(lambda: journaled(stage) == before + 30)
    worker.kill()
    os.kill(stage.server.pid, signal.SIGCONT)
    stage.burst(relay=host)
    assert stage.is_clean()
    once_each(host.arrivals(), users(30 + WIDENING))


def test_without_the_journal_they_go_twice(stage: Stage) -> None:
    host = stage.host(delay_s=0.2)
    worker = stage.worker("--concurrency", "10", relay=host, lease_s=4, journal="false")
    widen(stage)
    stage.push(map(mail, range(30)))
    until(lambda: stage.counts().in_flight == 30)
    os.kill(stage.server.pid, signal.SIGSTOP)
    host.has_taken(30 + WIDENING)
    worker.kill()
    os.kill(stage.server.pid, signal.SIGCONT)
    stage.worker(relay=host)
    until(stage.is_clean)
    times = [host.arrivals()[user] for user in users(30)]
    assert set(times) <= {1, 2}
    assert times.count(2) >= 20  # all that Redis had not heard of when it was stopped


def test_ten_kills_under_load(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    moments = random.Random(7)
    host = stage.host()
    sent = 0
    for _ in range(10):
        worker = stage.worker("--concurrency", "20", relay=host)
        worker.says("running")
        until_s = time.monotonic() + moments.uniform(0.1, 0.4)
        while time.monotonic() < until_s:
            sent += stage.push(map(mail, range(sent, sent + 10)))
            time.sleep(0.01)  # a thousand a second
        worker.kill()
    stage.worker(relay=host)
    until(lambda: stage.held() == stage.counts().dead)
    stage.queue.dead_retry(every=True)
    until(stage.is_clean)
    arrivals = host.arrivals()
    assert arrivals.keys() == set(users(sent))
    with capsys.disabled():
        extra = arrivals.total() - sent
        sys.stdout.write(f"{extra} of {sent} arrived twice after 10 kills\n")
    assert extra <= 10 * 20


def rolled_back(stage: Stage, files: Path) -> None:
    """Start Redis again with what its folder was before."""
    stage.server.kill()
    for path in stage.server.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.copytree(files, stage.server.folder, dirs_exist_ok=True)
    stage.restart_redis()


def test_partial_success_survives_a_redis_that_was_rolled_back(stage: Stage) -> None:
    host = stage.host(delay_s=1)
    to = ["u0@example.org", "reply+451@example.org"]
    stage.push([mail(0, to=to)])
    worker = stage.worker(relay=host, retry_base_s=300, retry_cap_s=300)
    until(lambda: stage.counts().in_flight)
    before = shutil.copytree(stage.server.folder, stage.folder / "before")
    until(lambda: stage.counts().delayed)
    rolled_back(stage, before)
    worker.says("journal_said_again")
    until(lambda: stage.counts().delayed)
    assert "reconciled" not in worker.stderr
    assert dict(host.arrivals()) == {"u0@example.org": 1}


def test_without_a_place_for_the_journal_mail_goes_on(stage: Stage) -> None:
    host = stage.host()
    (stage.folder / "file").touch()
    stage.push(map(mail, range(10)))
    worker = stage.worker(relay=host, data=stage.folder / "file")
    until(lambda: stage.held() == 0)
    once_each(host.arrivals(), users(10))
    assert worker.stderr.count("journal_not_written") == 1


def test_leaving_in_order_leaves_no_journal(stage: Stage) -> None:
    host = stage.host()
    stage.push(map(mail, range(10)))
    stage.burst(relay=host)
    assert list((stage.folder / "data/journal").iterdir()) == []
    stage.push(map(mail, range(10, 20)))
    stage.burst(relay=host, journal="false")
    once_each(host.arrivals(), users(20))
