"""Hostile clients: the door stays open, its memory flat; each is told what is wrong, or left."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import gevent
import pytest
from gevent.pool import Pool
from http_house import JSON, MAIL, WITHIN_S, Answer, read_all, until
from http_process import Listening

_HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
_LINES = _HEAD.replace(b"json", b"x-ndjson")
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_MB = b"%x\r\n%b\r\n" % (1_000_000, b"x" * 1_000_000)


class Fortress(Listening):
    """A door, besieged."""

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), WITHIN_S)

    def hears(self, *said: bytes) -> bytes:
        """Say bytes, and return what is answered until the end of the connection."""
        with self.dial() as sock:
            with suppress(ConnectionError):
                for piece in said:
                    sock.sendall(piece)
            with suppress(ConnectionError):
                return read_all(sock)
        return b""

    def post(self) -> Answer:
        return self.ask("POST", "/v1/messages", MAIL, JSON)


@pytest.fixture(scope="module")
def fortress(redis_server: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """One door for all of them: none may harm the next."""
    folder = tmp_path_factory.mktemp("listen")
    url = redis_server.url  # type: ignore[attr-defined]
    with Fortress(url, folder, door_idle_s=1, door_max_mb=2, memory_mb=16) as door:
        assert door.post().status == 202
        yield door


@pytest.fixture(autouse=True)
def stays_open(fortress: Fortress) -> Iterator[None]:
    """See that the door is open afterwards, as slim as before, and has not stumbled."""
    before = fortress.peak_mb
    yield
    assert fortress.post().status == 202
    assert fortress.peak_mb < before + 20
    assert "broke" not in fortress.said


def test_random_bytes(fortress: Fortress) -> None:
    dice = random.Random(6)

    def say(words: bytes) -> None:
        with fortress.dial() as sock, suppress(ConnectionError):
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            said = read_all(sock)
            assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505"))

    starts = (b"", b"GET / HTTP/1.1\r\n", _HEAD, _HEAD + _CHUNKED)
    strings = (starts[n % 4] + dice.randbytes(dice.randrange(1, 300)) for n in range(10_000))
    said = Pool(20).imap_unordered(say, strings)
    assert len([*said]) == 10_000


def test_a_document_of_a_gigabyte_is_refused_before_it_comes(fortress: Fortress) -> None:
    began = time.monotonic()
    said = fortress.hears(_HEAD + b"Content-Length: 1000000000\r\n\r\n", b"x" * 100_000)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"door_max_mb" in said
    assert time.monotonic() - began < 10


def test_a_document_without_end(fortress: Fortress) -> None:
    said = fortress.hears(_HEAD + _CHUNKED, *[_MB] * 30)
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_line_without_end(fortress: Fortress) -> None:
    said = fortress.hears(_LINES + b"Connection: close\r\n" + _CHUNKED, *[_MB] * 200, b"0\r\n\r\n")
    assert said.count(b'"error"') == 1
    assert b"door_max_mb" in said


def test_a_head_without_end(fortress: Fortress) -> None:
    said = fortress.hears(_HEAD, *[b"X: " + b"a" * 1000 + b"\r\n"] * 5000)
    assert said == b"" or said.startswith(b"HTTP/1.1 431 ")


def test_brackets_in_brackets(fortress: Fortress) -> None:
    body = b'{"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    start = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    assert fortress.hears(_HEAD + start, body).startswith(b"HTTP/1.1 400 ")
    said = fortress.hears(_LINES + start, body)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b'"error"' in said


def drip(fortress: Fortress, start: bytes, words: bytes) -> bytes:
    """Send bytes one at a time, slowly, until the door has enough; return its last words."""
    with fortress.dial() as sock:
        sock.sendall(start)
        sock.settimeout(0.1)
        for _ in range(200):
            with suppress(ConnectionError):
                sock.sendall(words)
            try:
                return sock.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                return b""
    raise AssertionError("the door waits for a drip for 20 s")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", b""),
        (b"POST /v1", b"a"),
        (_HEAD, b"X: a\r\n"),
        (_HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (_LINES + b"Content-Length: 100000\r\n\r\n", b" "),
        (_HEAD + _CHUNKED, b"1\r\n \r\n"),
    ],
)
def test_drips(fortress: Fortress, start: bytes, words: bytes) -> None:
    dripping = [gevent.spawn(drip, fortress, start, words) for _ in range(20)]
    gevent.sleep(0.3)
    assert fortress.post().status == 202
    gevent.joinall(dripping, timeout=WITHIN_S, raise_error=True)
    said = {one.get(timeout=0)[:13] for one in dripping}
    assert said <= ({b"HTTP/1.1 408 ", b""} if start else {b""})


def test_many_that_send_half(fortress: Fortress) -> None:
    """Thirty hold a megabyte and a half each, of sixteen that all may hold."""
    half = _HEAD + b"Content-Length: 1900000\r\n\r\n" + b" " * 1_500_000
    with ExitStack() as stack:
        socks = [stack.enter_context(fortress.dial()) for _ in range(30)]
        sent = [gevent.spawn(sock.sendall, half) for sock in socks]
        gevent.joinall(sent, timeout=WITHIN_S)
        until(lambda: fortress.post().status == 202)
        heads = [gevent.spawn(sock.recv, 13) for sock in socks]
        gevent.joinall(heads, timeout=WITHIN_S)
    said = [one.value for one in heads if one.successful()]
    assert b"HTTP/1.1 503 " in said
    assert set(said) <= {b"HTTP/1.1 503 ", b"HTTP/1.1 408 "}


def test_one_that_reads_nothing(fortress: Fortress) -> None:
    bad = b"x\n" * 500_000
    with fortress.dial() as sock:
        sock.settimeout(WITHIN_S)
        sock.sendall(_LINES + b"Content-Length: 200000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            sock.sendall(bad * 200)


def test_ten_that_never_pause(fortress: Fortress) -> None:
    health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 5000
    flood = _LINES + b"Content-Length: 1000000000\r\n\r\n" + b" " * 10_000_000
    with ExitStack() as stack:
        socks = [stack.enter_context(fortress.dial()) for _ in range(10)]
        busy = [
            gevent.spawn(sock.sendall, health if number % 2 else flood)
            for number, sock in enumerate(socks)
        ]
        for _ in range(20):
            began = time.monotonic()
            assert fortress.post().status == 202
            assert time.monotonic() - began < 5
        gevent.killall(busy)
