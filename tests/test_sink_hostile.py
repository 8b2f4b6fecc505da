"""Clients that mean no good, over real sockets: memory stays flat, the others are served."""

import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sink_peers import ENVELOPE, LETTER, SEVERAL, Bare, client_of, wait_until

from geomail.sink import Sink

BLOCK = 65536
MOST_BYTES = 2_000_000  # sockets, greenlets, and blocks of 64 KB in both directions


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture
def bare(sink: Sink) -> Iterator[Bare]:
    client = Bare(sink)
    client.hello()
    yield client
    client.socket.close()


def is_served(sink: Sink) -> bool:
    """Send a mail as anyone would."""
    with client_of(sink) as client:
        return client.sendmail("a@x", SEVERAL, LETTER) == {}


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"BDAT 1000000000\r\n",
        ENVELOPE.format("b@y").encode() + b"BDAT 1000000000 LAST\r\n",
        ENVELOPE.format("b@y").encode() + b"BDAT 999999999999999999\r\n",
        b"AUTH PLAIN ",
    ],
)
def test_what_never_ends(sink: Sink, bare: Bare, beginning: bytes) -> None:
    block = b"x" * BLOCK
    with little_memory():
        bare.socket.sendall(beginning)
        for _ in range(300):
            bare.socket.sendall(block)
        assert is_served(sink)
    bare.socket.close()
    wait_until(lambda: sink.connections == 0)
    assert sink.count == 1


def test_ten_thousand_empty_chunks(bare: Bare) -> None:
    with little_memory():
        bare.socket.sendall(ENVELOPE.format("b@y").encode())
        bare.until(b"2.1.5 Ok\r\n")
        for _ in range(100):
            bare.socket.sendall(b"BDAT 0\r\n" * 100)
            for _ in range(100):
                assert bare.until(b"\r\n") == b"250 2.0.0 Ok, go on\r\n"
    bare.socket.sendall(b"BDAT 0 LAST\r\nQUIT\r\n")
    assert bare.rest() == b"250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"


def ask_for_ever(bare: Bare) -> None:
    while True:
        bare.socket.sendall(b"HELP\r\n" * (BLOCK // 6))


def test_a_client_that_asks_and_does_not_read(sink: Sink, bare: Bare) -> None:
    """What it doesn't read is not read from it either, so nothing piles up."""
    bare.socket.settimeout(1.0)
    with little_memory():
        with pytest.raises(TimeoutError):
            ask_for_ever(bare)
        assert is_served(sink)
    bare.socket.close()
    wait_until(lambda: sink.connections == 0)


@pytest.mark.parametrize("argument", [b"x", b"", b"-1 LAST", b"9" * 4000])
def test_a_chunk_of_unknown_size_is_not_run(sink: Sink, bare: Bare, argument: bytes) -> None:
    smuggled = ENVELOPE.format("b@y").encode() + b"BDAT 0 LAST\r\n"
    bare.socket.sendall(b"BDAT " + argument + b"\r\n" + smuggled)
    with suppress(ConnectionResetError):  # it had more to read than it read
        assert bare.rest().startswith(b"501 5.5.4 Syntax: BDAT octets [LAST]")
    assert is_served(sink)
    assert sink.count == 1


def test_half_a_chunk_and_gone(sink: Sink, bare: Bare) -> None:
    bare.socket.sendall(ENVELOPE.format("b@y").encode() + b"BDAT 100 LAST\r\nhalf")
    bare.until(b"2.1.5 Ok\r\n")
    bare.socket.shutdown(socket.SHUT_WR)
    assert bare.rest() == b""
    wait_until(lambda: sink.connections == 0)
    assert sink.count == 0
