"""What `geomail check` says of a host: TLS, the login's mechanism, and chunking, tried out."""

import base64
import ssl
from pathlib import Path

import pytest
import trustme
from gevent.ssl import SSLContext
from scripted import Host, Peer, Script, terms

from geomail import config
from geomail.delivery.session.announce import announce

PROOF = b"BDAT 7 LAST\r\nXYZZY\r\nRSET\r\n"
CHUNKING = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"


def announced(address: str, **relay: object) -> dict[str, str]:
    """Look at a host as `geomail check` does; return its lines by their first words."""
    made = terms(address, relay=relay)
    lines = announce(made.member, made.relay, config.load({}, {}, places=()))
    return dict(line.split(": ", 1) for line in lines)


def chunks(*, ehlo: bytes = CHUNKING, answers: bytes = b"") -> Script:
    """Return a host that answers the proof with `answers`."""

    def script(peer: Peer) -> None:
        peer.greet(ehlo=ehlo)
        if answers:
            peer.hear(PROOF)
            peer.say(answers)
        peer.hear(b"QUIT\r\n")
        peer.say(b"221 bye\r\n")

    return script


@pytest.mark.parametrize(
    ("script", "relay", "said"),
    [
        (chunks(ehlo=b"250 mx.example\r\n"), {}, "not announced"),
        (chunks(), {}, 'announced, and not used: chunking = "on" in [relay.default] would'),
        (
            chunks(ehlo=b"250-mx.example\r\n250 CHUNKING\r\n"),
            {"chunking": "on"},
            "announced, and not used without PIPELINING",
        ),
        (
            chunks(answers=b"503 no transaction\r\n250 ok\r\n"),
            {"chunking": "on", "in_flight": 4},
            "used, 4 mails in flight",
        ),
        (
            chunks(answers=b"503 no transaction\r\n500 XYZZY?\r\n250 ok\r\n"),
            {"chunking": "on"},
            "announced, and not used: the host runs what it should swallow",
        ),
    ],
)
def test_whether_mails_would_go_in_chunks(
    script: Script, relay: dict[str, object], said: str
) -> None:
    with Host(script) as host:
        assert announced(f"smtp://127.0.0.1:{host.port}", **relay)["chunking"] == said
    assert host.errors == []


@pytest.mark.parametrize(
    ("is_named", "said"),
    [(True, "TLSv1.3, verified"), (False, "TLSv1.3, not verified")],
)
def test_tls_and_the_mechanism_of_the_login(tmp_path: Path, is_named: bool, said: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def script(peer: Peer) -> None:
        peer.start_tls(context)
        peer.greet(ehlo=b"250-mx.example\r\n250 AUTH LOGIN CRAM-MD5\r\n")
        for answer in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"):
            peer.hear(b"\r\n")
            peer.say(answer)
        peer.hear(b"QUIT\r\n")
        peer.say(b"221 bye\r\n")

    named: dict[str, object] = {"ca_file": str(tmp_path / "ca.pem")}
    trust = named if is_named else {"verify": False}
    with Host(script) as host:
        lines = announced(f"smtps://ann:secret@localhost:{host.port}", **trust)
    assert lines["TLS"] == said
    assert lines["login"] == "accepted by LOGIN"


def test_a_login_in_clear_where_it_is_allowed() -> None:
    plain = base64.b64encode(b"\0ann\0secret")

    def script(peer: Peer) -> None:
        peer.greet(ehlo=b"250-mx.example\r\n250 AUTH PLAIN\r\n")
        assert peer.hear(b"\r\n") == b"AUTH PLAIN " + plain
        peer.say(b"235 ok\r\n")
        peer.hear(b"QUIT\r\n")
        peer.say(b"221 bye\r\n")

    with Host(script) as host:
        address = f"smtp://ann:secret@127.0.0.1:{host.port}"
        lines = announced(address, auth_in_clear=True)
        assert (lines["TLS"], lines["login"]) == ("no", "accepted by PLAIN")


def test_a_token_that_can_not_be_read_is_why_not(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"token_file of relay default: can't read"):
        announced("smtps://ann@localhost:1", token_file=str(tmp_path / "token"))
