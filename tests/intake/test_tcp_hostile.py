"""Hostile clients of the TCP door: each is told why, or left; memory is flat, the door open."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from callers import connect, lines_of, mail
from gevent.pool import Pool
from http_process import Listening

_MB = b"x" * 1_000_000


@pytest.fixture(scope="module")
def fortress(redis_server: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """One door for all of them: none may harm the next."""
    url, folder = redis_server.url, tmp_path_factory.mktemp("listen")  # type: ignore[attr-defined]
    limits: dict[str, Any] = {
        "door_idle_s": 1,
        "door_max_mb": 2,
        "memory_mb": 16,
        "door_connections": 50,
    }
    with Listening(url, folder, door="tcp", **limits) as door:
        is_welcome(door)
        yield door


def is_welcome(door: Listening) -> None:
    with closing(connect(("127.0.0.1", door.port))) as sock:
        sock.sendall(mail())
        assert "id" in lines_of(sock, 1)[0]


@pytest.fixture(autouse=True)
def stays_open(fortress: Listening) -> Iterator[None]:
    """See that the door is open afterwards, as slim as before, and has not stumbled."""
    before = fortress.peak_mb
    yield
    is_welcome(fortress)
    assert fortress.peak_mb < before + 25
    assert "broke" not in fortress.said


def hears(door: Listening, *said: bytes) -> bytes:
    """Say bytes, and return what is answered until the end of the connection."""
    heard = b""
    with closing(connect(("127.0.0.1", door.port))) as sock, suppress(ConnectionError):
        with suppress(ConnectionError):
            for piece in said:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
        while block := sock.recv(65536):
            heard += block
    return heard


def test_random_bytes(fortress: Listening) -> None:
    dice = random.Random(6)
    starts = (b"", b"{", b'{"to":"', b"a:1:{", mail())

    def say(number: int) -> bytes:
        return hears(fortress, starts[number % 5] + dice.randbytes(dice.randrange(1, 300)))

    answers = list(Pool(20).imap_unordered(say, range(10_000)))
    assert all(b'"error"' in said or not said or b'"id"' in said for said in answers)
    assert sum(b'"error"' in said for said in answers) > 5000


def test_a_document_of_a_gigabyte(fortress: Listening) -> None:
    assert b"more than 2,097,152 bytes" in hears(fortress, b'{"text":"', *[_MB] * 1000)
    assert b"more than 2,097,152 bytes" in hears(fortress, b'a:1:{s:999999999:"', *[_MB] * 1000)


def test_brackets_in_brackets(fortress: Listening) -> None:
    whole = b'{"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert b"nested too deep" in hears(fortress, whole)
    assert b"nested too deep" in hears(fortress, b"[" * 100_000)
    assert b"nested too deep" in hears(fortress, b"a:1:{i:0;" * 100_000)


def test_hundreds_who_say_nothing(fortress: Listening) -> None:
    silent = [connect(("127.0.0.1", fortress.port)) for _ in range(200)]
    try:
        is_welcome(fortress)
        heard = [sock.recv(1000) for sock in silent]
        assert all(b"too many conn" in said or b"nothing came for" in said for said in heard)
    finally:
        for sock in silent:
            sock.close()


def test_a_byte_now_and_then(fortress: Listening) -> None:
    began = time.monotonic()
    drips = [connect(("127.0.0.1", fortress.port)) for _ in range(40)]
    left = set(drips)
    while left:
        assert time.monotonic() - began < 20
        for sock in tuple(left):
            sock.settimeout(0)
            try:
                sock.send(b"[")
                if b"too slowly" in sock.recv(1000):
                    left.discard(sock)
            except BlockingIOError:
                continue
            except ConnectionError:
                left.discard(sock)
        time.sleep(0.1)
    for sock in drips:
        sock.close()


def test_all_connections_together_have_one_room(fortress: Listening) -> None:
    # 40 documents of 1.9 MB that don't end: more than a quarter of memory_mb.
    def fill() -> None:
        said.append(hears(fortress, b'{"to":"a@example.org","text":"', *[_MB[:95_000]] * 20))

    said: list[bytes] = []
    threads = [threading.Thread(target=fill) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(said) == 40
    assert all(b'"error"' in each for each in said)


def test_answers_that_nobody_reads(fortress: Listening) -> None:
    with closing(connect(("127.0.0.1", fortress.port))) as sock:
        sock.setblocking(False)
        until = time.monotonic() + 3
        with suppress(BlockingIOError, ConnectionError):
            while time.monotonic() < until:
                sock.send(mail() * 100)


def test_whoever_speaks_another_language_is_told(fortress: Listening) -> None:
    for said in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"EHLO me\r\n", b"\x16\x03\x01\x02\x00"):
        assert b"a JSON document" in hears(fortress, said)
