"""Places at a door: those who say nothing keep nobody out, those who have business stay."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import gevent
import pytest
from http_house import MAIL, House, Open, read_all, until
from smtp_doors import CERTIFICATE, Opened, opened
from test_doors_leave import _POST

from geomail.intake import reception
from geomail.intake.smtp import SmtpDoor, SmtpsDoor

pytest_plugins = ("http_fixtures",)

_PLACES = 20


@pytest.fixture
def house(opens: Open) -> House:
    """Give a door with few places, whose clients may be silent for long."""
    return opens(door_connections=str(_PLACES), door_idle_s="60")


@contextmanager
def crowd(house: House, said: bytes, places: int = _PLACES) -> Iterator[list[socket.socket]]:
    """Fill the door with clients that say so much, and no more."""
    with ExitStack() as stack:
        socks = [stack.enter_context(house.dial()) for _ in range(places)]
        for sock in socks:
            sock.sendall(said)
        until(lambda: house.door.guests == places)
        yield socks


@pytest.mark.parametrize(
    "said",
    [b"", b"\r\n", b"POST /v1", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", _POST[:-1]],
)
def test_honest_clients_get_in(house: House, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with crowd(house, said) as socks:
        began = time.monotonic()
        for _ in range(5):
            assert house.post(MAIL).status == 202
        assert time.monotonic() - began < 10
        assert b"503" in read_all(socks[0])  # who came first
    assert "door_silent host=127.0.0.1" in caplog.text


def test_a_drip_is_silence_too(house: House) -> None:
    with crowd(house, _POST[:10]) as socks:
        dripping = gevent.spawn(_drip, socks)
        assert house.post(MAIL).status == 202
        dripping.kill()


def _drip(socks: list[socket.socket]) -> None:
    while True:
        for sock in socks:
            with suppress(OSError):
                sock.sendall(b"x")
        gevent.sleep(0.1)


def test_who_has_brought_something_stays(house: House) -> None:
    with crowd(house, _POST) as socks:
        for sock in socks:
            assert sock.recv(12) == b"HTTP/1.1 202"
        gevent.sleep(1.1)
        assert house.post(MAIL).status == 503
        assert house.door.guests == _PLACES


def test_one_known_among_strangers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "_SILENT_S", 0.1)
    with house.dial() as known:
        known.sendall(_POST)
        assert known.recv(65536).startswith(b"HTTP/1.1 202")
        with ExitStack() as stack:
            for _ in range(3 * _PLACES):
                stack.enter_context(house.dial())
            assert house.post(MAIL).status == 202
            known.sendall(_POST)
            assert b"HTTP/1.1 202" in known.recv(65536)


def test_who_knows_the_token_stays(opens: Open) -> None:
    house = opens(door_connections="1", door_token="t")
    look = b"GET /v1/messages/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\n\r\n"
    with house.dial() as sock:
        sock.sendall(look)
        assert sock.recv(12) == b"HTTP/1.1 404"
        gevent.sleep(1.1)
        assert house.ask("GET", "/healthz").status == 503


def test_smtp_clients_that_only_greet(redis_url: str) -> None:
    with opened(redis_url, door_connections=3) as door:
        greeting = [door.bare() for _ in range(3)]
        for bare in greeting:
            bare.hello()
        assert all(_is_served(door) for _ in range(4))
        assert greeting[0].rest() == b"421 4.7.0 Too many connections, try again later\r\n"


@pytest.mark.parametrize("kind", [SmtpDoor, SmtpsDoor])
@pytest.mark.parametrize("says", [False, True])
def test_clients_that_only_encrypt(
    redis_url: str, tmp_path: Path, kind: type[SmtpDoor], says: bool
) -> None:
    cert = tmp_path / "door.pem"
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(cert)
    with opened(redis_url, kind=kind, door_connections=2, door_cert=str(cert)) as door:
        silent = [door.bare() for _ in range(2)]
        for bare in silent if says else []:
            if kind is SmtpDoor:
                bare.hello()
                bare.say(b"STARTTLS\r\n")
                bare.codes(1)
            bare.encrypt()
        for _ in range(3):
            bare = door.bare()
            if kind is SmtpsDoor:
                bare.encrypt()
            assert bare.codes(1) == [220]
            bare.say(b"QUIT\r\n")
            assert bare.codes(1) == [221]


def _is_served(door: Opened) -> bool:
    with door.client() as client:
        return client.sendmail("a@x.example", ["b@y.example"], b"Subject: x\r\n\r\nx\r\n") == {}
