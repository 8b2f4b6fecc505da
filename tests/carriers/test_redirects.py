"""Redirects, each looked at as if it were the first request."""

from itertools import pairwise

import gevent
import pytest
from web_host import Asked, Connection, at_home, leads_to, said, web_host

from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job.kinds import HttpTask

_AUTH = [("Authorization", "Bearer x"), ("X-Key", "y"), ("Accept", "text/x")]


def _by_path(asked: Asked, connection: Connection) -> None:
    """Redirect /STATUS to /there, and answer 200 elsewhere."""
    status = asked.path[1:]
    answer = said(int(status), b"", "Location: /there") if status.isdigit() else said()
    connection.sendall(answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_is_followed(status: int) -> None:
    with web_host(_by_path) as host, at_home() as requests:
        for task in (
            HttpTask(host.url(f"/{status}")),
            HttpTask(host.url(f"/{status}"), "HEAD"),
            HttpTask(host.url(f"/{status}"), "POST", json={"a": 1}, headers=_AUTH),
        ):
            assert requests.fetch(task, job_id="1").outcome.fate is Fate.DELIVERED
    there = [asked for asked in host.asked if asked.path == "/there"]
    keeps = status in (301, 307, 308)
    assert [asked.method for asked in there] == ["GET", "HEAD", "POST" if keeps else "GET"]
    assert there[2].body == (b'{"a":1}' if keeps else b"")
    assert there[2].header("Content-Type") == ("application/json" if keeps else None)
    assert there[2].header("Authorization") == "Bearer x"
    assert host.accepts == 1


def test_callback_is_not_robbed_of_its_body() -> None:
    with web_host(_by_path) as host, at_home() as requests:
        task = HttpTask(host.url("/302"), "POST", json={})
        outcome = requests.fetch(task, job_id="1", is_callback=True).outcome
        assert outcome.fate is Fate.NEVER
        assert outcome.text.startswith("redirect refused: after 302")
        task.url = host.url("/308")
        answer = requests.fetch(task, job_id="1", is_callback=True)
        assert answer.outcome.fate is Fate.DELIVERED


def test_who_failed_is_named_and_no_redirect_leads_to_who_is_left_alone() -> None:
    with web_host() as there:
        dead = there.url()
    with web_host(leads_to(dead)) as here, at_home() as requests:
        answer = requests.fetch(HttpTask(here.url()), job_id="1")
        assert (answer.outcome.blame, answer.host) == (Blame.HOST, f"127.0.0.1:{there.port}")
        here.answer = _by_path
        assert requests.fetch(HttpTask(here.url()), job_id="1").host == f"127.0.0.1:{here.port}"
    with (
        web_host() as there,
        web_host(leads_to(there.url())) as here,
        at_home() as requests,
    ):
        requests._pause_s = {f"127.0.0.1:{there.port}": 7.0}.__getitem__
        answer = requests.fetch(HttpTask(here.url()), job_id="1")
    assert (answer.outcome.fate, answer.outcome.blame) == (Fate.LATER, Blame.MESSAGE)
    assert (answer.again_in_s, answer.host, there.accepts) == (7.0, None, 0)


def test_passwords_stay_at_the_host_they_are_for() -> None:
    with web_host() as there, web_host(leads_to(there.url(), 307)) as here, at_home() as requests:
        requests.fetch(HttpTask(here.url(), "POST", json={}, headers=_AUTH), job_id="1")
    assert here.asked[0].header("Authorization") == "Bearer x"
    assert there.asked[0].header("Authorization") is None
    assert there.asked[0].header("X-Key") is None
    assert there.asked[0].header("Accept") == "text/x"
    assert there.asked[0].header("Content-Type") == "application/json"
    assert there.asked[0].header("Host") == f"127.0.0.1:{there.port}"


def _refused(url: str, **settings: object) -> Outcome:
    """Return what comes of a redirect from this machine to `url`; only 127.0.0.1 is allowed."""
    allowed = {"url_networks": ("127.0.0.1/32",), **settings}
    with web_host(leads_to(url)) as host, at_home(**allowed) as requests:
        outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    return outcome


def test_does_not_lead_where_no_request_may_go() -> None:
    assert "169.254.169.254" in _refused("http://169.254.169.254/latest/meta-data").text
    assert "which is not public" in _refused("http://127.0.0.2/").text
    assert "which is not public" in _refused("http://[::1]/").text
    assert "port 25" in _refused("http://127.0.0.1:25/").text
    assert "0x7f" in _refused("http://0x7f.1/").text
    assert "in front of its host" in _refused("http://a:b@127.0.0.1/").text
    for url in ("file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "javascript:1"):
        assert _refused(url).text.startswith("redirect refused: ")
    assert "not among url_hosts" in _refused("http://example.org/", url_hosts=("127.0.0.1",)).text


def test_comes_to_an_end() -> None:
    with web_host(leads_to("/again")) as host, at_home(url_redirects=3) as requests:
        outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    assert outcome.text == "more than 3 redirects"
    assert len(host.asked) == 4


def test_host_that_it_leads_to_may_be_away() -> None:
    with web_host() as gone:
        away = gone.url()
    with web_host(leads_to(away)) as host, at_home() as requests:
        outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)


def test_it_may_not_come_to_its_end_in_time() -> None:
    def answer(_asked: Asked, connection: Connection) -> None:
        connection.sendall(b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 9\r\n\r\nx")
        gevent.sleep(20)

    with web_host(answer) as host, at_home(url_s=0.3) as requests:
        outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)


def test_none_is_followed_when_none_may_be() -> None:
    with web_host(_by_path) as host, at_home(url_redirects=0) as requests:
        outcome = requests.fetch(HttpTask(host.url("/302")), job_id="1").outcome
        assert outcome.text == "more than 0 redirects"
    assert len(host.asked) == 1


def test_chain_of_hosts_is_followed() -> None:
    with web_host() as a, web_host(leads_to(a.url())) as b, web_host(leads_to(b.url())) as c:
        with at_home() as requests:
            assert requests.fetch(HttpTask(c.url()), job_id="1").outcome.code == 200
        for one, other in pairwise((a, b, c)):
            assert len(one.asked) == len(other.asked) == 1
