"""What `geomail sink` is told on its command line, by a client that feels it."""

import base64
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from sink_peers import DEADLINE_S, LETTER, SEVERAL, client_of

from geomail import usage
from geomail.errors import ConfigError
from geomail.sink import Sink
from geomail.sink.options import read_options
from geomail.smtp.accounts import MECHANISMS


def given(*argv: str) -> dict[str, object]:
    return usage.read(["sink", *argv])


@contextmanager
def told(*argv: str) -> Iterator[tuple[Sink, smtplib.SMTP]]:
    with Sink(**read_options(given(*argv))) as sink, client_of(sink) as client:
        client.ehlo()
        yield sink, client


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture
def cert(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "sink.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def logins(tmp_path: Path) -> str:
    path = tmp_path / "logins"
    path.write_text("ann:pass:word\n\nbob:token\n", encoding="utf-8")
    return str(path)


ALL = {"pipelining", "chunking", "size", "8bitmime", "smtputf8", "dsn", "enhancedstatuscodes"}


def test_all_is_announced_unless_it_is_not_wanted() -> None:
    with told() as (_, client):
        assert client.esmtp_features.keys() == ALL
    for name in ALL:
        with told("--without", name.upper()) as (_, client):
            assert client.esmtp_features.keys() == ALL - {name}
    with told("--without", "dsn, Chunking,size") as (_, client):
        assert client.esmtp_features.keys() == ALL - {"dsn", "chunking", "size"}
    with told("--without", "EHLO") as (sink, client):
        client.helo()
        client.sendmail("a@x", SEVERAL, LETTER)
        assert sink.count == 1


def test_limits() -> None:
    with told("--limits", "MAILMAX=1,RCPTMAX=1") as (_, client):
        assert client.esmtp_features["limits"] == "MAILMAX=1 RCPTMAX=1"
        assert client.sendmail("a@x", SEVERAL, LETTER).keys() == {SEVERAL[1]}
        with pytest.raises(smtplib.SMTPSenderRefused, match="421"):
            client.sendmail("a@x", SEVERAL, LETTER)
    with told("--limits", "rcptmax=7") as (_, client):
        assert client.esmtp_features["limits"] == "RCPTMAX=7"


def test_delay() -> None:
    began = time.monotonic()
    with told("--delay", "0.05") as (_, client):
        client.noop()
        assert time.monotonic() - began > 0.1


def test_a_fault() -> None:
    with told("--fault", "data+452") as (_, client):
        with pytest.raises(smtplib.SMTPDataError, match="452"):
            client.sendmail("a@x", SEVERAL, LETTER)
        client.send(b"BDAT 7 LAST\r\nXYZZY\r\n")
        assert client.getreply()[0] == 503
        assert client.noop()[0] == 250
    with told("--fault", "chunks-unswallowed") as (_, client):
        client.send(b"BDAT 7 LAST\r\nXYZZY\r\n")
        assert [client.getreply()[0], client.getreply()[0]] == [503, 500]


def test_logins(logins: str) -> None:
    with told("--logins", logins, "--require-auth") as (_, client):
        names = "PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5 OAUTHBEARER XOAUTH2"
        assert client.esmtp_features["auth"].strip() == names
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            client.sendmail("a@x", SEVERAL, LETTER)
        with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
            client.login("ann", "pass")
        client.login("ann", "pass:word")  # by CRAM-MD5
        client.sendmail("a@x", SEVERAL, LETTER)
    with told("--logins", logins) as (_, client):
        first = base64.b64encode(b"user=bob\1auth=Bearer token\1\1").decode()
        assert client.docmd("AUTH", f"XOAUTH2 {first}")[0] == 235


def test_logins_by_some_mechanisms(logins: str) -> None:
    with told("--logins", logins, "--without", "plain,scram-sha-256,DSN,CRAM-MD5") as (_, client):
        assert client.esmtp_features["auth"].strip() == "LOGIN OAUTHBEARER XOAUTH2"
        assert "dsn" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN AGFubgBwYXNzOndvcmQ=")[0] == 504
        client.login("ann", "pass:word")
    with pytest.raises(ConfigError, match="leave out --logins"):
        read_options(given("--logins", logins, "--without", ",".join(MECHANISMS)))


def test_tls(cert: str, logins: str, client_tls: ssl.SSLContext) -> None:
    with told("--cert", cert, "--require-tls", "--logins", logins) as (_, client):
        assert "auth" not in client.esmtp_features
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            client.sendmail("a@x", SEVERAL, LETTER)
        client.starttls(context=client_tls)
        client.login("ann", "pass:word")
        client.sendmail("a@x", SEVERAL, LETTER)


def test_implicit_tls(cert: str, client_tls: ssl.SSLContext) -> None:
    with Sink(**read_options(given("--cert", cert, "--implicit-tls"))) as sink:
        host, port = sink.address
        with smtplib.SMTP_SSL(host, port, context=client_tls, timeout=DEADLINE_S) as client:
            client.sendmail("a@x", SEVERAL, LETTER)
        assert sink.count == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--fault", "x"], "--fault: 'x' is none of reply, greylist"),
        (["--fault", "data@"], "--fault: 'data@' is none of"),
        (["--without", "FOO"], "--without: 'FOO' is nothing that the sink announces: expected"),
        (["--without", "PIPELINIG"], "did you mean PIPELINING"),
        (["--without", "CRAM-MD"], "did you mean CRAM-MD5"),
        (["--without", "PLAIN"], "--without PLAIN needs --logins"),
        (["--limits", "RCPTMAX=0"], "--limits: expected MAILMAX=N"),
        (["--limits", "RCPTDOMAINMAX=1"], "--limits: expected MAILMAX=N"),
        (["--delay", "-1"], "--delay must be seconds"),
        (["--delay", "1e3"], "--delay must be seconds"),
        (["--require-tls"], "--require-tls needs --cert"),
        (["--implicit-tls"], "--implicit-tls needs --cert"),
        (["--require-auth"], "--require-auth needs --logins"),
        (["--cert", "/nosuch"], "from /nosuch: No such file"),
        (["--cert", __file__], "not a PEM file with both"),
        (["--logins", "/nosuch"], "from /nosuch: No such file"),
        (["--logins", __file__], "must have lines of USER:PASSWORD"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_options(given(*argv))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_takes_them() -> None:
    command = [sys.executable, "-m", "geomail", "sink", "--listen", "127.0.0.1:0"]
    command += ["--without", "CHUNKING", "--fault", "data+451"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline().rpartition(":")[2])
            with smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE_S) as client:
                client.ehlo()
                assert client.esmtp_features.keys() == ALL - {"chunking"}
                with pytest.raises(smtplib.SMTPDataError, match="451"):
                    client.sendmail("a@x", SEVERAL, LETTER)
        finally:
            process.terminate()
