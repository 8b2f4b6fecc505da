"""Requests to real HTTP servers on loopback: what becomes of a task."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer

from geomail.carriers.requests import Requests
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate
from geomail.job.kinds import HttpTask

App = Callable[[dict[str, Any], Callable[..., object]], list[bytes]]
Seen = tuple[str, str, bytes]


class Site:
    """A server that answers /STATUS with that status, and writes down what came."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()

    def url(self, path: str) -> str:
        """Return the URL of a path here."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def stop(self) -> None:
        """Answer no more."""
        self._server.stop()

    def _answer(self, environ: dict[str, Any], start: Callable[..., object]) -> list[bytes]:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        named = f"{path}?{query}" if query else path
        self.seen.append((environ["REQUEST_METHOD"], named, environ["wsgi.input"].read()))
        self.headers.append({name: str(value) for name, value in environ.items()})
        start(f"{path[1:4]} Said", [("Retry-After", "7")])
        return [] if path in ("/204", "/304") else [b"hello"]


@pytest.fixture
def site() -> Iterator[Site]:
    """Run a server."""
    run = Site()
    yield run
    run.stop()


@pytest.fixture
def requests() -> Iterator[Requests]:
    """Give what makes requests, to this machine too."""
    made = Requests(Settings(url_hosts=("*",), url_networks=("127.0.0.0/8", "::1/128")))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        *((200, Fate.DELIVERED), (204, Fate.DELIVERED), (304, Fate.NEVER), (404, Fate.NEVER)),
        *((408, Fate.LATER), (429, Fate.LATER), (500, Fate.LATER), (503, Fate.LATER)),
    ],
)
def test_status_decides(site: Site, requests: Requests, status: int, fate: Fate) -> None:
    answer = requests.fetch(HttpTask(site.url(f"/{status}")), job_id="1")
    assert answer.outcome.fate is fate
    assert answer.outcome.code == status
    assert answer.outcome.text == f"{status} Said"
    assert answer.again_in_s == 7


def test_param_and_json_go_where_they_belong(site: Site, requests: Requests) -> None:
    url = site.url("/200?x=1#part")
    param: dict[str, object] = {"a": {"b": "c d"}}
    for method in ("GET", "POST"):
        requests.fetch(HttpTask(url, method, param), job_id="1")
    requests.fetch(HttpTask(url, "POST", param, json={"k": [1]}), job_id="1")
    assert site.seen[0] == ("GET", "/200?x=1&a%5Bb%5D=c+d", b"")
    assert site.seen[1] == ("POST", "/200?x=1", b"a%5Bb%5D=c+d")
    assert site.seen[2][:2] == ("POST", "/200?x=1&a%5Bb%5D=c+d")
    assert json.loads(site.seen[2][2]) == {"k": [1]}
    assert site.headers[1]["CONTENT_TYPE"] == "application/x-www-form-urlencoded"
    assert site.headers[2]["CONTENT_TYPE"] == "application/json"


def test_nothing_goes_where_it_may_not(site: Site) -> None:
    requests = Requests(Settings(url_hosts=("*",)))
    for url in (site.url("/200"), "http://169.254.169.254/", "http://[::ffff:127.0.0.1]/"):
        assert requests.reason_against(HttpTask(url))
        assert requests.fetch(HttpTask(url), job_id="1").outcome.fate is Fate.NEVER
    by_name = HttpTask(site.url("/200").replace("127.0.0.1", "localhost"))
    assert requests.reason_against(by_name) is None
    outcome = requests.fetch(by_name, job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    assert "which is not public" in outcome.text
    assert site.seen == []


def test_host_that_cannot_be_reached_is_to_blame(requests: Requests) -> None:
    outcome = requests.fetch(HttpTask("http://nowhere.invalid/"), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)
