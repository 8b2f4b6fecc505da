"""Kept connections: used again, given up in time, and what happens when one has gone stale."""

from collections.abc import Callable

import gevent
import pytest
from gevent.pool import Pool
from web_host import Answering, Asked, Connection, at_home, said, says, web_host

from geomail.carriers import connections
from geomail.carriers.requests import Requests
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job.kinds import HttpTask


def _done(requests: Requests, url: str, method: str = "GET") -> Outcome:
    return requests.fetch(HttpTask(url, method), job_id="1").outcome


def _soon(is_so: Callable[[], bool]) -> None:
    with gevent.Timeout(20):
        while not is_so():
            gevent.sleep(0.01)


def test_one_connection_carries_many() -> None:
    with web_host() as host, at_home() as requests:
        for method in ("GET", "POST", "HEAD") * 10:
            assert _done(requests, host.url(), method).fate is Fate.DELIVERED
    assert host.accepts == 1


def test_many_at_a_time_have_one_each() -> None:
    def slowly(_asked: Asked, connection: Connection) -> None:
        gevent.sleep(0.02)
        connection.sendall(said())

    with web_host(slowly) as host, at_home() as requests:
        pool = Pool(10)
        outcomes = pool.map(lambda _: _done(requests, host.url()), range(100))
    assert all(outcome.fate is Fate.DELIVERED for outcome in outcomes)
    assert host.accepts == 10


def test_not_more_are_kept_than_may_be_under_way() -> None:
    with web_host() as a, web_host() as b, web_host() as c, at_home(url_concurrency=2) as requests:
        for host in (a, b, c, c, b, a):
            _done(requests, host.url())
    assert (a.accepts, b.accepts, c.accepts) == (2, 1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        says(200, b"", "Connection: close"),
        lambda _asked, connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n") or False,
        lambda _asked, connection: connection.sendall(said() + b"more"),
        says(200, b"x" * 100_000),  # more than is read
    ],
)
def test_some_are_not_kept(answer: Answering) -> None:
    with web_host(answer) as host, at_home(url_max_kb=10) as requests:
        for _ in range(3):
            assert _done(requests, host.url()).fate is Fate.DELIVERED
    assert host.accepts == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_that_was_closed_meanwhile_is_not_used(method: str) -> None:
    """Nothing is sent on it, so that it is safe whatever is asked."""
    with web_host() as host, at_home() as requests:
        for turn in range(1, 4):
            assert _done(requests, host.url(), method).fate is Fate.DELIVERED
            host.hang_up()
            _soon(lambda: not host.is_connected)
            assert host.accepts == turn
    assert len(host.asked) == 3


def _second_is_lost() -> Answering:
    asked_of: dict[int, int] = {}

    def answer(asked: Asked, connection: Connection) -> bool:
        asked_of[asked.connection] = asked_of.get(asked.connection, 0) + 1
        if asked.connection == 1 and asked_of[1] == 2:
            return False
        connection.sendall(said())
        return True

    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_one_that_ends_when_it_is_used_costs_no_try(method: str) -> None:
    with web_host(_second_is_lost()) as host, at_home() as requests:
        for _ in range(3):
            assert _done(requests, host.url(), method).fate is Fate.DELIVERED
    assert len(host.asked) == 4
    assert host.accepts == 2


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_must_not_be_done_twice_is_left_to_its_schedule(method: str) -> None:
    with web_host(_second_is_lost()) as host, at_home() as requests:
        outcomes = [_done(requests, host.url(), method) for _ in range(3)]
    assert [outcome.fate for outcome in outcomes] == [Fate.DELIVERED, Fate.LATER, Fate.DELIVERED]
    assert "it may have been done" in outcomes[1].text
    assert outcomes[1].blame is Blame.CONNECTION  # it was used up: nobody else has to wait
    assert len(host.asked) == 3


def test_it_is_repeated_once() -> None:
    def answer(asked: Asked, connection: Connection) -> bool:
        if asked.path == "/first":
            connection.sendall(said())
        return asked.path == "/first"

    with web_host(answer) as host, at_home() as requests:
        _done(requests, host.url("/first"))
        outcome = _done(requests, host.url("/second"))
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
    assert [asked.path for asked in host.asked] == ["/first", "/second", "/second"]


def test_what_was_answered_by_half_is_not_repeated() -> None:
    def answer(asked: Asked, connection: Connection) -> bool:
        connection.sendall(said() if asked.path == "/first" else b"HTTP/1.1 2")
        return asked.path == "/first"

    with web_host(answer) as host, at_home() as requests:
        _done(requests, host.url("/first"))
        outcome = _done(requests, host.url("/second"))
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
    assert [asked.path for asked in host.asked] == ["/first", "/second"]


def test_idle_ones_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEPT_S", 0.05)
    monkeypatch.setattr(connections, "_SWEEP_S", 0.05)
    with web_host() as host, at_home() as requests:
        for turn in (1, 2):
            _done(requests, host.url())
            _soon(lambda: not host.is_connected)
            assert host.accepts == turn


def test_old_ones_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LIFE_S", 0.0)
    with web_host() as host, at_home() as requests:
        for _ in range(3):
            _done(requests, host.url())
    assert host.accepts == 3


def test_closing_closes_them() -> None:
    with web_host() as host:
        with at_home() as requests:
            _done(requests, host.url())
        _soon(lambda: not host.is_connected)
        assert _done(requests, host.url()).fate is Fate.DELIVERED
        _soon(lambda: not host.is_connected)


def test_what_was_allowed_once_is_not_kept_over_a_reload() -> None:
    """A connection that was made by older settings ends with its request."""

    def slowly(_asked: Asked, connection: Connection) -> None:
        gevent.sleep(0.2)
        connection.sendall(said())

    with web_host(slowly) as host, at_home() as requests:
        running = gevent.spawn(_done, requests, host.url(host="localhost"))
        _soon(lambda: bool(host.asked))
        requests.configure(Settings(url_hosts=("*",)))
        assert running.get(timeout=20).fate is Fate.DELIVERED
        assert _done(requests, host.url(host="localhost")).fate is Fate.NEVER
    assert len(host.asked) == 1


def test_kill_closes_what_is_under_way() -> None:
    def never(_asked: Asked, _connection: Connection) -> None:
        gevent.sleep(20)

    with web_host(never) as host, at_home() as requests:
        running = gevent.spawn(_done, requests, host.url())
        _soon(lambda: bool(host.asked))
        connection = host.connections[0]
        running.kill(timeout=20)
        with gevent.Timeout(20):
            assert connection.recv(1) == b""
