"""Several messages in one flight by BDAT, writes that can't go on, idle connections."""

import socket
import ssl
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import gevent
import gevent.event
import gevent.socket
import pytest
from certificates import context, unverified
from scripted import Host, Peer, Script, Sent, terms, watched

from geomail.delivery.session.transport import Session
from geomail.delivery.session.wires import TlsWire
from geomail.letter import Letter
from geomail.smtp.events import Awaited, Cause, Event, Finished, Lost

EHLO = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
LINES = 120


def letter(size: int = 100) -> Letter:
    """Make a letter of about so many bytes."""
    lines = b"." * 98 + b"\r\n"
    return Letter("a@a.example", ("b@b.example",), lines * (size // 100), False, False)


def session_with(
    host: Host, *, scheme: str = "smtp", in_flight: int = 8, **limits: float
) -> Session:
    """Make a session that goes by BDAT."""
    made = terms(
        f"{scheme}://127.0.0.1:{host.port}",
        relay={"chunking": "on", "in_flight": in_flight, "verify": scheme == "smtp"},
        limits=limits,
    )
    return Session(made, chunking="on")


def take_chunk(peer: Peer) -> tuple[int, int]:
    """Read an envelope and its chunk; return how many replies are due, and the chunk's size."""
    envelope = peer.hear(b" LAST\r\n").split(b"\r\n")
    size = left = int(envelope[-1].removeprefix(b"BDAT "))
    taken, peer.heard = len(peer.heard), peer.heard[left:]
    left -= min(left, taken)
    while left:
        block = peer.sock.recv(min(left, 65536))
        if not block:
            raise EOFError(left)
        left -= len(block)
    return len(envelope), size


def finished(events: list[Event]) -> list[object]:
    """Return whose messages were accepted."""
    return [
        event.transaction.owner
        for event in events
        if isinstance(event, Finished)
        and event.transaction.final is not None
        and event.transaction.final.is_positive
    ]


def the_loss(session: Session) -> Lost:
    """Take turns until the connection is lost; return why it was."""
    while True:
        gevent.sleep(0)  # or a turn that waits for nothing would never end
        for event in session.turn():
            if isinstance(event, Lost):
                return event


# ---- turns


def test_a_turn_writes_all_there_is_and_reads_once() -> None:
    may_answer = gevent.event.Event()

    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        for number in range(3):
            replies, _ = take_chunk(peer)
            if number:
                may_answer.wait(20)
            peer.say(b"250 ok\r\n" * replies)
        peer.wait_for_end()

    with Host(script) as host, watched(session_with(host)) as session:
        assert session.open() is None
        for number in range(3):
            session.client.begin(letter(), number)
        done = finished(session.turn())
        while not done:  # its replies may have come in pieces
            done = finished(session.turn())
        assert done == [0]
        assert session.deadline < float("inf")
        may_answer.set()
        while session.client.awaited:
            done += finished(session.turn())
        assert done == [0, 1, 2]
        assert session.deadline == float("inf")
        assert session.turn() == []


def test_a_reply_that_drips_is_not_prolonged_by_what_is_written_behind_it() -> None:
    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        take_chunk(peer)
        for byte in repeat(b"2"):
            peer.say(byte)
            gevent.sleep(0.02)

    with Host(script) as host, watched(session_with(host, in_flight=64, mail_s=0.3)) as session:
        assert session.open() is None
        began, events = time.monotonic(), list[Event]()
        while not events:
            if session.client.may_begin:
                session.client.begin(letter(), None)
            events = session.turn()
    (lost,) = events
    assert isinstance(lost, Lost)
    assert (lost.cause, lost.phase) == (Cause.TIMEOUT, Awaited.MAIL)
    assert lost.text == "no answer within 0.3 s"
    assert time.monotonic() - began < 5


def test_a_lost_connection_ends_the_turns() -> None:
    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        take_chunk(peer)
        peer.say(b"250 ok\r\n250 ok\r\n250 taken\r\n")
        take_chunk(peer)
        peer.reset()

    with Host(script) as host, watched(session_with(host)) as session:
        assert session.open() is None
        first, second = (session.client.begin(letter(), number) for number in range(2))
        events = session.turn()
        while not session.client.is_lost:
            events += session.turn()
        assert finished(events) == [0]
        assert isinstance(events[-1], Lost)
        assert first.final is not None
        assert session.client.sent_whole(second)
        assert session.turn() == []


# ---- writes that can't go on


def wordy(code: bytes) -> bytes:
    """Make a reply of nearly 60 KB."""
    lines = [code + b"-" + b"x" * 480 for _ in range(LINES)]
    return b"\r\n".join([*lines, code + b" end\r\n"])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_two_ends_do_not_wait_for_each_other_to_read(scheme: str) -> None:
    """A host that answers each chunk before it reads on, with more than the kernels keep."""
    taken = list[int]()

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        if scheme == "smtps":
            peer.start_tls(context())
        peer.greet(ehlo=EHLO)
        while True:
            replies, size = take_chunk(peer)
            taken.append(size)
            peer.say(wordy(b"250") * replies)

    sizes = [100_000] * 7 + [30_000_000]
    with Host(script) as host, watched(session_with(host, scheme=scheme)) as session:
        assert session.open() is None
        for number, size in enumerate(sizes):
            session.client.begin(letter(size), number)
        done = list[object]()
        while session.client.awaited:
            done += finished(session.turn())
        assert done == list(range(8))
        assert session.client._written == session.client._queued
    assert taken == sizes


@pytest.mark.parametrize("chunking", [True, False])
def test_a_421_ends_a_write_that_can_not_go_on(chunking: bool) -> None:
    over = gevent.event.Event()

    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        if chunking:
            peer.hear(b" LAST\r\n")
            peer.say(b"250 ok\r\n250 ok\r\n")
        else:
            peer.take_envelope()
        peer.sock.recv(65536)
        peer.say(b"421 4.3.0 no more\r\n")
        over.wait(20)

    with Host(script) as host:
        session = (
            session_with(host) if chunking else Session(terms(f"smtp://127.0.0.1:{host.port}"))
        )
        with watched(session):
            assert session.open() is None
            if chunking:
                transaction = session.client.begin(letter(50_000_000), 0)
                lost = the_loss(session)
                assert not session.client.sent_whole(transaction)
            else:
                sent = Sent(session, [letter(50_000_000)])
                assert sent.lost is not None
                lost = sent.lost
        over.set()
    assert lost.text == "421 4.3.0 no more"


def test_what_a_host_says_does_not_prolong_a_write() -> None:
    """It answers what came before, byte by byte, and reads nothing more."""

    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        take_chunk(peer)
        for byte in b"250 ok\r\n" + b"250-more\r\n" * 10_000:
            peer.say(bytes([byte]))
            gevent.sleep(0.01)

    with Host(script) as host, watched(session_with(host, block_s=0.4)) as session:
        assert session.open() is None
        session.client.begin(letter(), 0)
        transaction = session.client.begin(letter(50_000_000), 1)
        began = time.monotonic()
        lost = the_loss(session)
        assert time.monotonic() - began < 10
        assert not session.client.sent_whole(transaction)
    assert str(lost) == "RCPT: timed out: nothing was read within 0.4 s"


def test_a_host_that_hangs_up_within_a_write_is_heard() -> None:
    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        peer.hear(b" LAST\r\n")
        peer.say(b"250 ok\r\n550 5.1.1 nobody here\r\n552 5.3.4 too large\r\n")

    with Host(script) as host, watched(session_with(host)) as session:
        assert session.open() is None
        transaction = session.client.begin(letter(50_000_000), 0)
        the_loss(session)
        assert not session.client.sent_whole(transaction)
    assert [str(reply) for reply in transaction.rcpt] == ["550 5.1.1 nobody here"]
    assert str(transaction.final) == "552 5.3.4 too large"


def test_nothing_is_written_behind_what_broke_off() -> None:
    """A host that says no more and goes on reading would take it for the rest of the message."""
    heard = list[bytes]()

    def script(peer: Peer) -> None:
        peer.greet(ehlo=EHLO)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        replies, _ = take_chunk(peer)
        peer.hear(b" LAST\r\n")
        peer.say(b"250 ok\r\n" * replies)
        peer.sock.shutdown(socket.SHUT_WR)
        while block := peer.sock.recv(65536):
            heard.append(block[-200:])

    with Host(script) as host, watched(session_with(host)) as session:
        assert session.open() is None
        assert session._socket is not None
        session._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        first, broken = (session.client.begin(letter(size), None) for size in (100, 900_000))
        while first.final is None:
            session.turn()
        assert not session.client.sent_whole(broken)
        gevent.socket.wait_write(session._socket.fileno(), timeout=20)
        last = session.client.begin(letter(), None)
        the_loss(session)
        assert not session.client.sent_whole(last)
    wait_until(lambda: host.errors or heard)
    assert not any(b"MAIL" in block for block in heard)


# ---- idle connections


VERSIONS: list[Any] = [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def idle_host(newest: ssl.TLSVersion | None, end: Callable[[Peer], object]) -> Script:
    """Script a host up to the first MAIL, under TLS or not; then `end`."""

    def script(peer: Peer) -> None:
        if newest is not None:
            peer.start_tls(context(newest=newest))
        peer.greet()
        end(peer)

    return script


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait until `is_so()` is true."""
    with gevent.Timeout(20):
        while not is_so():
            gevent.sleep(0.002)


@pytest.mark.parametrize("last_words", [b"421 4.4.2 Timeout\r\n", b""])
@pytest.mark.parametrize("newest", VERSIONS)
def test_an_idle_connection_tells_when_it_is_over(
    newest: ssl.TLSVersion | None, last_words: bytes
) -> None:
    leave, told = gevent.event.Event(), list[int]()

    def end(peer: Peer) -> None:
        leave.wait(20)
        if last_words:
            peer.say(last_words)

    with Host(idle_host(newest, end)) as host:
        made = terms(f"{'smtps' if newest else 'smtp'}://localhost:{host.port}")
        made.trust._context = unverified()
        with watched(Session(made)) as session:
            assert session.open() is None
            session.watch_idle(lambda: told.append(1))
            gevent.sleep(0.05)
            assert told == []
            leave.set()
            wait_until(lambda: told)
            assert session.is_stale()
            gevent.sleep(0.05)
            assert told == [1]
            session.unwatch_idle()
            # Nothing is lost by the watch: whoever wants to can still hear it.
            session.client.awaited.append(Awaited.QUIT)
            (lost,) = [event for event in session.exchange() if isinstance(event, Lost)]
            assert last_words.decode().strip() in lost.text


@pytest.mark.parametrize("newest", VERSIONS)
def test_a_watch_that_is_ended_tells_nothing(newest: ssl.TLSVersion | None) -> None:
    told = list[int]()

    def end(peer: Peer) -> None:
        peer.take_envelope()
        peer.hear(b"\r\n.\r\n")
        peer.say(b"250 taken\r\n")
        peer.wait_for_end()

    with Host(idle_host(newest, end)) as host:
        made = terms(f"{'smtps' if newest else 'smtp'}://localhost:{host.port}")
        made.trust._context = unverified()
        with watched(Session(made)) as session:
            assert session.open() is None
            session.watch_idle(lambda: told.append(1))
            gevent.sleep(0.01)
            session.unwatch_idle()
            assert Sent(session, [letter()]).lost is None
    assert told == []


def test_a_connection_that_is_stale_already_tells_at_once() -> None:
    told = list[int]()
    leave = gevent.event.Event()
    with (
        Host(idle_host(None, lambda _: leave.wait(20))) as host,
        watched(Session(terms(f"smtp://127.0.0.1:{host.port}"))) as session,
    ):
        assert session.open() is None
        leave.set()
        wait_until(session.is_stale)
        session.watch_idle(lambda: told.append(0))
        session.unwatch_idle()
        session.watch_idle(lambda: told.append(1))
        wait_until(lambda: told)
        assert told == [1]


def test_session_tickets_are_no_news() -> None:
    """They lie unread on a connection whose host has said nothing yet."""
    speak, told = gevent.event.Event(), list[int]()

    def script(peer: Peer) -> None:
        peer.start_tls(context(newest=ssl.TLSVersion.TLSv1_3))
        speak.wait(20)
        peer.say(b"220 at last\r\n")
        peer.wait_for_end()

    with Host(script) as host, socket.create_connection(("127.0.0.1", host.port), 20) as plain:
        plain.settimeout(None)
        with unverified().wrap_socket(plain, server_hostname="localhost") as under_tls:
            wire = TlsWire(under_tls)
            wire.watch(lambda: told.append(1))
            wait_until(lambda: under_tls.session is not None)
            gevent.sleep(0.1)
            assert told == []
            assert not wire.is_readable()
            speak.set()
            wait_until(lambda: told)
            assert wire.read() == b"220 at last\r\n"
            wire.close()
