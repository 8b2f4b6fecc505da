"""Several workers under one parent: one dies, retires, is told to leave, or the parent dies."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.stage import Host, Process, Stage, mail, once_each, until, users

STARTED = re.compile(r"started process=(\d+) pid=(\d+)")


def crew(stage: Stage, count: int, *flags: str, host: Host, **settings: object) -> Process:
    """Start a parent, and return it when all its workers run."""
    parent = stage.worker("--processes", str(count), *flags, relay=host, **settings)
    until(
        lambda: parent.stderr.count(" running ") == count or not parent.is_running,
        f"{count} workers",
    )
    assert parent.is_running, parent.stderr
    return parent


def pids(parent: Process) -> list[int]:
    """Return the pid of each worker that it has ever started."""
    return [int(pid) for _, pid in STARTED.findall(parent.stderr)]


def is_there(pid: int) -> bool:
    """Return whether a process lives; one that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_several_workers_share_the_work_and_leave_in_order(stage: Stage) -> None:
    host = stage.host(delay_s=0.01)
    parent = crew(stage, 3, host=host)
    stage.push(map(mail, range(3_000)))
    host.has_taken(500)
    assert len(stage.counts().workers) == 3
    parent.signal(signal.SIGTERM)
    assert parent.wait(10) == 0
    assert parent.stderr.count(" left delivered=") == 3
    counts = stage.counts()
    assert counts.in_flight == 0
    assert not counts.workers
    assert stage.held() == 3_000 - len(host.look())
    assert stage.burst("--processes", "2", relay=host) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(3_000))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_parent_has_no_gevent(stage: Stage) -> None:
    parent = crew(stage, 2, host=stage.host())
    assert "gevent" not in Path(f"/proc/{parent.pid}/maps").read_text()
    for pid in pids(parent):
        assert "gevent" in Path(f"/proc/{pid}/maps").read_text()


def test_a_killed_worker_is_replaced_at_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    host = stage.host()
    parent = crew(stage, 2, host=host)
    os.kill(pids(parent)[0], signal.SIGKILL)
    began = time.monotonic()
    until(lambda: parent.stderr.count(" running ") == 3)
    took_s = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"replaced after {took_s:.2f} s\n")
    assert took_s < 3  # 0.1 s where nothing else runs; other tests do
    stage.push(map(mail, range(100)))
    host.has_taken(100)


def test_what_a_killed_worker_held_moves_again_within_a_second(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    host = stage.host()
    parent = crew(stage, 2, host=host, lease_s=30, beat_s=5)
    pushed = 0
    while len(held := _held(stage)) < 2:  # until each of the two holds something
        stage.push([mail(pushed, to=[f"stall+60@h{pushed}.example"])])
        pushed += 1
        host.has_taken(pushed)
    os.kill(pids(parent)[0], signal.SIGKILL)
    began = time.monotonic()
    until(lambda: len(host.look()) - pushed in held)
    took_s = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"sent again after {took_s:.2f} s\n")
    assert took_s < 3  # 0.1 s where nothing else runs; other tests do
    assert stage.held() == pushed


def _held(stage: Stage) -> list[int]:
    return [worker.jobs for worker in stage.counts().workers.values() if worker.jobs]


def test_one_that_dies_again_and_again_is_started_less_and_less_often(stage: Stage) -> None:
    parent = crew(stage, 2, host=stage.host())
    for deaths in (1, 2, 3, 4):
        until(lambda: len(pids(parent)) == 1 + deaths)  # noqa: B023 - called here only
        first = [int(pid) for place, pid in STARTED.findall(parent.stderr) if place == "1"]
        os.kill(first[-1], signal.SIGKILL)
    parent.says("again_in_s=0.400")
    assert re.findall(r"again_in_s=(\S+)", parent.stderr) == ["0.000", "0.100", "0.200", "0.400"]
    until(lambda: parent.stderr.count(" running ") >= 3)


def test_workers_do_not_outlive_their_parent(stage: Stage) -> None:
    host = stage.host(delay_s=0.01)
    parent = crew(stage, 2, host=host)
    stage.push(map(mail, range(2_000)))
    host.has_taken(200)
    parent.kill()
    until(lambda: not any(map(is_there, pids(parent))), within_s=5)
    taken = len(host.look())
    assert 200 <= taken < 2_000
    assert stage.counts().in_flight == 0
    assert not stage.counts().workers
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(2_000))


def test_a_signal_to_the_whole_group_is_one_wish(stage: Stage) -> None:
    host = stage.host()
    slow = [f"stall+1.5@h{number}.example" for number in range(10)]
    parent = crew(stage, 2, host=host)
    stage.push(mail(recipient, to=[recipient]) for recipient in slow)
    host.has_taken(10)
    for pid in (parent.pid, *pids(parent)):  # as systemd does
        os.kill(pid, signal.SIGTERM)
    assert parent.wait() == 0
    once_each(host.arrivals(), slow)
    assert stage.is_clean()


def test_a_second_signal_leaves_at_once_and_loses_nothing(stage: Stage) -> None:
    host = stage.host()
    parent = crew(stage, 2, host=host)
    for number in range(2):  # as many as one worker alone has connections for to a new host
        stage.push([mail(number, to=[f"stall+60@h{number}.example"])])
        host.has_taken(number + 1)
    parent.signal(signal.SIGTERM)
    until(lambda: parent.stderr.count("stopping parent=stop") == 2)
    began = time.monotonic()
    parent.signal(signal.SIGTERM)
    parent.wait()
    assert time.monotonic() - began < 2
    assert stage.held() == 2
    assert not any(map(is_there, pids(parent)))


def test_one_that_does_not_leave_is_killed(stage: Stage) -> None:
    parent = crew(stage, 2, "--grace", "0.5", host=stage.host())
    os.kill(pids(parent)[1], signal.SIGSTOP)
    parent.signal(signal.SIGTERM)
    assert parent.wait(10) == 1
    assert "killed process=2" in parent.stderr
    assert not any(map(is_there, pids(parent)))


def test_each_retires_after_its_successor_has_begun(stage: Stage) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(2_000)))
    few = ("--concurrency", "4", "--max-messages", "200")
    parent = crew(stage, 2, *few, host=host)
    until(stage.is_clean)
    assert parent.stderr.count(" retiring ") >= 4
    working = list(_working(parent))
    assert min(working[working.index(2) :]) == 2
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0
    once_each(host.arrivals(), users(2_000))
    assert "process_ended" not in parent.stderr


def _working(parent: Process) -> Iterator[int]:
    """Give, line by line, how many have begun to work and were not told to leave."""
    count = 0
    for line in parent.stderr.splitlines():
        count += (" running " in line) - (" stopping parent" in line)
        yield count


def test_a_burst_ends_when_all_have_ended_and_says_once_what_is_left(stage: Stage) -> None:
    host = stage.host()
    stage.push(map(mail, range(2_000)))
    stage.push([mail("bad", to=["data+550@example.org"])])
    parent = stage.worker("--burst", "--processes", "3", relay=host)
    assert parent.wait() == 0
    assert parent.stdout == "left delayed=0 parked=0 dead=1\n"
    once_each(host.arrivals(), users(2_000))
    assert not any(map(is_there, pids(parent)))


def test_what_makes_it_impossible_to_start_is_said_once(stage: Stage) -> None:
    relay = stage.host()
    wrong = stage.server.url.replace("127.", ":secret@127.")
    parent = stage.worker("--processes", "3", relay=relay, redis=wrong)
    assert parent.wait() == 2
    assert parent.stderr.count("geomail: ") == 1
    assert len(pids(parent)) == 1
    assert "smtp://" in stage.refusal("run", "--processes", "3", status=2)


def test_it_waits_for_redis_and_leaves_before_it_has_answered(stage: Stage) -> None:
    stage.server.stop()
    parent = stage.worker("--processes", "2", relay="smtp://127.0.0.1:1")
    parent.says("redis_away")
    parent.signal(signal.SIGTERM)
    assert parent.wait(5) == 0
    assert not any(map(is_there, pids(parent)))


def test_all_read_their_settings_again_on_hangup(stage: Stage) -> None:
    first, second = stage.host(), stage.host()
    file = stage.folder / "geomail.toml"
    file.write_text(f'processes = 2\n[relay.default]\nurl = "{first.url}"\n')
    parent = stage.worker("--config", str(file))
    until(lambda: parent.stderr.count(" running ") == 2)
    file.write_text(f'processes = 2\n[relay.default]\nurl = "{second.url}"\n')
    parent.signal(signal.SIGHUP)
    until(lambda: parent.stderr.count(" reloaded ") == 2)
    stage.push(map(mail, range(200)))
    second.has_taken(200)
    assert not first.look()


def test_the_pidfile_names_the_parent(stage: Stage) -> None:
    host, file = stage.host(), stage.folder / "geomail.pid"
    parent = crew(stage, 2, "--pidfile", str(file), host=host)
    assert int(file.read_text()) == parent.pid
    assert "geomail has ended" in stage.ask("stop", "--pidfile", str(file))
    assert parent.wait() == 0
    assert not file.exists()
