"""Callbacks, end to end: who is told what when a job has ended, signed, whatever is killed."""

import base64
import hashlib
import hmac
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from scenarios.stage import Stage, mail, until
from scenarios.web_host import Asked, Web, web_host

KEY = b"a key of at least 24 bytes"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
ALLOWED: dict[str, Any] = {
    "url_hosts": "127.0.0.1",
    "url_networks": "127.0.0.0/8",
    "callback_secret": SECRET,
}


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server."""
    with web_host() as host:
        yield host


def told(web: Web) -> dict[str, dict[str, Any]]:
    """Return what was told, by the job's label."""
    return {asked.json["label"]: asked.json for asked in web.seen if asked.path == "/told"}


def is_signed(asked: Asked) -> bool:
    """Return whether a callback is signed as Standard Webhooks has it."""
    said = {name: asked.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
    text = f"{said['id']}.{said['timestamp']}.".encode() + asked.body
    digest = hmac.new(KEY, text, hashlib.sha256).digest()
    is_fresh = abs(time.time() - int(said["timestamp"])) < 60
    return is_fresh and said["signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_who_asked_is_told(stage: Stage, web: Web) -> None:
    host = stage.host()
    back = {"callback_url": f"{web.url}/told"}
    stage.push([mail(1, **back), mail(2), {"to": "nobody", "id": "bad", **back}])
    stage.push([mail("old", expires_at=1000, **back), mail("lost", relay="strange", **back)])
    stage.push([{"url": f"{web.url}/task", "id": "task", **back}])
    assert stage.burst(relay=host, **ALLOWED) == "left delayed=0 parked=0 dead=3"
    found = told(web)
    assert found.keys() == {"n1", "nold", "nlost", "task"}
    [one] = found["n1"]["recipients"]
    assert found["n1"]["type"] == "message.delivered"
    assert found["n1"]["tries"] == 1
    assert one["addr"] == "u1@example.org"
    assert one["outcome"] == "delivered"
    assert one["code"] == 250
    assert one["host"] == f"127.0.0.1:{host.port}"
    assert found["nold"]["type"] == "message.dead"
    assert "expired" in found["nold"]["recipients"][0]["reply"]
    assert "strange" in found["nlost"]["recipients"][0]["reply"]
    assert found["task"]["type"] == "task.done"
    assert found["task"]["target"] == f"{web.url}/task"
    assert all(is_signed(asked) for asked in web.seen if asked.path == "/told")
    assert all(asked.method == "POST" for asked in web.seen if asked.path == "/told")


def test_each_recipient_is_in_one_callback(stage: Stage, web: Web) -> None:
    people = ["greylist+2@example.org", "ann@example.org", "reply+550@example.org"]
    stage.push([{"to": people, "text": "t", "id": "three", "callback_url": f"{web.url}/told"}])
    stage.worker(relay=stage.host(), **ALLOWED)
    until(lambda: len(web.seen) == 2, "two callbacks")
    dead, delivered = (asked.json for asked in web.seen)
    assert dead["type"] == "message.dead"
    assert [(one["addr"], one["outcome"], one["code"]) for one in dead["recipients"]] == [
        ("reply+550@example.org", "dead", 550)
    ]
    assert delivered["type"] == "message.delivered"
    assert {one["addr"]: one["outcome"] for one in delivered["recipients"]} == {
        "ann@example.org": "delivered",
        "greylist+2@example.org": "delivered",
    }
    assert dead["id"] != delivered["id"]


def test_a_url_that_is_none_harms_nobody(stage: Stage, web: Web) -> None:
    host = stage.host()
    urls = ["http://[", "http://a]b/", "http://a\u2100b/x"]
    back = {"callback_url": f"{web.url}/told"}
    stage.push([mail(0), *({"url": url, "id": url, **back} for url in urls), mail(1)])
    assert stage.burst(relay=host, **ALLOWED) == "left delayed=0 parked=0 dead=3"
    assert told(web).keys() == set(urls)
    assert host.arrivals().keys() == {"u0@example.org", "u1@example.org"}
    assert all(stage.ask("why", letter.id) for letter in stage.dead())


def test_a_duplicate_is_told_of(stage: Stage, web: Web) -> None:
    back = {"callback_url": f"{web.url}/told", "dedupe_key": "one"}
    stage.push([mail(1, **back), mail(2, **back)])
    stage.burst(relay=stage.host(), **ALLOWED)
    assert Counter(each["type"] for each in told(web).values()) == {
        "message.delivered": 1,
        "message.duplicate": 1,
    }


def test_a_callback_is_tried_again_and_has_none_itself(stage: Stage, web: Web) -> None:
    web.answer("/told", "503 Busy", "500 Broken", "200 OK")
    stage.push([mail(1, callback_url=f"{web.url}/told")])
    stage.worker(relay=stage.host(), **ALLOWED)
    until(lambda: web.times("/told") == 3 and not stage.held(), "three tries")
    assert len({asked.headers["webhook-id"] for asked in web.seen}) == 1
    assert len({asked.body for asked in web.seen}) == 1
    assert all(map(is_signed, web.seen))
    assert stage.counts().stats["delivered"] == 2


def test_without_hosts_nothing_is_told_and_that_is_said(stage: Stage, web: Web) -> None:
    stage.push([mail(number, callback_url=f"{web.url}/told") for number in range(3)])
    worker = stage.worker("--burst", relay=stage.host())
    assert worker.wait() == 0
    assert worker.stderr.count("callbacks_off") == 1
    assert not web.seen
    assert stage.counts().stats["delivered"] == 3


def test_a_host_that_hangs_keeps_no_mail(stage: Stage, web: Web) -> None:
    web.answer("/told", delay_s=60)
    host = stage.host()
    stage.push(mail(number, callback_url=f"{web.url}/told") for number in range(300))
    stage.worker(relay=host, url_s=60, url_concurrency=10, **ALLOWED)
    host.has_taken(300)
    until(lambda: stage.held() == 300, "callbacks that wait")
    assert 0 < web.most <= 10
    begun = time.monotonic()
    stage.push(mail(f"late{number}") for number in range(300))
    host.has_taken(600)
    assert time.monotonic() - begun < 5


def test_a_kill_loses_no_callback(stage: Stage, web: Web) -> None:
    host = stage.host(delay_s=0.2)
    back = {"callback_url": f"{web.url}/told"}
    worker = stage.worker("--concurrency", "10", relay=host, lease_s=4, **ALLOWED)
    worker.says("running")
    stage.push(mail(number) for number in range(100))
    until(stage.is_clean, "connections, all ten")
    stage.push(mail(number, **back) for number in range(30))
    until(lambda: stage.counts().in_flight == 30)
    os.kill(stage.server.pid, signal.SIGSTOP)
    host.has_taken(130)
    worker.kill()
    os.kill(stage.server.pid, signal.SIGCONT)
    stage.burst(relay=host, **ALLOWED)
    assert stage.is_clean()
    ids = Counter(asked.headers["webhook-id"] for asked in web.seen)
    assert len(ids) == len(told(web)) == 30


def test_a_dead_callback_can_be_put_back(stage: Stage, web: Web) -> None:
    web.answer("/told", "410 Gone")
    stage.push([mail(1, callback_url=f"{web.url}/told")])
    assert stage.burst(relay=stage.host(), **ALLOWED) == "left delayed=0 parked=0 dead=1"
    [letter] = stage.dead()
    assert "410" in letter.reason
    assert "callback" in stage.ask("why", letter.id)
    web.answer("/told", "200 OK")
    stage.ask("dead", "retry", letter.id)
    assert stage.burst(**ALLOWED) == "left delayed=0 parked=0 dead=0"
    assert [is_signed(asked) for asked in web.seen] == [True, True]


def test_who_died_with_its_workers_is_told_of(stage: Stage, web: Web) -> None:
    host = stage.host()
    stage.push([mail(1, to="never@example.org", callback_url=f"{web.url}/told")])

    def is_in_hand(deaths: bytes, words: bytes) -> bool:
        job = b"".join(stage.redis.hvals("{queue:email}:jobs"))
        return stage.counts().in_flight == 1 and job.startswith(deaths) and words in job

    for deaths, words in ((b"", b""), (b"1 ", b""), (b"2 ", b"last_words")):
        worker = stage.worker(relay=host, **ALLOWED)
        until(partial(is_in_hand, deaths, words), "in hand")
        worker.kill()
    stage.worker(relay=host, **ALLOWED)
    until(lambda: len(web.seen) == 1, "one callback")
    assert web.seen[0].json["type"] == "message.dead"
    assert "3 workers died with it" in web.seen[0].json["recipients"][0]["reply"]
    assert is_signed(web.seen[0])
    assert len(stage.dead()) == 1
