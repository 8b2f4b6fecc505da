"""kill -9 of the worker, or of Redis too: every mail arrives, few arrive twice.

Few: what one worker can have between the host and Redis, a mail or two on each connection and what
the settler has in hand. The figures are printed.
"""

import random
import sys
import time

import pytest

from scenarios.stage import Host, Stage, mail, until, users

CONCURRENCY = 20
IN_FLIGHT = CONCURRENCY * 8


def duplicates_of(host: Host, count: int, *, kills: int) -> int:
    """Check that all of `count` mails arrived, and few of them twice; return how many."""
    arrivals = host.arrivals()
    missing = set(users(count)) - arrivals.keys()
    assert not missing, f"{len(missing)} never arrived, such as {sorted(missing)[:5]}"
    extra = arrivals.total() - count
    sys.stdout.write(f"{extra} of {count} arrived more than once after {kills} kill(s)\n")
    assert extra <= kills * IN_FLIGHT
    assert len({taken.id for taken in host.mails}) == count  # a receiver can tell
    return extra


def test_in_the_middle_of_twenty_thousand(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    host = stage.host()
    stage.push(map(mail, range(20_000)))
    first = stage.worker("--concurrency", str(CONCURRENCY), relay=host)
    host.has_taken(10_000)
    first.kill()
    assert 0 < 20_000 - len(host.arrivals()) <= stage.held()
    stage.worker("--concurrency", str(CONCURRENCY), relay=host)
    until(stage.is_clean, within_s=60)
    with capsys.disabled():
        duplicates_of(host, 20_000, kills=1)


def test_at_any_moment_and_again_and_again(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    host = stage.host(delay_s=0.002)
    stage.push(map(mail, range(4_000)))
    moments = random.Random(2)
    for _ in range(20):
        worker = stage.worker(relay=host)
        worker.says("running")
        time.sleep(moments.uniform(0, 0.15))  # any moment is right
        worker.kill()
    stage.worker(relay=host)
    until(lambda: stage.held() == stage.counts().dead)
    stage.queue.dead_retry(every=True)  # who is in hand at three kills in a row looks like poison
    until(stage.is_clean)
    with capsys.disabled():
        duplicates_of(host, 4_000, kills=20)


def test_while_mails_wait_for_a_host_that_is_away(stage: Stage) -> None:
    host = stage.host()
    host.kill()
    stage.push(map(mail, range(500)))
    worker = stage.worker(relay=host)
    until(lambda: stage.counts().parked)
    worker.kill()
    assert stage.held() == 500
    again = stage.host(port=host.port)
    assert stage.burst(relay=again) == "left delayed=0 parked=0 dead=0"
    assert duplicates_of(again, 500, kills=0) == 0


def test_together_with_its_redis(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(3_000)))
    worker = stage.worker(relay=host)
    host.has_taken(1_000)
    stage.server.kill()
    worker.kill()
    stage.restart_redis()
    assert 0 < 3_000 - len(host.arrivals()) <= stage.held()
    stage.worker(relay=host)
    until(stage.is_clean)
    with capsys.disabled():
        duplicates_of(host, 3_000, kills=1)


def test_the_living_take_over_from_the_dead(stage: Stage) -> None:
    host = stage.host()
    stage.push(mail(number, to=[f"stall+60@h{number}.example"]) for number in range(2))
    victim = stage.worker(relay=host)
    host.has_taken(2)
    other = stage.worker(relay=host, final_s=2, unknown="hold")
    other.says("running")
    victim.kill()
    other.says("reaped")
    until(lambda: stage.counts().dead == 2)
    assert all("maybe_duplicate" in letter.reason for letter in stage.dead())


def test_a_job_that_kills_its_workers_is_set_aside_and_its_neighbours_live(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail("poison", to=["stall+60@poison.example"])])
    for deaths in (1, 2, 3):
        worker = stage.worker(relay=host)
        host.has_taken(deaths)
        worker.kill()
    stage.push(map(mail, range(20)))
    stage.worker(relay=host)
    until(lambda: stage.counts().dead == 1)
    until(lambda: stage.held() == 1)
    assert "killed its worker" in stage.dead()[0].reason
    assert set(users(20)) <= host.arrivals().keys()
