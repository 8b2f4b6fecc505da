"""Sockets of doors: bound here, or handed over, and what is said when that can't be."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from geomail.config import Settings
from geomail.errors import ConfigError
from geomail.intake import listening


@pytest.fixture
def handed() -> Iterator[list[socket.socket]]:
    """Give two sockets that listen, as a parent would have them."""
    sockets = [listening.bind("tcp", ("127.0.0.1", 0)) for _ in range(2)]
    yield sockets
    for each in sockets:
        each.close()


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def adopt(handed: list[socket.socket]) -> list[int]:
    """Give the descriptors away: who adopts them closes them."""
    return [os.dup(each.fileno()) for each in handed]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_bound_here(host: str) -> None:
    with listening.opened(Settings(listen_tcp=(host, 0))) as listeners:
        address = listeners["tcp"].getsockname()[:2]
        assert listening.is_loopback(address[0])
        socket.create_connection(address, 5).close()


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"tcp door can't listen on no\.such\.invalid:1: "):
        listening.bind("tcp", ("no.such.invalid", 1))


def test_one_that_fails_closes_the_others(handed: list[socket.socket]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()
    settings: dict[str, Any] = {"listen_tcp": free, "listen_http": handed[0].getsockname()}
    with pytest.raises(ConfigError, match="http door"):
        listening.open_all(Settings(**settings), {})
    listening.bind("tcp", free).close()


def test_handed_over_by_a_parent(handed: list[socket.socket]) -> None:
    first, second = adopt(handed)
    environ = {"GEOMAIL_DOORS": f"tcp:{first},smtp:{second}"}
    # A worker binds nothing of its own: its parent's file may have changed since.
    settings = Settings(listen_http=("127.0.0.1", 0), process=1, parent=1)
    listeners = listening.open_all(settings, environ)
    assert {name: port_of(each) for name, each in listeners.items()} == {
        "tcp": port_of(handed[0]),
        "smtp": port_of(handed[1]),
    }
    assert environ == {}
    told = listening.hand_over(listeners)
    assert told == {"GEOMAIL_DOORS": f"tcp:{first},smtp:{second}"}
    listening.close_all(listeners)
    assert listening.hand_over({}) == {}


@pytest.mark.parametrize("names", ["tcp:smtp", "smtp:tcp", ""])
def test_handed_over_by_systemd(
    handed: list[socket.socket], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_FIRST_FD", _neighbours(handed))
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
    settings: dict[str, Any] = {
        "listen_tcp": handed[1].getsockname(),
        "listen_smtp": ("127.0.0.1", 1),
    }
    listeners = listening.open_all(Settings(**settings), environ)
    first = names.partition(":")[0] or "smtp"  # without names, by the port
    assert port_of(listeners[first]) == port_of(handed[0])
    assert environ == {}
    listening.close_all(listeners)


def _neighbours(handed: list[socket.socket]) -> int:
    """Duplicate the sockets to descriptors that follow each other; return the first."""
    first = 200
    for place, each in enumerate(handed):
        os.dup2(each.fileno(), first + place)
    return first


def test_one_too_many_from_systemd(
    handed: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_FIRST_FD", _neighbours(handed))
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    settings: dict[str, Any] = {"listen_tcp": handed[0].getsockname()}
    with pytest.raises(ConfigError, match=r"no door is for: 127\.0\.0\.1:\d+; name it by"):
        listening.open_all(Settings(**settings), environ)


def test_sockets_for_another_process_are_none_of_ours() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert listening.open_all(Settings(), environ) == {}


def test_what_is_no_socket() -> None:
    with pytest.raises(ConfigError, match="no socket was handed over as tcp"):
        listening.open_all(Settings(process=1, parent=1), {"GEOMAIL_DOORS": "tcp:999"})
    with socket.socket() as deaf:
        told = {"GEOMAIL_DOORS": f"tcp:{os.dup(deaf.fileno())}"}
        with pytest.raises(ConfigError, match="listens to no stream"):
            listening.open_all(Settings(process=1, parent=1), told)


@pytest.mark.parametrize(
    ("host", "is_so"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_loopback(host: str, is_so: bool) -> None:
    assert listening.is_loopback(host) == is_so


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "open_door"),
        ({"door_token": "x"}, "door_without_tls"),
        ({"door_token": "x", "door_cert": "x.pem"}, ""),
    ],
)
def test_a_public_address_is_warned_of(
    settings: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with listening.opened(Settings(listen_tcp=("0.0.0.0", 0), **settings)):
        assert caplog.text.partition("door=")[0].endswith(f"{said} " if said else "")
        assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "only programs on this machine can send: set door_logins"),
        ({"door_logins": "x"}, "from elsewhere AUTH PLAIN is refused: set door_cert"),
        ({"door_logins": "x", "door_cert": "x.pem"}, ""),
    ],
)
def test_an_smtp_door_on_a_public_address(
    settings: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with listening.opened(Settings(listen_smtp=("0.0.0.0", 0), **settings)):
        assert said in caplog.text
        assert bool(caplog.text) == bool(said)
