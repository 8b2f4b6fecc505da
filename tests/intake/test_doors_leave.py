"""Doors that leave: who is in hears the end of what was begun, and a close that is no reset."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import gevent
import pytest
from callers import mail
from gevent.ssl import SSLContext
from http_house import MAIL, WITHIN_S, House, Open, read_all, until
from smtp_doors import CERTIFICATE, DEADLINE_S, LETTER, opened

from geomail.intake import guest as room
from geomail.intake import listening
from geomail.intake.guest import Guest
from geomail.intake.reception import Reception
from geomail.intake.tcp import TcpDoor

pytest_plugins = ("http_fixtures",)

_BODY = json.dumps(MAIL).encode()
_POST = (
    b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def ask_until_told(sock: socket.socket, one: bytes, is_last: Callable[[bytes], bool]) -> int:
    """Send one thing after the other until the door says that it leaves; return how often."""
    asked = 0
    while True:
        sock.sendall(one)
        asked += 1
        said = sock.recv(65536)
        assert said, f"an answer, before the end, to the {asked}th"
        if is_last(said):
            sock.sendall(one)  # crosses the end on its way
            assert sock.recv(65536) == b""
            return asked


def test_busy_http_connections_are_told(house: House) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(house.dial()) for _ in range(20)]
        asking = [
            gevent.spawn(ask_until_told, sock, _POST, lambda said: b"Connection: close" in said)
            for sock in socks
        ]
        until(lambda: house.waiting() > 200)
        house.door.stop(WITHIN_S)
        gevent.joinall(asking, timeout=WITHIN_S, raise_error=True)
        assert house.waiting() == sum(one.get(timeout=0) for one in asking)


@pytest.mark.parametrize("begun", [b"", _POST, _POST + _POST[:20], _POST + _POST[:-5]])
def test_a_quiet_http_connection_ends_without_a_reset(house: House, begun: bytes) -> None:
    with house.dial() as sock:
        sock.sendall(begun)
        if begun:
            assert sock.recv(65536).startswith(b"HTTP/1.1 202 ")
        until(lambda: house.door.guests == 1)
        leaving = gevent.spawn(house.door.stop, WITHIN_S)
        gevent.sleep(0)
        sock.sendall(_POST[len(begun) - len(_POST) :] if len(begun) > len(_POST) else _POST)
        said = read_all(sock)
        assert said.startswith(b"HTTP/1.1 202 ")
        assert b"Connection: close" in said
        leaving.get(timeout=WITHIN_S)
    assert house.waiting() == (2 if begun else 1)


def test_a_document_that_crosses_the_end_is_answered(house: House) -> None:
    door = TcpDoor(house.gate, house.settings, None)
    listener = listening.bind("tcp", ("127.0.0.1", 0))
    address = listener.getsockname()
    door.start(listener)
    with closing(socket.create_connection(address, WITHIN_S)) as sock:
        sock.sendall(mail())
        assert b'"id"' in sock.recv(1000)
        sock.sendall(mail()[:20])
        until(lambda: door.reception.guests == 1)
        leaving = gevent.spawn(door.stop, WITHIN_S)
        gevent.sleep(0.1)
        sock.sendall(mail()[20:])
        assert b'"id"' in sock.recv(1000)
        until(lambda: listener.fileno() < 0)
        assert sock.recv(1000) == b""
        sock.sendall(mail())
        leaving.get(timeout=WITHIN_S)
    assert house.waiting() == 2


def test_a_mail_that_has_begun_is_taken(redis_url: str) -> None:
    with opened(redis_url) as door:
        busy = door.bare()
        busy.hello()
        busy.say(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n")
        assert busy.codes(3) == [250, 250, 354]
        leaving = gevent.spawn(door.door.stop, DEADLINE_S)
        gevent.sleep(0.5)
        busy.say(LETTER + b".\r\nMAIL FROM:<a@x.example>\r\n")
        assert busy.codes(2) == [250, 250]
        assert busy.rest() == b"421 4.3.2 Going down, try again later\r\n"
        leaving.get(timeout=DEADLINE_S)
    assert len(door.jobs()) == 1


def test_who_comes_in_the_last_moment_is_served(redis_url: str) -> None:
    with opened(redis_url) as door, closing(door.bare().socket) as sock:
        leaving = gevent.spawn(door.door.stop, DEADLINE_S)
        for said in (b"EHLO me\r\n", b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.org>\r\n"):
            gevent.sleep(0.2)
            sock.sendall(said)
        assert b"250 2.1.5" in _heard(sock, b"250 2.1.5")
        sock.sendall(b"DATA\r\n" + LETTER + b".\r\n")
        assert b"queued as" in _heard(sock, b"queued as")
        leaving.get(timeout=DEADLINE_S)
    assert len(door.jobs()) == 1


def _heard(sock: socket.socket, ending: bytes) -> bytes:
    heard = b""
    while ending not in heard:
        block = sock.recv(1000)
        assert block, heard
        heard += block
    return heard


def test_who_is_turned_away_can_read_why(opens: Open) -> None:
    house = opens(door_connections="1")
    with house.dial() as first:
        first.sendall(_POST)
        assert first.recv(12) == b"HTTP/1.1 202"
        for _ in range(5):
            with house.dial() as sock:
                sock.sendall(_POST * 100)
                assert read_all(sock).startswith(b"HTTP/1.1 503 ")


def test_one_that_is_waiting_is_woken_and_goes_on() -> None:
    """Not by closing: what comes later still comes."""
    heard: list[bytes] = []

    def converse(guest: Guest) -> None:
        while data := guest.read(1000, WITHIN_S, is_begun=False):
            heard.append(data)

    reception = Reception(converse, most=1, farewell=b"")
    listener = listening.bind("tcp", ("127.0.0.1", 0))
    address = listener.getsockname()
    reception.start(listener)
    with closing(socket.create_connection(address, WITHIN_S)) as sock:
        until(lambda: reception.guests == 1)
        leaving = gevent.spawn(reception.stop, WITHIN_S)
        gevent.sleep(0.1)
        sock.sendall(b"late")
        assert sock.recv(10) == b""
        leaving.get(timeout=WITHIN_S)
    assert heard == [b"late"]


def test_a_handshake_without_an_end_keeps_nobody(
    opens: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PAUSE_S", 0.2)
    tls = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(tls)
    house = opens(tls=tls)
    with house.dial() as shaking, house.dial() as silent:
        shaking.sendall(b"\x16\x03\x01")
        until(lambda: house.door.guests == 2)
        gevent.sleep(0.1)
        began = time.monotonic()
        leaving = gevent.spawn(house.door.stop, WITHIN_S)
        assert read_all(silent).startswith(b"HTTP/1.1 400 ")
        assert read_all(shaking) == b""
        leaving.get(timeout=WITHIN_S)
        assert time.monotonic() - began < room._HANDSHAKE_S / 2
