"""A connection whose host's addresses a directory knows, instead of the system's resolver."""

import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from geomail.delivery.dns.site import Answer, Said
from geomail.delivery.session.connect import Connecting, Directory


@pytest.fixture
def port() -> Iterator[int]:
    """Give a port at 127.0.0.2 that somebody listens on."""
    with socket.create_server(("127.0.0.2", 0)) as door:
        yield door.getsockname()[1]


def knows(*addresses: str) -> Directory:
    return lambda host: Answer(Said.RECORDS, addresses, 60.0)


def connecting(port: int, directory: Directory, *, source: str | None = None) -> Connecting:
    return Connecting("mx.example", port, within_s=5.0, source=source, directory=directory)


def test_it_is_asked_for_the_host(port: int) -> None:
    asked: list[str] = []

    def directory(host: str) -> Answer[str]:
        asked.append(host)
        return Answer(Said.RECORDS, ("127.0.0.2",), 60.0)

    found = connecting(port, directory).run()
    assert found is not None
    with found:
        assert found.getpeername() == ("127.0.0.2", port)
    assert asked == ["mx.example"]


def test_all_addresses_are_tried(port: int) -> None:
    found = connecting(port, knows("127.0.0.3", "::1", "127.0.0.2")).run()
    assert found is not None
    found.close()


@pytest.mark.parametrize(
    ("answer", "source", "why"),
    [
        (Answer(Said.NO_NAME), None, "it has no address"),
        (Answer(Said.RECORDS, ("::1",)), "127.0.0.1", "it has no address that can be used"),
        (Answer(Said.FAILED, text="SERVFAIL"), None, "its address was not found: SERVFAIL"),
    ],
)
def test_why_there_is_no_connection(
    port: int, answer: Answer[str], source: str | None, why: str
) -> None:
    tried = connecting(port, lambda _: answer, source=source)
    assert tried.run() is None
    assert why in tried.why
    assert tried.why.startswith(f"mx.example:{port}: ")


def test_the_deadline_holds_for_a_directory_too(port: int) -> None:
    def slow(_: str) -> Answer[str]:
        gevent.sleep(30)
        raise AssertionError("nobody waits for this")

    tried = Connecting("mx.example", port, within_s=0.2, directory=slow)
    began = time.monotonic()
    assert tried.run() is None
    assert time.monotonic() - began < 10
    assert "not found within 0.2 s" in tried.why


def test_an_address_is_no_question(port: int) -> None:
    def nobody(_: str) -> Answer[str]:
        raise AssertionError("an address is asked for")

    found = Connecting("127.0.0.2", port, within_s=5.0, directory=nobody).run()
    assert found is not None
    found.close()
