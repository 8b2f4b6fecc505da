"""Requests to real HTTP servers on loopback: what is sent, and what becomes of the task."""

import json
import os
import time
from email.utils import formatdate

import pytest
from gevent.pywsgi import WSGIServer
from web_host import at_home, says, web_host

from geomail import __version__
from geomail.carriers.request import request_of
from geomail.carriers.requests import Requests
from geomail.carriers.response import conversation
from geomail.carriers.signature import key_of, signature_headers
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate
from geomail.errors import PayloadError
from geomail.job import decode
from geomail.job.kinds import HttpTask


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        *((200, Fate.DELIVERED), (204, Fate.DELIVERED), (304, Fate.NEVER), (404, Fate.NEVER)),
        *((408, Fate.LATER), (429, Fate.LATER), (500, Fate.LATER), (503, Fate.LATER)),
        *((300, Fate.NEVER), (302, Fate.NEVER)),
    ],
)
def test_status_decides(status: int, fate: Fate) -> None:
    with web_host(says(status, b"")) as host, at_home() as requests:
        outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
    assert (outcome.fate, outcome.code, outcome.phase) == (fate, status, "url")
    assert outcome.text == f"{status} Said"


def test_host_says_when_to_come_again() -> None:
    with web_host(says(429, b"", "Retry-After: 7")) as host, at_home() as requests:
        assert requests.fetch(HttpTask(host.url()), job_id="1").again_in_s == 7
        host.answer = says(503, b"", f"Retry-After: {formatdate(time.time() + 100, usegmt=True)}")
        again_s = requests.fetch(HttpTask(host.url()), job_id="1").again_in_s
    assert again_s is not None
    assert 60 < again_s <= 100


def test_param_and_json_go_where_they_belong() -> None:
    param: dict[str, object] = {"a": {"b": "c d"}}
    with web_host() as host, at_home() as requests:
        url = host.url("/x?x=1#part")
        for method in ("GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"):
            answer = requests.fetch(HttpTask(url, method, param), job_id="1")
            assert answer.outcome.fate is Fate.DELIVERED
        requests.fetch(HttpTask(url, "POST", param, json={"k": [1, "ü"]}), job_id="1")
        requests.fetch(HttpTask(host.url(), "POST"), job_id="1")
    for asked in host.asked[:3]:
        assert (asked.path, asked.body) == ("/x?x=1&a%5Bb%5D=c+d", b"")
        assert asked.header("Content-Length") is asked.header("Content-Type") is None
    for asked in host.asked[3:6]:
        assert (asked.path, asked.body) == ("/x?x=1", b"a%5Bb%5D=c+d")
        assert asked.header("Content-Type") == "application/x-www-form-urlencoded"
    assert host.asked[6].path == "/x?x=1&a%5Bb%5D=c+d"
    assert json.loads(host.asked[6].body) == {"k": [1, "ü"]}
    assert host.asked[6].header("Content-Type") == "application/json"
    assert host.asked[7].header("Content-Length") == "0"
    assert [asked.method for asked in host.asked[:3]] == ["GET", "HEAD", "DELETE"]


def test_headers_are_the_tasks_own_and_a_few_of_ours() -> None:
    own = [("user-agent", "shop/1"), ("X-Name", "ü"), ("X-Two", " a "), ("Content-Type", "text/x")]
    with web_host() as host, at_home() as requests:
        requests.fetch(HttpTask(host.url(), "POST", {"a": 1}), job_id="1")
        requests.fetch(HttpTask(host.url(), "POST", {"a": 1}, headers=own), job_id="1")
    plain, with_own = host.asked
    assert plain.header("Host") == f"127.0.0.1:{host.port}"
    assert plain.header("User-Agent") == f"geomail/{__version__}"
    assert plain.header("Accept") == "*/*"
    assert plain.header("Cookie") is None
    assert with_own.header("User-Agent") == "shop/1"
    assert with_own.header("X-Name") == "ü"
    assert with_own.header("X-Two") == "a"
    assert with_own.header("Content-Type") == "text/x"


def test_no_line_can_be_smuggled_in() -> None:
    """Whatever a payload holds: it is refused, or the request has the lines that are ours."""
    for payload in (
        {"url": "http://a/", "headers": {"X": "y\r\nZ: z"}},
        {"url": "http://a/\r\nX: y"},
        {"url": "http://a/", "headers": {"X\r\nY": "y"}},
    ):
        with pytest.raises(PayloadError):
            decode(json.dumps(payload).encode())
    task = HttpTask("http://a/é\u2028", "GET", {"a\r\nX: y": "b\r\nZ: z"})
    head, body = request_of(task).written(conversation())
    assert (head.count(b"\r\n"), body) == (5, b"")
    for task in (
        HttpTask("http://a/", headers=[("X", "y\r\nZ: z")]),  # as if nobody had looked before
        HttpTask("http://a/", headers=[("X\r\nY", "y")]),
        HttpTask("http://a/", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"),
    ):
        with pytest.raises(PayloadError, match="HTTP has no form"):
            request_of(task).written(conversation())


def test_callbacks_are_signed() -> None:
    task = HttpTask("", "POST", json={"type": "message.delivered"})
    with web_host() as host, at_home(callback_secret="whsec_c2VjcmV0") as requests:
        task.url = host.url()
        before_s = int(time.time())
        requests.fetch(task, job_id="17.cb", is_callback=True)
        requests.fetch(task, job_id="17", is_callback=False)
    asked = host.asked[0]
    at_s = int(asked.header("webhook-timestamp") or 0)
    assert before_s <= at_s <= time.time()
    signed = signature_headers(key_of("whsec_c2VjcmV0"), "17.cb", asked.body, now_s=at_s)
    assert set(signed) <= set(asked.headers)
    assert host.asked[1].header("webhook-signature") is None


def test_without_a_secret_they_are_not_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with web_host() as host, at_home() as requests:
        for _ in range(3):
            task = HttpTask(host.url(), "POST", json={})
            answer = requests.fetch(task, job_id="1.cb", is_callback=True)
            assert answer.outcome.fate is Fate.DELIVERED
    assert [record.getMessage() for record in caplog.records] == [
        'callbacks_unsigned why="callback_secret is not set"'
    ]
    assert {asked.header("webhook-id") for asked in host.asked} == {"1.cb"}
    assert host.asked[0].header("webhook-signature") is None


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_host() as host, at_home() as requests:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setitem(os.environ, name, "http://127.0.0.1:9")
        assert requests.fetch(HttpTask(host.url()), job_id="1").outcome.code == 200


def test_a_server_of_another_house() -> None:
    """gevent's own, which writes heads and bodies apart and sends chunks."""

    def app(_environ: object, start: object) -> list[bytes]:
        start("200 OK", [])  # type: ignore[operator]
        return [b"hel", b"lo"]

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    try:
        with at_home() as requests:
            url = f"http://127.0.0.1:{server.server_port}/"
            for method in ("GET", "POST", "HEAD"):
                answer = requests.fetch(HttpTask(url, method), job_id="1")
                assert answer.outcome.code == 200
    finally:
        server.stop()


def test_off_until_hosts_are_named() -> None:
    with web_host() as host:
        requests = Requests(Settings(url_networks=("127.0.0.0/8",)))
        task = HttpTask(host.url())
        assert "url_hosts" in (requests.reason_against(task) or "")
        assert requests.fetch(task, job_id="1").outcome.fate is Fate.NEVER
        requests.configure(Settings(url_hosts=("127.0.0.1",), url_networks=("127.0.0.0/8",)))
        assert requests.reason_against(task) is None
        assert requests.key(task) == f"127.0.0.1:{host.port}"
        assert requests.fetch(task, job_id="1").outcome.fate is Fate.DELIVERED
        requests.close()
    assert len(host.asked) == 1


def test_nothing_goes_where_it_may_not() -> None:
    requests = Requests(Settings(url_hosts=("*",)))
    with web_host() as host:
        urls = (host.url(), "http://169.254.169.254/", f"http://[::ffff:127.0.0.1]:{host.port}/")
        for url in (*urls, f"http://2130706433:{host.port}/", "http://a:b@example.org/"):
            assert requests.reason_against(HttpTask(url))
            assert requests.fetch(HttpTask(url), job_id="1").outcome.fate is Fate.NEVER
        by_name = HttpTask(host.url(host="localhost"))
        assert requests.reason_against(by_name) is None
        outcome = requests.fetch(by_name, job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    assert "which is not public" in outcome.text
    assert host.accepts == 0


@pytest.mark.parametrize("url", ["http://nowhere.invalid/", "http://127.0.0.1:1024/"])
def test_host_that_cannot_be_reached_is_to_blame(url: str) -> None:
    with at_home() as requests:
        outcome = requests.fetch(HttpTask(url), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)
    assert "may have been done" not in outcome.text
