"""URL tasks, from the list to the host and back: what is done, tried again, dead, and told."""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from scenarios.stage import Stage, mail, once_each, until, users
from scenarios.web_host import Web, web_host

ALLOWED = {"url_hosts": "127.0.0.1", "url_networks": "127.0.0.0/8"}


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server."""
    with web_host() as host:
        yield host


def task(web: Web, path: str, **more: object) -> dict[str, object]:
    """Return an URL task for a path of a server."""
    return {"url": f"{web.url}{path}", **more}


def test_tasks_are_done_beside_mail(stage: Stage, web: Web) -> None:
    host = stage.host()
    jobs = [mail(number) for number in range(20)]
    jobs += [task(web, f"/{number}", param={"a": {"b": "c d"}}) for number in range(20)]
    stage.push(jobs)
    last = stage.burst(relay=host, **ALLOWED)
    assert last == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(20))
    assert sorted(asked.path for asked in web.seen) == sorted(f"/{n}" for n in range(20))
    assert stage.counts().stats["delivered"] == 40
    assert stage.is_clean()


def test_without_a_relay_tasks_are_done(stage: Stage, web: Web) -> None:
    web.answer("/flaky", "503 Busy", "500 Broken", "200 OK")
    web.answer("/gone", "404 Not Found")
    web.answer("/broken", "500 Broken")
    stage.push([task(web, "/flaky"), task(web, "/gone"), task(web, "/broken", retries=1)])
    worker = stage.worker(delivery_log=stage.folder / "log", **ALLOWED)
    until(lambda: len(stage.dead()) == 2 and stage.held() == 2, "two that are dead")
    reasons = sorted(letter.reason for letter in stage.dead())
    assert "404" in reasons[0]
    assert "500" in reasons[1]
    assert [web.times(path) for path in ("/flaky", "/gone", "/broken")] == [3, 1, 2]
    lines = [json.loads(line) for line in (stage.folder / "log").read_text().splitlines()]
    done = next(line for line in lines if line["outcome"] == "delivered")
    assert done["to"] == f"{web.url}/flaky"
    assert done["tries"] == 3
    assert done["relay"] == "url"
    assert done["host"] == f"127.0.0.1:{web.port}"
    assert worker.is_running


def test_without_a_relay_mail_is_left_to_who_has_one(stage: Stage, web: Web) -> None:
    stage.push([mail(0), mail(1, relay="east"), task(web, "/here")])
    alone = stage.worker(**ALLOWED)
    alone.says("mail_left")
    until(lambda: web.times("/here") == 1 and stage.counts().delayed == 2)
    assert "without any relay" in stage.ask("why", "n0")
    alone.signal(signal.SIGTERM)
    assert alone.wait() == 0
    host = stage.host()
    stage.worker(relay=host, **ALLOWED)
    host.has_taken(1)
    until(lambda: stage.held() == 1)
    assert "'east' is not known" in stage.dead()[0].reason


def test_tasks_are_off_until_hosts_are_allowed(stage: Stage, web: Web) -> None:
    host = stage.host()
    stage.push([task(web, "/"), {"url": "http://example.org/"}])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=2"
    assert all("url_hosts" in letter.reason for letter in stage.dead())
    assert not web.seen


def test_host_says_when_it_is_to_be_asked_again(stage: Stage, web: Web) -> None:
    """By its own word, not by the schedule, which is a tenth of a second here."""
    web.answer("/busy", "429 Too Many Requests", "200 OK", Retry_After="2")
    stage.push([task(web, "/busy"), task(web, "/other")])
    stage.worker(**ALLOWED)
    until(lambda: web.times("/busy") == 1, "the first try")
    began = time.monotonic()
    until(lambda: stage.counts().stats.get("delivered") == 2, "both are done")
    assert time.monotonic() - began > 1.8
    assert web.times("/busy") == 2
