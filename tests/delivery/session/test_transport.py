"""Sessions over real sockets, against hosts that do what hosts do, and worse."""

import hashlib
import socket
import time
from collections.abc import Callable

import gevent
import pytest
from scripted import (
    EHLO,
    Host,
    Peer,
    Script,
    Sent,
    refused,
    said,
    send,
    silent,
    terms,
    text,
    watched,
)

from geomail import config
from geomail.delivery.outcome import Blame, Fate
from geomail.delivery.session.announce import announce
from geomail.delivery.session.transport import Session
from geomail.letter import Letter
from geomail.sink import Sink
from geomail.smtp import answers
from geomail.smtp import policy as served
from geomail.smtp.data import stuff
from geomail.smtp.events import Cause
from geomail.smtp.server import Mail, Server

SOON = 0.05


def url(port: int) -> str:
    """Return the URL of a host on this machine."""
    return f"smtp://127.0.0.1:{port}"


# ---- no connection


def test_a_refused_connection_says_where() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        lost = refused(terms(url(port)))
    assert str(lost) == f"connect: can't connect: 127.0.0.1:{port}: Connection refused"


def test_a_name_that_is_none_says_so() -> None:
    lost = refused(terms("smtp://nosuch.invalid"))
    assert lost.cause is Cause.CONNECT
    assert lost.text.startswith("nosuch.invalid:25: ")


def test_a_connect_that_nobody_answers_ends() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # what the backlog holds; the next SYN is not answered
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        lost = refused(terms(url(port), connect_s=SOON))
        for each in waiting:
            each.close()
    assert (lost.cause, lost.text) == (Cause.CONNECT, f"127.0.0.1:{port}: no answer within 0.05 s")


# ---- hosts that hang up


@pytest.mark.parametrize("pause_s", [0.0, 0.01])
def test_a_5yz_behind_354_explains_the_hang_up(pause_s: float) -> None:
    """Behind the 354, or while the content is written: it is read in either case."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope()
        gevent.sleep(pause_s)
        peer.say(b"552 5.3.4 too large\r\n")

    with Host(script) as host:
        sent = send(terms(url(host.port)), text(100_000))
    assert "552 5.3.4 too large" in sent.one().text
    assert sent.one().fate in (Fate.NEVER, Fate.LATER)
    assert pause_s == 0 or said(sent.one()) == (Fate.NEVER, Blame.MESSAGE, "end of data")


def test_a_5yz_to_mail_explains_the_hang_up() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope(b"550 5.7.1 not you\r\n")
        peer.reset()

    with Host(script) as host:
        sent = send(terms(url(host.port)))
    assert said(sent.one()) == (Fate.NEVER, Blame.MESSAGE, "MAIL")
    assert sent.one().text == "550 5.7.1 not you"


def test_a_5yz_greeting_explains_the_hang_up() -> None:
    def script(peer: Peer) -> None:
        peer.say(b"554 5.7.1 You are on a list\r\n")
        peer.reset()

    with Host(script) as host:
        lost = refused(terms(url(host.port)))
    assert str(lost) == "greeting: refused: 554 5.7.1 You are on a list"


def test_a_reply_too_many_before_ready_is_noticed() -> None:
    """Else the first message would meet a conversation that is over."""
    with Host(lambda peer: peer.greet(ehlo=EHLO + b"250 once more\r\n")) as host:
        lost = refused(terms(url(host.port)))
    assert lost.cause is Cause.OUT_OF_STEP


def test_a_final_reply_counts_though_nonsense_follows() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take_envelope()
        peer.hear(b"\r\n.\r\n")
        peer.say(b"250 taken\r\nHello, this is no reply.\r\n")

    with Host(script) as host:
        sent = send(terms(url(host.port)))
    assert sent.one().fate is Fate.DELIVERED


TWO = [
    Letter("a@a.example", (f"{n}@b.example",), f"Subject: {n}\r\n\r\n.\r\n".encode(), False, False)
    for n in range(2)
]


class Mortal:
    """A host that reads so many bytes and resets the connection, with or without answering them."""

    def __init__(self, size: int, *, pipelining: bool, answers_last: bool) -> None:
        self.taken: list[bytes] = []
        self.answered = 0
        self.data_seen = 0
        self._left = size
        self._answers_last = answers_last
        self._server = Server(served.Policy(pipelining=pipelining, smtputf8=False))

    def play(self, peer: Peer) -> None:
        """Serve until the last byte is read."""
        peer.say(self._server.output())
        while self._left and (block := peer.sock.recv(self._left)):
            self._left -= len(block)
            self._take(block)
            if self._left or self._answers_last:
                out = self._server.output()
                self.data_seen += out.count(b"354")
                self.answered = len(self.taken)
                peer.say(out)
        peer.reset()

    def _take(self, block: bytes) -> None:
        events = self._server.receive(block)
        while events:
            mail = events[-1]
            assert isinstance(mail, Mail)
            self.taken.append(mail.content)
            events = self._server.answer(answers.OK)


def size_of_session(*, pipelining: bool) -> int:
    """Count what a session with two messages writes, QUIT included."""
    with Host(Mortal(1_000_000, pipelining=pipelining, answers_last=True).play) as host:
        sent = send(terms(url(host.port)), *TWO)
    assert [sent.one(n).fate for n in range(2)] == [Fate.DELIVERED] * 2
    return sent.session.client._written


@pytest.mark.parametrize("answers_last", [True, False])
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_reset_at_every_byte(pipelining: bool, answers_last: bool) -> None:
    for size in range(size_of_session(pipelining=pipelining) + 1):
        mortal = Mortal(size, pipelining=pipelining, answers_last=answers_last)
        with Host(mortal.play) as host, watched(Session(terms(url(host.port)))) as session:
            if session.open() is not None:
                assert mortal.data_seen == 0
                continue
            sent = Sent(session, TWO)
            session.close()
        for number, letter in enumerate(TWO):
            check(mortal, number, letter, sent)


def check(mortal: Mortal, number: int, letter: Letter, sent: Sent) -> None:
    """Hold a letter's outcome against what the host knows."""
    if number not in sent.outcomes:  # not even begun
        assert letter.content not in mortal.taken
        return
    outcome = sent.one(number)
    if outcome.fate is Fate.DELIVERED:
        assert number < mortal.answered
    if letter.content in mortal.taken:
        assert outcome.fate in (Fate.DELIVERED, Fate.UNKNOWN)
    if outcome.fate is Fate.UNKNOWN:
        assert number < mortal.data_seen
    assert outcome.fate is not Fate.NEVER


# ---- idle connections


def test_an_idle_connection_that_was_closed_is_stale() -> None:
    leave = gevent.event.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        leave.wait(20)

    with Host(script) as host, watched(Session(terms(url(host.port)))) as session:
        assert session.open() is None
        assert not session.is_stale()
        leave.set()
        wait_until(session.is_stale)


def test_an_idle_connection_that_was_told_421_is_stale() -> None:
    leave = gevent.event.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        leave.wait(20)
        peer.say(b"421 4.4.2 Timeout\r\n")
        peer.wait_for_end()

    with Host(script) as host, watched(Session(terms(url(host.port)))) as session:
        assert session.open() is None
        leave.set()
        wait_until(session.is_stale)


def wait_until(is_so: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait until `is_so()` is true."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        gevent.sleep(0.002)


# ---- large mails


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_large_mail_goes_to_a_slow_reader(size: int) -> None:
    letter = text(size)
    taken = list[str]()

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.greet()
        peer.take_envelope()
        taken.append(hashlib.sha256(slowly(peer, b"\r\n.\r\n")).hexdigest())
        peer.say(b"250 taken\r\n")
        peer.hear(b"QUIT\r\n")
        peer.say(b"221 bye\r\n")

    with Host(script) as host:
        sent = send(terms(url(host.port)), letter)
    assert sent.one().fate is Fate.DELIVERED
    assert taken == [hashlib.sha256(stuff(letter.content)).hexdigest()]


def slowly(peer: Peer, end: bytes) -> bytes:
    """Read up to and with `end` in small blocks, with a pause after each."""
    blocks = bytearray(peer.heard)
    while not blocks.endswith(end):
        block = peer.sock.recv(32768)
        if not block:
            raise EOFError(f"the end after {len(blocks)} bytes")
        blocks += block
        gevent.sleep(0)
    return bytes(blocks)


# ---- port 465


def test_smtp_on_port_465_hints_at_smtps(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 465))
        except OSError:
            pytest.skip("port 465 can't be had here")
    monkeypatch.setattr("geomail.delivery.session.terms._HINT_S", SOON)
    with Host(silent, port=465):
        lost = refused(terms("smtp://127.0.0.1:465"))
    assert lost.text == (
        "no answer within 0.05 s; port 465 speaks TLS from the first byte: try smtps://"
    )


# ---- announce


def announced(address: str, **environ: object) -> list[str]:
    """Look at a host as `geomail check` does."""
    made = terms(address)
    variables = {f"GEOMAIL_{name.upper()}": str(value) for name, value in environ.items()}
    return announce(made.member, made.relay, config.load({}, variables, places=()))


def test_announce_says_what_a_host_can() -> None:
    with Sink() as sink:
        lines = announced(url(sink.address[1]))
        assert sink.count == 0
    assert lines[0].startswith("greeting: 220 ")
    assert lines[1:3] == ["TLS: no", "login: none"]
    assert "PIPELINING" in lines[3]


@pytest.mark.parametrize("script", [silent, lambda peer: peer.say(b"554 no\r\n")])
def test_announce_says_why_not(script: Script) -> None:
    with Host(script) as host, pytest.raises(ConnectionError, match=r"^greeting: "):
        announced(url(host.port), greeting_s=SOON)
