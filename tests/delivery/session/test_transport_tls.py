"""TLS as each kind of relay URL asks for it, with real certificates and hosts that break it."""

import hashlib
import socket
import ssl
from pathlib import Path

import gevent
import pytest
from certificates import (
    AUTHORITY,
    LOGINS,
    STRANGER,
    context,
    is_delivered,
    unverified,
    url,
)
from gevent.ssl import SSLContext
from scripted import ENVELOPE, HELLO, Host, Peer, Sent, refused, send, terms, watched

from geomail.delivery.outcome import Fate
from geomail.delivery.session.transport import Session
from geomail.letter import Letter
from geomail.sink import Sink
from geomail.smtp.data import stuff
from geomail.smtp.events import Awaited, Cause

pytest_plugins = ("trust_fixtures",)

UNVERIFIED = "the certificate can't be verified: unable to get local issuer certificate"
OFFER = b"250-mx.example\r\n250 STARTTLS\r\n"


# ---- which URL demands what


def test_starttls_with_a_known_authority(ca_file: str) -> None:
    with Sink(tls=context()) as sink:
        session = is_delivered(sink, terms(url(sink, "smtp+starttls"), ca_file=ca_file))
    assert session.client.under_tls


def test_smtps_with_a_known_authority(ca_file: str) -> None:
    with Sink(tls=context(), implicit_tls=True) as sink:
        session = is_delivered(sink, terms(url(sink, "smtps"), ca_file=ca_file))
    assert session.client.under_tls


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls"])
def test_a_login_goes_over_tls(ca_file: str, scheme: str) -> None:
    with Sink(tls=context(), logins=LOGINS) as sink:
        made = terms(url(sink, scheme, "ann:secret@"), ca_file=ca_file)
        session = is_delivered(sink, made)
    assert session.client.is_logged_in


def test_a_login_over_smtps(ca_file: str) -> None:
    with Sink(tls=context(), implicit_tls=True, logins=LOGINS) as sink:
        made = terms(url(sink, "smtps", "ann:secret@"), ca_file=ca_file)
        session = is_delivered(sink, made)
    assert session.client.is_logged_in


@pytest.mark.parametrize(
    ("scheme", "login"), [("smtp", "ann:secret@"), ("smtp+starttls", ""), ("smtps", "ann:secret@")]
)
@pytest.mark.parametrize("names", [(), ("mx.example",)])
def test_who_can_not_be_verified_is_told_nothing(
    ca_file: str, scheme: str, login: str, names: tuple[str, ...]
) -> None:
    """An authority that nobody knows, or a name that is not the host's."""
    tls = context(AUTHORITY if names else STRANGER, *names)
    with Sink(tls=tls, implicit_tls=scheme == "smtps", logins=LOGINS) as sink:
        lost = refused(terms(url(sink, scheme, login), ca_file=ca_file))
    assert lost.cause is Cause.TLS
    assert "the certificate can't be verified" in lost.text
    assert names or lost.text.endswith(UNVERIFIED)
    assert "secret" not in str(lost)


def test_plain_smtp_is_encrypted_and_not_verified() -> None:
    with Sink(tls=context(STRANGER, "mx.example")) as sink:
        session = is_delivered(sink, terms(url(sink)))
    assert session.client.under_tls


def test_plain_smtp_without_starttls_goes_in_clear() -> None:
    with Sink() as sink:
        assert not is_delivered(sink, terms(url(sink))).client.under_tls


def test_tls_required_is_not_gone_without() -> None:
    with Sink() as sink:
        lost = refused(terms(url(sink), tls="required"))
        assert sink.count == 0
    assert str(lost) == "EHLO: TLS failure: TLS is required, and STARTTLS is not offered"


def test_in_clear_is_a_new_connection_after_a_failed_handshake() -> None:
    """Only where the URL allows it; a conversation never goes on in clear."""

    def script(peer: Peer) -> None:
        peer.greet(ehlo=OFFER)
        if peer.hear(b"\r\n") == b"STARTTLS":
            peer.say(b"220 go ahead\r\nnot any TLS\r\n"[:14])
            peer.sock.recv(1)
            peer.say(b"this is not TLS\r\n" * 10)
            peer.wait_for_end()

    with Host(script) as host:
        made = terms(url(host))
        lost = refused(made)
        assert (lost.cause, lost.phase) == (Cause.TLS, Awaited.STARTTLS)
        assert made.may_fall_back
        with watched(Session(made, in_clear=True)) as session:
            assert session.open() is None
            assert not session.client.under_tls
        assert not terms(url(host), tls="required").may_fall_back
        assert not terms(url(host, "smtp", "ann:secret@")).may_fall_back


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused() -> None:
    tls = context(newest=ssl.TLSVersion.TLSv1_1)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with Sink(tls=tls) as sink:
        lost = refused(terms(url(sink)))
    assert lost.cause is Cause.TLS
    assert "version" in lost.text.lower()


def test_smtps_to_a_host_that_speaks_no_tls() -> None:
    with Sink() as sink:
        lost = refused(terms(url(sink, "smtps")))
    assert lost.cause is Cause.TLS


@pytest.mark.parametrize("content", [None, b"no certificate\n"])
def test_a_ca_file_that_can_not_be_used_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    if content is not None:
        path.write_bytes(content)
    with Sink(tls=context()) as sink:
        lost = refused(terms(url(sink, "smtp+starttls"), ca_file=str(path)))
    assert lost.cause is Cause.TLS
    assert lost.text.startswith(f"ca_file {path} can't be used: ")


def test_the_dot_of_the_root_is_no_part_of_the_name() -> None:
    """No certificate has it."""
    assert terms("smtps://mx.example.").server_name == "mx.example"


# ---- hosts that break it


@pytest.mark.parametrize("injected", [b"250 ok\r\n", b"2", b"\r\n", b"250-mx\r\n"])
def test_bytes_behind_the_220_end_the_connection(injected: bytes) -> None:
    heard = list[bytes]()

    def script(peer: Peer) -> None:
        peer.greet(ehlo=OFFER)
        peer.hear(b"STARTTLS\r\n")
        peer.say(b"220 go ahead\r\n" + injected)
        heard.append(peer.sock.recv(100))

    with Host(script) as host:
        lost = refused(terms(url(host), tls="required"))
    assert str(lost) == "STARTTLS: TLS failure: bytes behind the reply to STARTTLS"
    assert heard in ([], [b""])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_handshake_that_nobody_answers_ends(scheme: str) -> None:
    def script(peer: Peer) -> None:
        if scheme == "smtp":
            peer.greet(ehlo=OFFER)
            peer.hear(b"STARTTLS\r\n")
            peer.say(b"220 go ahead\r\n")
        peer.wait_for_end()

    with Host(script) as host:
        lost = refused(terms(url(host, scheme), connect_s=0.2))
    assert lost.cause is Cause.TLS
    assert lost.text.endswith("no TLS handshake within 0.2 s")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_handshake_that_is_reset_is_a_tls_failure(scheme: str) -> None:
    def script(peer: Peer) -> None:
        if scheme == "smtp":
            peer.greet(ehlo=OFFER)
            peer.hear(b"STARTTLS\r\n")
            peer.say(b"220 go ahead\r\n")
        peer.sock.recv(1)
        peer.reset()

    with Host(script) as host:
        lost = refused(terms(url(host, scheme)))
    assert lost.cause is Cause.TLS


def test_a_host_that_does_not_greet_under_tls() -> None:
    tls = context()

    def script(peer: Peer) -> None:
        peer.start_tls(tls)
        peer.wait_for_end()

    with Host(script) as host:
        made = terms(url(host, "smtps"), greeting_s=0.05)
        made.trust._context = unverified()
        lost = refused(made)
    assert str(lost) == "greeting: timed out: no answer within 0.05 s"


def under_tls(peer: Peer, tls: SSLContext, *, ehlo: bytes) -> None:
    """Speak up to the second EHLO."""
    peer.greet(ehlo=OFFER)
    peer.hear(b"STARTTLS\r\n")
    peer.say(b"220 go ahead\r\n")
    peer.start_tls(tls)
    peer.hear(b"\r\n")
    peer.say(ehlo)


EHLO = b"250-mx.example\r\n250 PIPELINING\r\n"


def test_a_final_reply_that_never_comes_under_tls() -> None:
    tls = context()

    def script(peer: Peer) -> None:
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope()
        peer.wait_for_end()

    with Host(script) as host:
        sent = send(terms(url(host), final_s=0.05))
    assert sent.one().maybe_duplicate
    assert str(sent.lost) == "end of data: timed out: no answer within 0.05 s"


def test_a_reset_under_tls_before_the_content_was_read() -> None:
    tls = context()

    def script(peer: Peer) -> None:
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope(ENVELOPE[:-1])
        peer.reset()

    with Host(script) as host:
        sent = send(terms(url(host)))
    assert sent.one().fate is Fate.LATER


def test_a_5yz_explains_the_hang_up_under_tls() -> None:
    tls = context()

    def script(peer: Peer) -> None:
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope()
        peer.sock.recv(1)
        peer.say(b"552 5.3.4 too large\r\n")
        peer.reset()

    content = (b"x" * 70 + b"\r\n") * 100_000
    with Host(script) as host:
        sent = send(terms(url(host)), Letter("", ("b@b.example",), content, False, False))
    assert sent.one().fate is Fate.NEVER
    assert sent.one().text == "552 5.3.4 too large"


def test_a_host_that_stops_reading_under_tls() -> None:
    tls, stopped = context(), gevent.event.Event()

    def script(peer: Peer) -> None:
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope()
        stopped.wait(20)

    content = (b"x" * 70 + b"\r\n") * 600_000
    with Host(script) as host:
        made = terms(url(host), block_s=0.05)
        sent = send(made, Letter("", ("b@b.example",), content, False, False))
        stopped.set()
    assert str(sent.lost) == "end of data: timed out: nothing was read within 0.05 s"
    assert sent.one().fate is Fate.LATER
    # What did leave was told, a block at a time: each had a deadline of its own.
    assert 16384 < sent.session.client._written < len(content)


# ---- what TLS brings with it


def test_a_large_mail_goes_to_a_slow_reader_under_tls() -> None:
    tls, taken = context(), list[str]()
    content = (b"." * 70 + b"\r\n") * 70_000

    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope()
        blocks = bytearray(peer.heard)
        while not blocks.endswith(b"\r\n.\r\n"):
            blocks += peer.sock.recv(16384)
            gevent.sleep(0)
        taken.append(hashlib.sha256(blocks).hexdigest())
        peer.say(b"250 taken\r\n")

    with Host(script) as host:
        sent = send(terms(url(host)), Letter("", ("b@b.example",), content, False, False))
    assert sent.one().fate is Fate.DELIVERED
    assert taken == [hashlib.sha256(stuff(content)).hexdigest()]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_tickets_do_not_make_a_connection_stale(newest: ssl.TLSVersion) -> None:
    """Under smtps the tickets come with the greeting; behind STARTTLS nothing has read them yet."""
    tls, leave = context(newest=newest), gevent.event.Event()

    def script(peer: Peer) -> None:
        under_tls(peer, tls, ehlo=EHLO)
        peer.take_envelope()
        peer.hear(b"\r\n.\r\n")
        peer.say(b"250 taken\r\n")
        leave.wait(20)

    with Host(script) as host, watched(Session(terms(url(host)))) as session:
        assert session.open() is None
        assert not session.is_stale()
        assert Sent(session, [HELLO]).one().fate is Fate.DELIVERED
        assert not session.is_stale()
        leave.set()
        with gevent.Timeout(5):
            while not session.is_stale():
                gevent.sleep(0.002)


def test_nothing_is_lost_by_looking_whether_a_connection_is_stale() -> None:
    with Sink(tls=context()) as sink, watched(Session(terms(url(sink)))) as session:
        assert session.open() is None
        for _ in range(3):
            assert not session.is_stale()
            assert Sent(session, [HELLO, HELLO]).one(1).fate is Fate.DELIVERED
        assert sink.count == 6
