"""geomail is told to leave, or to look again: it finishes what is on the wire and loses nothing."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from scenarios.stage import Host, Process, Stage, mail, once_each, until, users

LEFT = re.compile(r"INFO left delivered=(\d+) ")


def finishes(stage: Stage, host: Host, *, count: int) -> None:
    """Let another worker take what is left, and check that each mail arrived exactly once."""
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(count))
    assert stage.is_clean()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_leave_under_load(stage: Stage, number: signal.Signals) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(4_000)))
    worker = stage.worker(relay=host)
    host.has_taken(1_000)
    worker.signal(number)
    assert worker.wait(5) == 0
    taken = len(host.look())
    assert 1_000 <= taken < 4_000
    said = LEFT.search(worker.stderr)
    assert said
    assert int(said[1]) == taken
    counts = stage.counts()
    assert counts.in_flight == 0
    assert not counts.workers
    assert stage.held() == 4_000 - taken
    finishes(stage, host, count=4_000)


def test_told_to_leave_while_idle(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host)
    stage.push([mail(0)])
    until(lambda: host.look() and stage.is_clean())
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - began < 2
    assert not stage.counts().workers


def test_what_is_on_the_wire_is_finished(stage: Stage) -> None:
    host = stage.host()
    slow = [f"stall+1.5@h{number}.example" for number in range(10)]
    stage.push(mail(recipient, to=[recipient]) for recipient in slow)
    worker = stage.worker(relay=host)
    host.has_taken(10)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    once_each(host.arrivals(), slow)
    assert stage.is_clean()


def test_the_grace_is_kept_and_what_is_not_answered_is_kept(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail("x", to=["stall+60@example.org"])])
    worker = stage.worker("--grace", "1", relay=host)
    host.has_taken(1)
    stage.push(map(mail, range(50)))
    host.has_taken(51)
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert 0.5 < time.monotonic() - began < 3
    until(lambda: stage.held() == 1)


def test_a_second_signal_leaves_at_once_and_loses_nothing(stage: Stage) -> None:
    host = stage.host()
    silent = [f"stall+60@h{number}.example" for number in range(5)]
    worker = stage.worker(relay=host)
    stage.push(map(mail, range(200)))  # the window grows with them
    host.has_taken(200)
    for number, recipient in enumerate(silent, 201):  # one by one: a connection for each
        stage.push([mail(recipient, to=[recipient])])
        host.has_taken(number)
    worker.signal(signal.SIGTERM)
    worker.says("stopping")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    worker.wait()
    assert time.monotonic() - began < 2
    assert stage.held() >= 5
    stage.worker(relay=host, final_s=0.5, unknown="hold")
    until(lambda: stage.counts().dead == 5)
    until(lambda: stage.held() == 5)
    arrivals = host.arrivals()
    assert {recipient: arrivals.pop(recipient) for recipient in silent} == dict.fromkeys(silent, 2)
    once_each(arrivals, users(200))


def test_it_leaves_while_its_host_is_away(stage: Stage) -> None:
    host = stage.host()
    host.kill()
    stage.push(map(mail, range(100)))
    worker = stage.worker(relay=host)
    worker.says("host_failed")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert stage.held() == 100
    assert stage.counts().in_flight == 0
    finishes(stage, stage.host(port=host.port), count=100)


def test_it_leaves_while_redis_is_away(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker("--grace", "1", relay=host)
    stage.push([mail(0)])
    host.has_taken(1)
    stage.server.stop()
    worker.says("redis_away")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0


def test_it_leaves_before_redis_has_ever_answered(stage: Stage) -> None:
    stage.server.stop()
    worker = stage.worker("--grace", "1", relay="smtp://127.0.0.1:1")
    worker.says("redis_away")
    worker.signal(signal.SIGTERM)
    worker.wait(5)


def test_the_delivery_log_is_opened_again_on_hangup(stage: Stage) -> None:
    host, log = stage.host(), stage.folder / "delivery.log"
    worker = stage.worker("--delivery-log", str(log), relay=host)
    stage.push([mail(0)])
    until(lambda: log.exists() and _labels(log) == ["n0"])
    rotated = log.rename(stage.folder / "delivery.log.1")
    worker.signal(signal.SIGHUP)
    worker.says("reloaded")
    stage.push([mail(1)])
    until(lambda: log.exists() and _labels(log) == ["n1"])
    assert _labels(rotated) == ["n0"]
    assert worker.is_running


def test_a_relay_is_changed_by_hangup_and_a_mistake_changes_nothing(stage: Stage) -> None:
    first, second = stage.host(), stage.host()
    file = stage.folder / "geomail.toml"
    file.write_text(f'[relay.default]\nurl = "{first.url}"\n')
    worker = stage.worker("--config", str(file))
    stage.push([mail(0)])
    first.has_taken(1)
    file.write_text('[relay.default]\nurl = "nonsense"\n')
    worker.signal(signal.SIGHUP)
    worker.says("reload_failed")
    stage.push([mail(1)])
    first.has_taken(2)
    file.write_text(f'[relay.default]\nurl = "{second.url}"\n')
    worker.signal(signal.SIGHUP)
    worker.says("reloaded")
    stage.push(map(mail, range(2, 50)))
    second.has_taken(48)
    once_each(first.arrivals() + second.arrivals(), users(50))


def _labels(log: Path) -> list[str]:
    return [json.loads(line)["label"] for line in log.read_text().splitlines()]


def test_it_leaves_after_so_many_mails(stage: Stage) -> None:
    host = stage.host()
    stage.push(map(mail, range(500)))
    worker = stage.worker("--max-messages", "200", relay=host)
    assert worker.wait() == 0
    assert len(host.look()) == 200
    assert stage.held() == 300
    finishes(stage, host, count=500)


def test_the_pidfile_names_it_and_lets_nobody_else_in(stage: Stage) -> None:
    host, file = stage.host(), stage.folder / "geomail.pid"
    worker = stage.worker("--pidfile", str(file), relay=host)
    worker.says("running")
    assert int(file.read_text()) == worker.pid
    words = ("run", "--relay", host.url, "--pidfile", str(file))
    assert str(worker.pid) in stage.refusal(*words)
    assert "geomail has ended" in stage.ask("stop", "--pidfile", str(file))
    assert worker.wait() == 0
    assert not file.exists()


def test_a_pidfile_that_a_crash_left_is_taken_over(stage: Stage) -> None:
    host, file = stage.host(), stage.folder / "geomail.pid"
    first = stage.worker("--pidfile", str(file), relay=host)
    first.says("running")
    first.kill()
    second: Process = stage.worker("--pidfile", str(file), relay=host)
    second.says("running")
    assert int(file.read_text()) == second.pid
    os.kill(second.pid, signal.SIGINT)
    assert second.wait() == 0
