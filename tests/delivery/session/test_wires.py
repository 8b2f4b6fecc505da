"""A wire whose reader waits without a Waiter: what wakes it may have been meant for another."""

import os
import socket
from collections.abc import Iterator

import gevent
import pytest

from geomail.delivery.session.wires import PlainWire

Ends = tuple[PlainWire, socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return a wire, its own socket, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = PlainWire(ours.fileno())
    with ours, theirs:
        yield wire, ours, theirs
        wire.close()


def test_a_waking_without_bytes_is_none(ends: Ends) -> None:
    wire, _, theirs = ends
    reader = gevent.spawn(wire.read)
    for _ in range(3):
        gevent.sleep(0)
        gevent.get_hub().loop.run_callback(reader.switch)
    gevent.sleep(0)
    assert not reader.ready()
    theirs.sendall(b"250 ok\r\n")
    gevent.get_hub().loop.run_callback(reader.switch)
    assert reader.get(timeout=20) == b"250 ok\r\n"


def test_who_waits_for_something_else_is_not_woken_by_bytes(ends: Ends) -> None:
    wire, _, theirs = ends

    def read_and_sleep() -> bytes:
        received = wire.read()
        theirs.sendall(b"more")
        gevent.sleep(0.05)  # InvalidSwitchError, if anything else wakes it
        return received

    theirs.sendall(b"some")
    assert gevent.spawn(read_and_sleep).get(timeout=20) == b"some"


def test_a_reader_that_was_killed_leaves_the_wire_to_the_next(ends: Ends) -> None:
    wire, _, theirs = ends
    reader = gevent.spawn(wire.read)
    gevent.sleep(0)
    reader.kill()
    told: list[str] = []
    wire.watch(lambda: told.append("stale"))
    theirs.sendall(b"421 bye\r\n")
    with gevent.Timeout(20):
        while not told:
            gevent.sleep(0.001)
    wire.unwatch()
    assert gevent.spawn(wire.read).get(timeout=20) == b"421 bye\r\n"


def test_a_number_that_another_connection_has_had_reads_its_own(ends: Ends) -> None:
    wire, ours, _ = ends
    reader = gevent.spawn(wire.read)
    gevent.sleep(0)
    ours.shutdown(socket.SHUT_RDWR)
    assert reader.get(timeout=20) == b""
    wire.close()
    again, other = socket.socketpair()
    with again, other:
        again.setblocking(False)
        os.dup2(again.fileno(), ours.fileno())
        anew = PlainWire(ours.fileno())
        second = gevent.spawn(anew.read)
        gevent.sleep(0)
        other.sendall(b"220 hi\r\n")
        assert second.get(timeout=20) == b"220 hi\r\n"
        anew.close()
