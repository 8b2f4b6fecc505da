"""The race for a connection: real listeners on this machine, and a resolver that says what it must.

127.0.0.0/8 is all here, so each of its addresses can be a host of its own: one that accepts, one
that refuses because nobody listens, and one whose queue is full, so that no SYN is answered.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from scripted import Host, Peer, refused, terms, watched

from geomail.delivery.session import connect
from geomail.delivery.session.connect import Connecting, in_turn
from geomail.delivery.session.transport import Session
from geomail.smtp.events import Cause, Lost

NAME = "mx.example"
V4, V6 = socket.AF_INET, socket.AF_INET6


class Names:
    """A resolver that knows one name; `is_open` lets its answers out."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []
        self.is_open = Event()
        self.is_open.set()

    def getaddrinfo(self, host: str, port: int, family: int, kind: int) -> list[Any]:
        """Answer as the system does."""
        self.asked.append((host, family))
        self.is_open.wait()
        found: list[Any] = []
        for address in self.addresses:
            if family in (0, V4) and ":" not in address:
                found.append((V4, kind, 6, "", (address, port)))
            if family in (0, V6) and ":" in address:
                found.append((V6, kind, 6, "", (address, port, 0, 0)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@pytest.fixture
def names() -> Iterator[Names]:
    """Resolve names by a table."""
    hub: Any = gevent.get_hub()
    made = Names()
    before, hub.resolver = hub.resolver, made
    yield made
    made.is_open.set()
    with gevent.Timeout(20):
        while connect._under_way:
            gevent.sleep(0.002)
    hub.resolver = before


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Hold the test to leaving no descriptor open."""
    gevent.sleep(0)
    before = descriptors()
    yield
    deadline = time.monotonic() + 20
    while (left := descriptors() - before) and time.monotonic() < deadline:
        gevent.sleep(0.01)
    assert not left


def descriptors() -> set[str]:
    """Return what this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own is gone by now
            found.add(f"{link} {link.readlink()}")
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def accepting(address: str, port: int) -> Iterator[list[str]]:
    """Listen at `address`; give the list of who came."""
    came: list[str] = []
    with socket.socket(V6 if ":" in address else V4) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()

        def accept() -> None:
            while True:
                accepted, peer = listener.accept()
                came.append(peer[0])
                accepted.close()

        acceptor = gevent.spawn(accept)
        try:
            yield came
        finally:
            acceptor.kill()


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """Listen at `address` with a queue that is full: the next SYN is not answered."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((address, port))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


def race(host: str, port: int, *, within_s: float = 20, source: str | None = None) -> Connecting:
    """Prepare a race; a lost one is over in 20 s."""
    return Connecting(host, port, within_s=within_s, source=source)


def won(connecting: Connecting) -> str:
    """Run a race that has to be won; return the address that won it."""
    connected = connecting.run()
    assert connected is not None, connecting.why
    with connected:
        return str(connected.getpeername()[0])


def lost(connecting: Connecting) -> str:
    """Run a race that nobody wins; return why."""
    assert connecting.run() is None
    return connecting.why


# ---- the order


def test_the_families_take_turns() -> None:
    four = [(V4, (f"192.0.2.{n}", 25)) for n in range(3)]
    six = [(V6, (f"2001:db8::{n}", 25, 0, 0)) for n in range(3)]
    assert in_turn([*six, *four]) == [six[0], four[0], six[1], four[1], six[2], four[2]]
    assert in_turn([*four, six[0]]) == [four[0], six[0], four[1], four[2]]
    assert in_turn([four[0], four[0]]) == [four[0]]


def test_an_address_that_answers_nothing_costs_a_quarter_of_a_second(
    names: Names, no_leak: None
) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2", "127.0.0.3")
    with silent("127.0.0.2", port), accepting("127.0.0.3", port):
        began = time.monotonic()
        assert won(race(NAME, port)) == "127.0.0.3"
    assert 0.2 < time.monotonic() - began < 10


def test_an_address_that_refuses_costs_nothing(
    names: Names, no_leak: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_HEAD_START_S", 60.0)
    port = free_port()
    names.addresses = tuple(f"127.0.0.{n}" for n in range(2, 10))
    with accepting("127.0.0.9", port):
        assert won(race(NAME, port)) == "127.0.0.9"


def test_the_first_one_may_still_win_when_the_second_was_started(
    names: Names, no_leak: None
) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2", "127.0.0.3")
    with silent("127.0.0.3", port), ExitStack() as first:
        first.enter_context(silent("127.0.0.2", port))
        racing = gevent.spawn(won, race(NAME, port))
        gevent.sleep(0.4)
        first.close()  # the SYN is sent again a second after the first
        with accepting("127.0.0.2", port):
            assert racing.get(timeout=20) == "127.0.0.2"


def test_the_other_family_is_tried(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("::1", "127.0.0.2")
    with accepting("127.0.0.2", port):
        assert won(race(NAME, port)) == "127.0.0.2"


def test_no_more_than_eight_addresses_are_tried(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = tuple(f"127.0.0.{n}" for n in range(2, 30))
    with accepting("127.0.0.10", port) as came:
        why = lost(race(NAME, port))
    assert came == []
    assert why == (
        f"{NAME}:{port}: 127.0.0.2: Connection refused, 127.0.0.3: Connection refused,"
        " 127.0.0.4: Connection refused, and 5 more addresses"
    )


# ---- literals


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_a_literal_costs_no_lookup(names: Names, no_leak: None, host: str) -> None:
    port = free_port()
    with accepting(host, port):
        assert won(race(host, port)) == host
    assert names.asked == []


def test_an_ipv6_address_is_shown_as_one() -> None:
    port = free_port()
    assert lost(race("::1", port)) == f"[::1]:{port}: Connection refused"


# ---- the end


def test_each_address_says_why(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2", "127.0.0.3")
    with silent("127.0.0.3", port):
        why = lost(race(NAME, port, within_s=0.5))
    assert why == (
        f"{NAME}:{port}: 127.0.0.2: Connection refused, 127.0.0.3: no answer within 0.5 s"
    )


def test_an_unreachable_network_is_not_waited_for(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("255.255.255.255", "127.0.0.2")
    with accepting("127.0.0.2", port):
        assert won(race(NAME, port)) == "127.0.0.2"


def test_the_deadline_holds_for_all_addresses_together(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = tuple(f"127.0.0.{n}" for n in range(2, 6))
    with ExitStack() as stack:
        for address in names.addresses:
            stack.enter_context(silent(address, port))
        began = time.monotonic()
        why = lost(race(NAME, port, within_s=0.6))
    assert 0.6 <= time.monotonic() - began < 10
    assert why.count("no answer within 0.6 s") == 3


End = Callable[[Connecting, "gevent.Greenlet[[], Any]"], object]
ENDS: list[End] = [lambda connecting, _: connecting.cancel(), lambda _, racing: racing.kill()]


@pytest.mark.parametrize("end", ENDS, ids=["cancelled", "killed"])
def test_a_race_can_be_ended(names: Names, no_leak: None, end: End) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2", "127.0.0.3")
    with silent("127.0.0.2", port), silent("127.0.0.3", port):
        connecting = race(NAME, port)
        racing = gevent.spawn(connecting.run)
        gevent.sleep(0.3)
        end(connecting, racing)
        racing.join(20)
        assert racing.ready()
        assert not isinstance(racing.value, socket.socket)


@pytest.mark.parametrize("end", ENDS, ids=["cancelled", "killed"])
def test_a_lookup_does_not_have_to_be_waited_for(names: Names, end: End) -> None:
    names.is_open.clear()
    connecting = race(NAME, 25)
    racing = gevent.spawn(connecting.run)
    gevent.sleep(0.01)
    end(connecting, racing)
    racing.join(20)
    assert racing.ready()
    assert connecting.why in ("", f"{NAME}:25: given up")


def test_a_lookup_has_the_same_deadline(names: Names) -> None:
    names.is_open.clear()
    assert lost(race(NAME, 25, within_s=0.1)) == (
        f"{NAME}:25: its address was not found within 0.1 s"
    )


def test_many_share_one_lookup(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2",)
    names.is_open.clear()
    with accepting("127.0.0.2", port):
        racing = [gevent.spawn(won, race(NAME, port)) for _ in range(20)]
        gevent.sleep(0.05)
        racing.pop().kill()  # who has lost patience takes nothing from the others
        names.is_open.set()
        assert [each.get(timeout=20) for each in racing] == ["127.0.0.2"] * 19
        assert names.asked == [(NAME, 0)]
        assert won(race(NAME, port)) == "127.0.0.2"
    assert len(names.asked) == 2


def test_a_name_that_is_not_known(names: Names) -> None:
    assert lost(race("nosuch.example", 25)) == "nosuch.example:25: Name or service not known"


def test_a_name_that_can_be_none() -> None:
    assert lost(race("a" * 70 + ".example", 25)).endswith(": no name of a host")


# ---- where we come from


def test_a_source_address_is_ours(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("::1", "127.0.0.2")
    with accepting("::1", port) as wrong, accepting("127.0.0.2", port) as came:
        assert won(race(NAME, port, source="127.0.0.77")) == "127.0.0.2"
        with gevent.Timeout(20):
            while not came:
                gevent.sleep(0.01)
    assert (came, wrong) == (["127.0.0.77"], [])
    assert names.asked == [(NAME, V4)]


def test_a_source_address_without_an_address_of_its_kind(names: Names) -> None:
    names.addresses = ("127.0.0.2",)
    assert lost(race(NAME, 25, source="::1")) == (
        f"{NAME}:25: Name or service not known (asked for IPv6, as source_address is ::1)"
    )


def test_a_source_address_that_is_not_ours(no_leak: None) -> None:
    port = free_port()
    assert lost(race("127.0.0.2", port, source="192.0.2.1")) == (
        f"127.0.0.2:{port}: Cannot assign requested address (source_address is 192.0.2.1)"
    )


# ---- as a session does it


def test_a_session_tells_what_was_tried(names: Names, no_leak: None) -> None:
    port = free_port()
    names.addresses = ("127.0.0.2", "127.0.0.3")
    found = refused(terms(f"smtp://{NAME}:{port}"))
    assert str(found) == (
        f"connect: can't connect: {NAME}:{port}:"
        " 127.0.0.2: Connection refused, 127.0.0.3: Connection refused"
    )


def test_a_session_comes_from_its_source_address(no_leak: None) -> None:
    came = list[str]()

    def script(peer: Peer) -> None:
        came.append(peer.sock.getpeername()[0])
        peer.greet()
        peer.wait_for_end()

    with Host(script) as host:
        made = terms(f"smtp://127.0.0.1:{host.port}", relay={"source_address": "127.0.0.5"})
        with watched(Session(made)) as session:
            assert session.open() is None
    assert came == ["127.0.0.5"]


def test_a_session_that_expires_stops_connecting(no_leak: None) -> None:
    port = free_port()
    with silent("127.0.0.2", port), watched(Session(terms(f"smtp://127.0.0.2:{port}"))) as session:
        opening = gevent.spawn(session.open)
        gevent.sleep(0.05)
        session.expire()
        found = opening.get(timeout=20)
    assert found == Lost(Cause.CONNECT, None, f"127.0.0.2:{port}: given up")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_session_that_is_killed_leaves_nothing_open(no_leak: None, scheme: str) -> None:
    """While it waits for the greeting, or within the handshake."""
    with (
        Host(lambda peer: peer.wait_for_end()) as host,
        watched(Session(terms(f"{scheme}://localhost:{host.port}"))) as session,
    ):
        opening = gevent.spawn(session.open)
        with gevent.Timeout(20):
            while session._socket is None:
                gevent.sleep(0.002)
        gevent.sleep(0.02)
        opening.kill()
        assert session.deadline < float("inf")
