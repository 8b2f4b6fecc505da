"""Who may send by SMTP: logins, TLS, and clients from elsewhere."""

import base64
import logging
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from smtp_doors import CERTIFICATE, ENVELOPE, LETTER, Opened, opened, trusting, wait_until

from geomail.errors import ConfigError
from geomail.smtp.server import Server

BEGINNING = b"EHLO me\r\n"


@pytest.fixture
def logins(tmp_path: Path) -> str:
    path = tmp_path / "logins"
    path.write_text("ann:pass:word\n\nbob:b\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def cert(tmp_path: Path) -> str:
    path = tmp_path / "door.pem"
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def door(redis_url: str, logins: str, cert: str) -> Iterator[Opened]:
    with opened(redis_url, door_logins=logins, door_cert=cert) as running:
        yield running


def plain(user: str, password: str) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n"


def test_login_over_tls(door: Opened) -> None:
    with door.client() as client:
        client.starttls(context=trusting())
        client.login("ann", "pass:word")
        client.sendmail("a@x.example", "b@y.example", LETTER)
    assert b"with ESMTPSA;" in door.jobs()[0]["raw"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_on_this_machine_a_login_may_go_in_clear(door: Opened, mechanism: str) -> None:
    with door.client() as client:
        client.ehlo()
        assert mechanism in client.esmtp_features["auth"].split()
        client.esmtp_features["auth"] = mechanism
        client.login("bob", "b")
        client.sendmail("a@x.example", "b@y.example", LETTER)
    assert b"with ESMTPA;" in door.jobs()[0]["raw"]


def test_without_a_login_nothing_is_taken(door: Opened) -> None:
    with door.client() as client:
        client.starttls(context=trusting())
        with pytest.raises(smtplib.SMTPSenderRefused, match="Authentication required") as raised:
            client.sendmail("a@x.example", "b@y.example", LETTER)
        assert raised.value.smtp_code == 530
    assert door.jobs() == []


def test_wrong_passwords_are_slow_and_few(door: Opened, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "geomail")
    bare = door.bare()
    bare.hello()
    bare.say(plain("ann", "a") + plain("ann", "b") + plain("nobody", "") + plain("bob", "b"))
    assert bare.codes(4) == [535, 535, 535, 421]
    assert bare.rest() == b""
    said = "login_failed door=smtp host=127.0.0.1 times=3"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_what_comes_behind_starttls_in_clear_is_never_run(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(b"STARTTLS\r\nEHLO injected\r\n")
    assert bare.codes(1) == [554]
    assert bare.rest() == b""


def test_tls_begins_everything_anew(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(plain("bob", "b"))
    assert bare.codes(1) == [235]
    bare.say(ENVELOPE + b"STARTTLS\r\n")
    assert bare.codes(3) == [250, 250, 503]
    bare.say(b"RSET\r\nSTARTTLS\r\n")
    assert bare.codes(2) == [250, 220]
    bare.encrypt()
    bare.say(ENVELOPE)
    assert bare.codes(2) == [503, 503]
    bare.hello_again()
    bare.say(ENVELOPE)
    assert bare.codes(2) == [530, 530]
    bare.say(plain("bob", "b") + ENVELOPE + b"BDAT 0 LAST\r\n")
    assert bare.codes(4) == [235, 250, 250, 250]
    assert len(door.jobs()) == 1


def test_a_client_that_does_not_trust_us(door: Opened) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), door.client() as client:
        client.starttls(context=ssl.create_default_context())
    with door.client() as client:
        client.starttls(context=trusting())


def test_no_handshake_but_silence(redis_url: str, cert: str) -> None:
    with opened(redis_url, door_cert=cert, door_idle_s=0.2) as door:
        bare = door.bare()
        bare.hello()
        bare.say(b"STARTTLS\r\n")
        assert bare.codes(1) == [220]
        assert bare.rest() == b""
        wait_until(lambda: door.door.reception.guests == 0)


def test_clients_from_elsewhere(door: Opened, redis_url: str, cert: str) -> None:
    policy = door.door.policy_for("192.0.2.1")
    server = Server(policy)
    server.receive(BEGINNING)
    assert b"AUTH SCRAM-SHA-256 CRAM-MD5\r\n" in server.output()
    server.receive(plain("bob", "b"))
    assert server.output().startswith(b"538 5.7.11 Encryption required")
    server = Server(policy, is_encrypted=True)
    server.receive(BEGINNING + plain("bob", "b"))
    assert b"AUTH PLAIN LOGIN SCRAM-SHA-256\r\n" in server.output()
    assert server.login == "bob"
    with opened(redis_url, door_cert=cert) as without_logins:
        server = Server(without_logins.door.policy_for("2001:db8::1"))
        server.receive(BEGINNING)
        said = server.output()
        assert said.startswith(b"554 5.7.1 Only clients on this machine may send here")
        server = Server(without_logins.door.policy_for("::ffff:127.0.0.2"))
        assert server.output().startswith(b"220 ")


def test_logins_that_others_can_read(
    redis_url: str, logins: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(logins).chmod(0o644)
    with opened(redis_url, door_logins=logins):
        assert f"logins_are_readable path={logins}" in caplog.text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "has none"),
        ("ann", "line 1 is none"),
        ("bo:x\n\n:secret", "line 3 is none"),
        ("bo:x\nann:", "line 2 is none"),
    ],
)
def test_logins_that_are_none(redis_url: str, logins: str, content: str, fault: str) -> None:
    Path(logins).write_text(content)
    with pytest.raises(ConfigError, match=f"must have lines of USER:PASSWORD .*{fault}"):
        opened(redis_url, door_logins=logins).__enter__()


def test_a_door_that_closes_says_so_over_tls(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(b"STARTTLS\r\n")
    assert bare.codes(1) == [220]
    bare.encrypt()
    bare.hello_again()
    door.door.stop(20)
    assert bare.rest() == b"421 4.3.2 Going down, try again later\r\n"
    assert door.door.reception.guests == 0


def can_log_in(door: Opened, user: str, password: str) -> bool:
    """Tell whether a new connection is let in."""
    bare = door.bare()
    bare.hello()
    bare.say(plain(user, password))
    [code] = bare.codes(1)
    return code == 235


def test_a_changed_password_holds_for_the_next_connection(
    door: Opened, logins: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert can_log_in(door, "bob", "b")
    Path(logins).write_text("bob:changed\n")
    assert can_log_in(door, "bob", "changed")
    Path(logins).write_text("nonsense\n")
    assert can_log_in(door, "bob", "changed")
    Path(logins).unlink()
    assert can_log_in(door, "bob", "changed")
    assert not can_log_in(door, "ann", "pass:word")
    assert caplog.text.count("logins_unreadable") == 2
