"""Hosts that drip, flood, lie and hang up: each request ends in time, in little memory."""

import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent.server import StreamServer
from web_host import Answering, Asked, Connection, at_home, said, web_host

from geomail.carriers.requests import Answer
from geomail.delivery.outcome import Blame, Fate
from geomail.job.kinds import HttpTask

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


def _asked(answer: Answering, method: str = "GET", **settings: object) -> Answer:
    with web_host(answer) as host, at_home(**settings) as requests:
        return requests.fetch(HttpTask(host.url(), method), job_id="1")


@contextmanager
def _little_memory() -> Iterator[None]:
    """Look that Python holds no more than 2 MB at any time, the server of the test included."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def _drips(start: bytes, piece: bytes, pause_s: float = 0.0) -> Answering:
    """Return what sends pieces for ever, or until it is left."""

    def answer(_asked: Asked, connection: Connection) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            gevent.sleep(pause_s)

    return answer


@pytest.mark.parametrize("start", [b"", _OK, _OK + b"X: "])
def test_slow_head_is_left_at_the_deadline(start: bytes) -> None:
    began = time.monotonic()
    drip = _drips(start, b"HTTP/1.1 200 OK"[:1] if not start else b"x", 0.05)
    outcome = _asked(drip, url_s=0.5).outcome
    assert time.monotonic() - began < 5
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)


@pytest.mark.parametrize("start", [_OK + b"\r\n", _OK + b"Content-Length: 900\r\n\r\n", _CHUNKED])
def test_slow_body_ends_at_the_deadline_and_changes_nothing(start: bytes) -> None:
    began = time.monotonic()
    piece = b"1\r\nx\r\n" if start is _CHUNKED else b"x"
    answer = _asked(_drips(start, piece, 0.05), url_s=0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert answer.outcome.fate is Fate.DELIVERED
    assert answer.body_bytes > 0


def test_slow_body_of_a_refusal_is_a_refusal() -> None:
    start = b"HTTP/1.1 404 No\r\nContent-Length: 900\r\n\r\n"
    assert _asked(_drips(start, b"x", 0.05), url_s=0.3).outcome.fate is Fate.NEVER


def test_silence_after_the_request_may_be_a_duplicate() -> None:
    outcome = _asked(lambda _asked, _connection: gevent.sleep(20), url_s=0.3).outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
    assert outcome.text.endswith("no answer within 0.3 s; it may have been done")


@pytest.mark.parametrize(
    "piece", [b"X: y\r\n" * 1000, b"x" * 6000, b"HTTP/1.1 100 C\r\n\r\n" * 300]
)
def test_endless_headers_are_left(piece: bytes) -> None:
    began = time.monotonic()
    flood = _drips(b"" if b"100" in piece else _OK, piece)
    with _little_memory():
        outcome = _asked(flood).outcome
    assert time.monotonic() - began < 20
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
    assert "its headers are longer than 64 kB" in outcome.text


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (_OK + b"Content-Length: 1000000000\r\n\r\n", b"x" * 1_000_000),
        (_OK + b"\r\n", b"x" * 1_000_000),
        (_CHUNKED, b"FFFFF\r\n" + b"x" * 0xFFFFF + b"\r\n"),
        (_CHUNKED, b"FFFFFFFFFFFF\r\n" + b"x" * 100_000),
        (_CHUNKED, b"1\r\nx\r\n" * 10_000),
    ],
)
def test_huge_bodies_are_cut(start: bytes, piece: bytes) -> None:
    flood = _drips(start, piece)
    with _little_memory():
        answer = _asked(flood, url_max_kb=500)
    assert answer.outcome.fate is Fate.DELIVERED
    assert 500_000 < answer.body_bytes < 600_000


def test_huge_redirects_are_followed_no_less() -> None:
    flood = _drips(b"HTTP/1.1 302 F\r\nLocation: /x\r\n\r\n", b"x" * 100_000)

    def answer(asked: Asked, connection: Connection) -> bool | None:
        if asked.path == "/x":
            connection.sendall(said())
            return None
        return flood(asked, connection)

    assert _asked(answer).outcome.fate is Fate.DELIVERED


def test_hangs_up_at_every_stage() -> None:
    """Whatever came before the end: an outcome, and one that fits."""
    whole = _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
    sent = 0

    def answer(_asked: Asked, connection: Connection) -> bool:
        connection.sendall(whole[:sent])
        return False

    with web_host(answer) as host, at_home() as requests:
        for sent in range(len(whole) + 1):
            outcome = requests.fetch(HttpTask(host.url()), job_id="1").outcome
            if sent >= len(_CHUNKED):
                assert outcome.fate is Fate.DELIVERED
            else:
                assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
                assert "it may have been done" in outcome.text
    assert host.accepts == len(host.asked) == len(whole) + 1


@pytest.mark.parametrize("status", [200, 404, 500])
def test_reset_within_the_body_changes_nothing(status: int) -> None:
    def answer(_asked: Asked, connection: Connection) -> bool:
        connection.sendall(b"HTTP/1.1 %d Said\r\nContent-Length: 9\r\n\r\nx" % status)
        gevent.sleep(0.05)  # what is under way is lost by a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    assert _asked(answer).outcome.code == status


@pytest.mark.parametrize("size", [1, 100_000, 20_000_000])
def test_answers_before_it_has_read_the_request(size: int) -> None:
    """What does not fit is told, though the request can't be sent whole."""

    def refuse(connection: Connection, _whence: object) -> None:
        connection.recv(1)
        connection.sendall(said(413, b"", "Connection: close"))
        gevent.sleep(0.1)

    server = StreamServer(("127.0.0.1", 0), refuse)
    server.start()
    try:
        with at_home(url_s=20) as requests:
            task = HttpTask(f"http://127.0.0.1:{server.server_port}/", "POST", json="x" * size)
            outcome = requests.fetch(task, job_id="1").outcome
    finally:
        server.stop()
    assert (outcome.fate, outcome.code) == (Fate.NEVER, 413)


@pytest.mark.parametrize(
    "answer",
    [b"220 mail.example ESMTP\r\n", b"-ERR\r\n", b"\x15\x03\x01", b"HTTP/1.1 101 S\r\n\r\n"],
)
def test_other_protocols_are_told_at_once(answer: bytes) -> None:
    began = time.monotonic()
    outcome = _asked(_drips(answer, b"", 20)).outcome
    assert time.monotonic() - began < 10
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.BOTH)
