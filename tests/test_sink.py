"""The sink by the standard library's client, and every fault by a bare socket."""

import re
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
import trustme
from sink_peers import DEADLINE_S, LETTER, SEVERAL, Bare, client_of, wait_until

from geomail.errors import ConfigError
from geomail.sink import Sink, read_address
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def test_a_mail_comes_through() -> None:
    mails: list[tuple[str, tuple[str, ...], bytes]] = []
    with Sink(on_mail=lambda *mail: mails.append(mail)) as sink, client_of(sink) as client:
        assert client.sendmail("a@x.example", SEVERAL, LETTER) == {}
        client.sendmail("", SEVERAL[:1], LETTER)
        assert sink.count == 2
    assert mails == [
        ("a@x.example", tuple(SEVERAL), LETTER.encode()),
        ("", ("a@y.example",), LETTER.encode()),
    ]


def test_a_large_mail_comes_through() -> None:
    mails: list[bytes] = []
    content = b"Subject: large\r\n\r\n" + (b"." * 70 + b"\r\n") * 50_000
    sink = Sink(on_mail=lambda _from, _to, content: mails.append(content))
    with sink, client_of(sink) as client:
        client.sendmail("a@x.example", SEVERAL, content)
    assert mails == [content]


def test_a_mail_larger_than_allowed() -> None:
    with Sink(policy=Policy(max_size=1000)) as sink, client_of(sink) as client:
        client.ehlo()
        client.esmtp_features.pop("size")
        with pytest.raises(smtplib.SMTPDataError, match="552"):
            client.sendmail("a@x.example", SEVERAL, "x\r\n" * 100_000)
        client.sendmail("a@x.example", SEVERAL, LETTER)
        assert sink.count == 1


def test_many_connections_at_once(sink: Sink) -> None:
    def send() -> None:
        with client_of(sink) as client:
            for _ in range(5):
                client.sendmail("a@x.example", SEVERAL, LETTER)

    gevent.joinall([gevent.spawn(send) for _ in range(20)], timeout=30, raise_error=True)
    assert (sink.count, sink.connections_ever) == (100, 20)
    wait_until(lambda: sink.connections == 0)


# Options


def test_a_greeting_that_refuses() -> None:
    sink = Sink(policy=Policy(greeting=Answer(554, "", "No service")))
    with sink, pytest.raises(smtplib.SMTPConnectError, match="554"):
        client_of(sink)


def test_too_many_connections() -> None:
    sink = Sink(max_connections=1)
    with sink, client_of(sink), pytest.raises(smtplib.SMTPConnectError, match="421"):
        client_of(sink)


def test_only_helo() -> None:
    with Sink(policy=Policy(extended=False)) as sink, client_of(sink) as client:
        client.sendmail("a@x", SEVERAL, LETTER)
        assert not client.does_esmtp


@pytest.mark.parametrize("says_421", [False, True])
def test_a_connection_is_used_up(says_421: bool) -> None:
    with Sink(mails_per_connection=2, says_421=says_421) as sink:
        bare = Bare(sink)
        bare.mail("b@y")
        bare.until(b"250 2.0.0 Ok\r\n")
        envelope = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
        bare.socket.sendall(envelope + b".\r\n" + envelope)
        bare.until(b"250 2.0.0 Ok\r\n")
        assert bare.rest()[:3] == (b"421" if says_421 else b"")
        bare.socket.close()


def test_delay() -> None:
    with Sink(delay_s=0.001) as sink, client_of(sink) as client:
        client.sendmail("a@x", SEVERAL, LETTER)


def test_starttls_and_login(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    policy = Policy(require_tls=True, require_auth=True)
    with Sink(policy=policy, tls=server_tls, logins={"ann": "pass"}) as sink:
        with client_of(sink) as client:
            with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
                client.sendmail("a@x", SEVERAL, LETTER)
            client.starttls(context=client_tls)
            client.ehlo()
            with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                client.auth("PLAIN", lambda _=None: "\0ann\0wrong")
            client.auth("LOGIN", lambda challenge=None: "pass" if challenge else "ann")
            client.sendmail("a@x", SEVERAL, LETTER)
        assert sink.count == 1


def test_implicit_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with Sink(tls=server_tls, implicit_tls=True) as sink:
        host, port = sink.address
        with smtplib.SMTP_SSL(host, port, context=client_tls, timeout=DEADLINE_S) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            client.sendmail("a@x", SEVERAL, LETTER)
        assert sink.count == 1


def test_a_failed_handshake_hurts_nobody(server_tls: ssl.SSLContext) -> None:
    with Sink(tls=server_tls) as sink:
        with client_of(sink) as client, pytest.raises(ssl.SSLError):
            client.starttls(context=ssl.create_default_context())
        with client_of(sink) as client:
            client.sendmail("a@x", SEVERAL, LETTER)


def test_stop_closes_connections() -> None:
    sink = Sink().start()
    bare = Bare(sink)
    bare.mail("never@y")
    sink.stop()
    assert bare.rest() == b""
    bare.socket.close()
    with pytest.raises(ConnectionRefusedError):
        Bare(sink)


def test_the_record(tmp_path: Path) -> None:
    path = tmp_path / "record"
    with Sink(record=str(path)) as sink, client_of(sink) as client:
        client.sendmail("a@x", SEVERAL, LETTER)
        client.sendmail("a@x", ["c@y"], "message-id:\r\n <2@x>\r\n\r\n")
        wait_until(lambda: path.read_bytes().count(b"\n") == 2)
        client.sendmail("a@x", ["d@y"], "\r\n")
    lines = path.read_text().splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["<1@x.example>", "a@y.example"],
        ["<2@x>", "c@y"],
        ["-", "d@y"],
    ]
    assert all(re.fullmatch(r"[0-9]{10}\.[0-9]{6}", line.split()[0]) for line in lines)


def test_a_record_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    with Sink(record="/dev/full") as sink, client_of(sink) as client:
        client.sendmail("a@x", SEVERAL, LETTER)
    assert sink.count == 1
    assert "record_lost lines=1 path=/dev/full" in caplog.text


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't record"):
        Sink(record=str(tmp_path))


def test_an_address_in_use(sink: Sink) -> None:
    with pytest.raises(ConfigError, match=r"can't listen on .*in use"):
        Sink(sink.address).start()


def test_ipv6() -> None:
    try:
        sink = Sink(("::1", 0)).start()
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback")
    Bare(sink).socket.close()
    sink.stop()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.2:25", ("127.0.0.2", 25)),
        ("2525", ("127.0.0.1", 2525)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:25", ("::1", 25)),
    ],
)
def test_read_address(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "a:b", "a:65536", "a:-1"])
def test_read_address_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        read_address(text)


# The command's entry, as a process of its own

RUN = """
import sys
import geomail.__main__
from geomail.sink import serve
serve("127.0.0.1:0", verbose="-v" in sys.argv)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verbose", [False, True])
def test_serve(number: signal.Signals, verbose: bool) -> None:
    command = [sys.executable, "-c", RUN, *(["-v"] if verbose else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = check_serve(process, number)
        finally:
            process.kill()
    shown = "a@x -> a@y.example and 1 more, 39 bytes: ä ? b" if verbose else "1 mail"
    assert said == [shown, "took 1 mail"]
    assert process.returncode == 0


def check_serve(process: subprocess.Popen[str], number: signal.Signals) -> list[str]:
    assert process.stdout
    host, port = process.stdout.readline().removeprefix("listening on ").strip().split(":")
    with smtplib.SMTP(host, int(port), timeout=DEADLINE_S) as client:
        client.sendmail("a@x", SEVERAL, "Subject: =?utf-8?q?=C3=A4_=1B?=\r\n b\r\n\r\n")
    first = process.stdout.readline()
    process.send_signal(number)
    last = process.stdout.read()
    process.wait(DEADLINE_S)
    return [first.strip(), last.strip()]
