"""Tasks in trouble: hosts that hang or are away, workers that leave or are killed, new settings."""

import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from scenarios.stage import Stage, free_port, mail, once_each, until, users
from scenarios.web_host import Web, web_host

ALLOWED: dict[str, Any] = {"url_hosts": "127.0.0.1,localhost", "url_networks": "127.0.0.0/8,::1"}


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server."""
    with web_host() as host:
        yield host


def tasks(url: str, count: int, **more: object) -> list[dict[str, object]]:
    """Return tasks for one host, each with a path of its own."""
    return [{"url": f"{url}/{number}", **more} for number in range(count)]


def test_a_host_that_hangs_keeps_neither_mail_nor_other_hosts(stage: Stage, web: Web) -> None:
    host = stage.host()
    with web_host() as other:
        for number in range(50):
            web.answer(f"/{number}", delay_s=120)
        stage.push(tasks(web.url, 50))
        stage.worker(relay=host, url_s=100, url_concurrency=10, **ALLOWED)
        until(lambda: web.under_way >= 5, "requests that hang")
        begun = time.monotonic()
        stage.push(mail(number) for number in range(500))
        stage.push(tasks(other.url, 100))
        until(lambda: len(other.seen) == 100, "the other host's tasks")
        host.has_taken(500)
        assert time.monotonic() - begun < 10
        assert web.most < 10  # there is a place left


def test_a_mail_host_that_hangs_keeps_no_task(stage: Stage, web: Web) -> None:
    host = stage.host(delay_s=120)
    stage.push(mail(number) for number in range(200))
    worker = stage.worker(relay=host, **ALLOWED)
    worker.says("running")
    until(lambda: stage.counts().in_flight > 0, "mails that hang")
    stage.push(tasks(web.url, 100))
    until(lambda: len(web.seen) == 100, "tasks that are done")


def test_a_host_that_is_away_is_left_alone_until_it_is_back(stage: Stage) -> None:
    port = free_port()
    stage.push(tasks(f"http://127.0.0.1:{port}", 40))
    worker = stage.worker(url_concurrency=5, **ALLOWED)
    worker.says("host_failed")
    route = f"url/127.0.0.1:{port}"
    until(lambda: stage.counts().parked.get(route, 0) > 20, "tasks that are parked")
    until(lambda: "closed" in stage.ask("hosts") or "probing" in stage.ask("hosts"), "its trouble")
    with web_host(port) as web:
        until(lambda: len({asked.path for asked in web.seen}) == 40 and not stage.held())
        worker.says("host_back")


def test_what_hangs_goes_back_at_the_end_and_counts_no_try(stage: Stage, web: Web) -> None:
    web.answer("/0", delay_s=120)
    stage.push(tasks(web.url, 3, id="hangs"))
    worker = stage.worker(grace_s=2, url_s=100, **ALLOWED)
    until(lambda: len(web.seen) == 3 and stage.held() == 1, "one that hangs")
    told = stage.ask("why", "hangs")
    assert f"{web.url}/0" in told
    assert "in the hand" in told
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    counts = stage.counts()
    assert (counts.front, counts.in_flight, len(counts.workers)) == (1, 0, 0)
    stage.queue.register()
    [slot] = stage.queue.take(1).slots
    assert slot.state.tries == 0


def test_hosts_are_allowed_by_a_reload(stage: Stage, web: Web) -> None:
    file = stage.folder / "geomail.toml"
    relay = f'[relay.default]\nurl = "{stage.host().url}"\n'
    file.write_text(relay)
    worker = stage.worker("--config", str(file))
    stage.push(tasks(web.url, 1))
    until(lambda: len(stage.dead()) == 1, "a task that is refused")
    file.write_text('url_hosts = ["127.0.0.1"]\nurl_networks = ["127.0.0.0/8"]\n' + relay)
    worker.signal(signal.SIGHUP)
    worker.says("reloaded")
    stage.push(tasks(web.url, 5))
    until(lambda: len(web.seen) == 5, "tasks that are done")


def test_tasks_can_be_held(stage: Stage, web: Web) -> None:
    worker = stage.worker(**ALLOWED)
    worker.says("running")
    stage.ask("hold", "--relay", "url", **ALLOWED)
    worker.says("held relay=url")
    stage.push(tasks(web.url, 5))
    until(lambda: sum(stage.counts().parked.values()) == 5, "tasks that are kept back")
    assert not web.seen
    stage.ask("resume", "--relay", "url", **ALLOWED)
    until(lambda: len(web.seen) == 5, "tasks that go on")


def test_kills_lose_no_task(stage: Stage, web: Web) -> None:
    moments = random.Random(5)
    host = stage.host()
    back = {"callback_url": f"{web.url}/told"}
    mails = [mail(number, **back) for number in range(150)]
    jobs = [*mails, *tasks(web.url, 150, param={"n": 1})]
    moments.shuffle(jobs)
    for start in range(0, 300, 60):
        worker = stage.worker(relay=host, **ALLOWED)
        worker.says("running")
        stage.push(jobs[start : start + 60])
        time.sleep(moments.uniform(0.0, 0.1))
        worker.kill()
    stage.worker(relay=host, **ALLOWED)
    until(lambda: stage.held() == stage.counts().dead, "an end to everything", within_s=60)
    # What one of them died with while it was taken alone, for the third time, is told, not lost.
    assert all("died with it" in letter.reason for letter in stage.dead())
    if stage.dead():
        stage.ask("dead", "retry", "--all")
    until(lambda: not stage.held(), "an end to everything", within_s=60)
    assert {asked.path for asked in web.seen} == {f"/{n}" for n in range(150)} | {"/told"}
    assert host.arrivals().keys() == set(users(150))
    labels = {asked.json["label"] for asked in web.seen if asked.path == "/told"}
    assert labels == {f"n{number}" for number in range(150)}
    assert stage.is_clean()


def test_tasks_that_two_workers_died_with_keep_no_mail(stage: Stage, web: Web) -> None:
    host = stage.host()
    stage.push(tasks(web.url, 10))
    for number in range(10):
        web.answer(f"/{number}", delay_s=120)
    for killed in (True, True, False):
        web.seen.clear()
        worker = stage.worker(relay=host, url_s=100, **ALLOWED)
        until(lambda: len(web.seen) == 10, "all under way")
        if killed:
            worker.kill()
    stage.push([mail(0)])
    host.has_taken(1)


def test_a_burst_leaves_when_all_is_done(stage: Stage, web: Web) -> None:
    host = stage.host()
    for number in range(40):
        web.answer(f"/{number}", delay_s=0.3)
    stage.push([*tasks(web.url, 40), *(mail(number) for number in range(40))])
    stage.push([{"url": f"{web.url}/later", "send_at": time.time() + 600}])
    assert stage.burst(relay=host, **ALLOWED) == "left delayed=1 parked=0 dead=0"
    assert len(web.seen) == 40
    once_each(host.arrivals(), users(40))


def test_several_workers_share_tasks(stage: Stage, web: Web) -> None:
    stage.push(tasks(web.url, 200))
    parent = stage.worker("--processes", "2", **ALLOWED)
    until(lambda: not stage.held(), "an end to all of them")
    assert len(web.seen) == 200
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0


def test_a_drain_finishes_what_is_under_way_and_repeats_nothing(stage: Stage, web: Web) -> None:
    for number in range(300):
        web.answer(f"/{number}", delay_s=0.1)
    stage.push([*tasks(web.url, 300), *({"worker": "note"} for _ in range(3))])
    for _ in range(3):
        seen = len(web.seen)
        worker = stage.worker(url_concurrency=20, **ALLOWED)
        until(lambda seen=seen: len(web.seen) > seen + 30, "tasks under way")  # type: ignore[misc]
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "left_" not in worker.stderr
    assert 0 < stage.held() < 300
    stage.burst(**ALLOWED)
    assert sorted(asked.path for asked in web.seen) == sorted(f"/{n}" for n in range(300))
    assert all("calls are off" in letter.reason for letter in stage.dead())
