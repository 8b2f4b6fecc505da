"""Whom a session believes, as whom it comes, and what it takes up again."""

import socket
import ssl
from pathlib import Path

import pytest
from certificates import AUTHORITY, LOGINS, STRANGER, context, is_delivered, url
from gevent.ssl import SSLContext
from scripted import HELLO, Host, Peer, Sent, refused, send, terms, watched

from geomail.delivery.outcome import Fate
from geomail.delivery.session.transport import Session, Terms
from geomail.sink import Sink
from geomail.smtp.events import Cause

pytest_plugins = ("trust_fixtures",)


# ---- whom we believe, and as whom we come


def test_what_is_written_down_is_not_verified() -> None:
    """`verify = false`: TLS still, and with anybody."""
    with Sink(tls=context(STRANGER, "mx.example"), logins=LOGINS) as sink:
        made = terms(url(sink, "smtp+starttls", "ann:secret@"), relay={"verify": False})
        session = is_delivered(sink, made)
    assert not made.is_verified
    assert session.client.under_tls
    assert not made.may_fall_back


def demanding(tmp_path: Path, *, asks: bool = True) -> tuple[SSLContext, dict[str, str]]:
    """Return a server's context that demands a certificate, and the files with one."""
    tls = context()
    tls.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    AUTHORITY.configure_trust(tls)
    ours = AUTHORITY.issue_cert("client.example")
    cert_file, key_file = tmp_path / "client.pem", tmp_path / "client.key"
    cert_file.write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
    ours.private_key_pem.write_to_path(key_file)
    return tls, {"cert_file": str(cert_file), "key_file": str(key_file)}


def test_a_certificate_is_shown_to_who_asks(ca_file: str, tmp_path: Path) -> None:
    tls, files = demanding(tmp_path)
    seen = list[object]()

    def script(peer: Peer) -> None:
        peer.start_tls(tls)
        assert isinstance(peer.sock, ssl.SSLSocket)
        seen.append(dict(peer.sock.getpeercert() or {})["subjectAltName"])
        peer.greet()
        peer.wait_for_end()

    with Host(script) as host:
        made = terms(url(host, "smtps"), ca_file=ca_file, relay=files)
        with watched(Session(made)) as session:
            assert session.open() is None
    assert seen == [(("DNS", "client.example"),)]


def test_a_certificate_and_its_key_may_be_one_file(ca_file: str, tmp_path: Path) -> None:
    tls, files = demanding(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(Path(files["cert_file"]).read_bytes() + Path(files["key_file"]).read_bytes())
    with Sink(tls=tls, implicit_tls=True) as sink:
        is_delivered(
            sink, terms(url(sink, "smtps"), ca_file=ca_file, relay={"cert_file": str(both)})
        )


def test_who_shows_no_certificate_is_refused(ca_file: str, tmp_path: Path) -> None:
    tls, _ = demanding(tmp_path)
    with Sink(tls=tls, implicit_tls=True) as sink:
        lost = refused(terms(url(sink, "smtps"), ca_file=ca_file))
        assert sink.count == 0
    # Under TLS 1.3 the refusal comes after our part of the handshake.
    assert lost.cause in (Cause.TLS, Cause.CLOSED)


def test_a_certificate_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    path.write_text("no certificate\n")
    with Sink(tls=context(), implicit_tls=True) as sink:
        lost = refused(terms(url(sink, "smtps"), relay={"cert_file": str(path), "verify": False}))
    assert lost.cause is Cause.TLS
    assert f"cert_file {path} can't be used: " in lost.text


def test_a_renewed_certificate_is_read_by_new_terms(ca_file: str, tmp_path: Path) -> None:
    """As a reload makes them; until then the old one stays."""
    tls, files = demanding(tmp_path)
    with Sink(tls=tls, implicit_tls=True) as sink:
        made = terms(url(sink, "smtps"), ca_file=ca_file, relay=files)
        send(made)
        renewed = STRANGER.issue_cert("client.example")
        renewed.private_key_and_cert_chain_pem.write_to_path(files["cert_file"])
        send(made)
        new = terms(url(sink, "smtps"), ca_file=ca_file, relay={"cert_file": files["cert_file"]})
        assert refused(new).cause in (Cause.TLS, Cause.CLOSED)
        assert sink.count == 2


# ---- sessions that are taken up again


def test_a_session_is_for_its_own_terms_alone(ca_file: str) -> None:
    """Neither for other authorities, nor for another name, nor for who trusts all."""
    offered = list[bool]()

    def opened(made: Terms) -> bool:
        with watched(Session(made)) as session:
            assert session.open() is None
            is_resumed = session.is_resumed()
            session.close()
        return is_resumed

    with Sink(tls=context(AUTHORITY, "localhost", "127.0.0.1")) as sink:
        address = url(sink, "smtp+starttls")
        kept = terms(address, ca_file=ca_file)
        other_name = terms(address.replace("localhost", "127.0.0.1"), ca_file=ca_file)
        trusting = terms(address, relay={"verify": False})
        offered += [opened(made) for made in (kept, other_name, trusting, kept)]
        offered += [opened(made) for made in (terms(address, ca_file=ca_file), trusting)]
    assert offered == [False, False, False, True, False, True]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_can_be_taken_up_while_its_connection_is_open(
    ca_file: str, newest: ssl.TLSVersion
) -> None:
    """So that connections made at the same time profit from the first."""
    with Sink(tls=context(newest=newest)) as sink:
        made = terms(url(sink, "smtp+starttls"), ca_file=ca_file)
        with watched(Session(made)) as first, watched(Session(made)) as second:
            assert first.open() is None
            assert second.open() is None
            assert [first.is_resumed(), second.is_resumed()] == [False, True]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
def test_tls_sessions_are_resumed(ca_file: str, scheme: str, newest: ssl.TLSVersion) -> None:
    with Sink(tls=context(newest=newest), implicit_tls=scheme == "smtps") as sink:
        made = terms(url(sink, scheme), ca_file=ca_file)
        found = []
        for _ in range(3):
            with watched(Session(made)) as session:
                assert session.open() is None
                assert Sent(session, [HELLO]).one().fate is Fate.DELIVERED
                found.append(session.is_resumed())
                session.close()
    assert found == [False, True, True]


def test_a_session_that_the_host_has_forgotten_is_begun_anew(ca_file: str) -> None:
    with Sink(tls=context()) as sink:
        made = terms(url(sink, "smtp+starttls"), ca_file=ca_file)
        send(made)
        assert made.trust.session is not None
        sink.tls = context()
        assert send(made).one().fate is Fate.DELIVERED
        assert sink.count == 2


# ---- tokens


def token_terms(path: Path, port: int) -> Terms:
    """Return terms with a login by the token that lies at `path`."""
    return terms(f"smtps://ann@localhost:{port}", relay={"token_file": str(path)})


def test_a_token_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  first\n")
    made = token_terms(path, 1)

    def token() -> str | None:
        login = Session(made).client.policy.login
        assert login is not None
        return login.token

    assert [token(), token()] == ["first", "first"]
    path.write_text("another-one\n")
    assert token() == "another-one"
    other = tmp_path / "other"
    other.write_text("renamed-one\n")  # as long as the last one
    other.rename(path)
    assert token() == "renamed-one"
    assert "renamed-one" not in repr(Session(made).client.policy)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two words", b"two\nlines", b"\xff\x01"])
def test_a_token_that_can_not_be_read_is_named_and_not_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    path.write_text("good")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        made = token_terms(path, listener.getsockname()[1])
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        lost = refused(made)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # there is no point in connecting
            listener.accept()
    assert lost.cause is Cause.LOGIN
    assert "token_file" in lost.text
    assert str(path) in lost.text
    assert "two" not in lost.text.replace(str(path), "")
    assert "good" not in lost.text


def test_each_connection_has_a_nonce_of_its_own() -> None:
    made = terms("smtps://ann:secret@localhost:1")
    nonces = {Session(made).client.policy.nonce for _ in range(10)}
    assert len(nonces) == 10
    assert min(map(len, nonces)) >= 32


def test_smtps_to_a_host_that_speaks_no_tls_hints_at_starttls() -> None:
    with Sink() as sink:
        lost = refused(terms(url(sink, "smtps")))
    assert lost.text.endswith(
        "what the host says is no TLS; it begins in clear: try smtp+starttls://"
    )
