"""Deadlines: each wait has its own, and nothing that drips moves it."""

import time
from contextlib import suppress
from itertools import repeat

import gevent
import gevent.event
import pytest
from scripted import HELLO, Host, Peer, Sent, refused, said, send, silent, terms, text, watched

from geomail.delivery.outcome import Blame, Fate
from geomail.delivery.session.transport import Session
from geomail.sink import Sink
from geomail.smtp.events import Awaited, Cause

SOON = 0.05


def url(port: int) -> str:
    """Return the URL of a host on this machine."""
    return f"smtp://127.0.0.1:{port}"


def test_a_host_that_does_not_greet() -> None:
    with Host(silent) as host:
        lost = refused(terms(url(host.port), greeting_s=SOON))
    assert str(lost) == "greeting: timed out: no answer within 0.05 s"


def drip(peer: Peer, reply: bytes) -> None:
    """Say `reply` for ever, a byte at a time, so that no read waits long."""
    with suppress(OSError):
        for line in repeat(reply):
            for byte in line:
                peer.say(bytes([byte]))
                gevent.sleep(0.004)


@pytest.mark.parametrize("reply", [b"220-still here\r\n", b"2" * 4000])
def test_drops_do_not_move_the_deadline_of_a_greeting(reply: bytes) -> None:
    with Host(lambda peer: drip(peer, reply)) as host:
        began = time.monotonic()
        lost = refused(terms(url(host.port), greeting_s=0.1))
    assert (lost.cause, lost.phase) == (Cause.TIMEOUT, Awaited.GREETING)
    assert time.monotonic() - began < 2


def test_drops_do_not_move_the_deadline_of_the_final_reply() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope()
        peer.hear(b"\r\n.\r\n")
        drip(peer, b"250-still here\r\n")

    with Host(script) as host:
        sent = send(terms(url(host.port), final_s=0.1))
    assert said(sent.one()) == (Fate.UNKNOWN, Blame.BOTH, "end of data")


SETTINGS = {
    Awaited.GREETING: "greeting_s",
    Awaited.EHLO: "command_s",
    Awaited.MAIL: "mail_s",
    Awaited.RCPT: "rcpt_s",
    Awaited.DATA: "data_s",
    Awaited.CONTENT: "final_s",
}


@pytest.mark.parametrize("silent_at", list(SETTINGS))
def test_each_command_has_a_deadline_of_its_own(silent_at: Awaited) -> None:
    """The host answers one by one, each later than the last deadline would allow, then no more."""
    answered = {
        Awaited.GREETING: b"220 mx.example\r\n",
        Awaited.EHLO: b"250 mx.example\r\n",
        Awaited.MAIL: b"250 ok\r\n",
        Awaited.RCPT: b"250 ok\r\n",
        Awaited.DATA: b"354 go\r\n",
    }

    def script(peer: Peer) -> None:
        for awaited, reply in answered.items():
            if awaited is silent_at:
                break
            peer.say(reply)
            peer.hear(b"\r\n")
        peer.wait_for_end()

    limits = dict.fromkeys(SETTINGS.values(), 60.0) | {SETTINGS[silent_at]: SOON}
    with Host(script) as host, watched(Session(terms(url(host.port), limits=limits))) as session:
        lost = session.open()
        lost = lost or Sent(session, [HELLO]).lost
    assert lost is not None
    assert (lost.cause, lost.phase) == (Cause.TIMEOUT, silent_at)
    assert lost.text == "no answer within 0.05 s"


def test_a_reply_in_time_moves_the_deadline() -> None:
    """Three replies, each within its time, all together beyond any one's."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.hear(b"DATA\r\n")
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 taken\r\n"):
            gevent.sleep(0.15)
            peer.say(reply)
        peer.wait_for_end()

    with Host(script) as host:
        sent = send(
            terms(url(host.port), mail_s=0.3, rcpt_s=0.3, data_s=0.3, final_s=0.3, quit_s=SOON)
        )
    assert sent.one().fate is Fate.DELIVERED


def test_a_final_reply_that_never_comes_is_unknown() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope()
        peer.wait_for_end()

    with Host(script) as host:
        sent = send(terms(url(host.port), final_s=SOON))
    assert sent.lost is not None
    assert str(sent.lost) == "end of data: timed out: no answer within 0.05 s"
    assert sent.one().maybe_duplicate
    assert said(sent.one()) == (Fate.UNKNOWN, Blame.BOTH, "end of data")


def test_a_host_that_stops_reading_is_not_waited_for() -> None:
    stopped = gevent.event.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope()
        stopped.wait(20)

    with Host(script) as host:
        # More than the kernel keeps for both ends: 4 MB to be sent, 32 MB received.
        sent = send(terms(url(host.port), block_s=SOON), text(600_000))
        stopped.set()
    assert str(sent.lost) == "end of data: timed out: nothing was read within 0.05 s"
    assert said(sent.one()) == (Fate.LATER, Blame.BOTH, "end of data")


def test_quit_is_not_waited_for_long() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.wait_for_end()

    with Host(script) as host, watched(Session(terms(url(host.port), quit_s=SOON))) as session:
        assert session.open() is None
        began = time.monotonic()
        session.close()
    assert time.monotonic() - began < 2


def test_no_deadline_is_left_on_an_idle_connection() -> None:
    with Sink() as sink, watched(Session(terms(url(sink.address[1])))) as session:
        assert session.open() is None
        assert session.deadline == float("inf")
        Sent(session, [HELLO])
        assert session.deadline == float("inf")
