"""Each mechanism answers what its RFC says, asks back for nothing, and shows no secret."""

import base64
import logging
from collections.abc import Iterator

import pytest

from geomail import log
from geomail.errors import ProtocolError
from geomail.smtp.auth import MECHANISMS, Login, choose
from geomail.smtp.client import Client
from geomail.smtp.events import Event, Lost, Policy, Ready
from geomail.smtp.opening import COMMAND_LIMIT

ANN = Login("ann", "pass wörd")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ({"PLAIN", "LOGIN"}, ["PLAIN", "LOGIN"]),
        ({"LOGIN", "CRAM-MD5"}, ["LOGIN"]),
        ({"XOAUTH2"}, []),
        (set[str](), []),
    ],
)
def test_the_best_mechanism_comes_first(offered: set[str], chosen: list[str]) -> None:
    assert choose(frozenset(offered)) == chosen


def test_plain_says_all_at_once() -> None:
    exchange = MECHANISMS["PLAIN"](ANN)
    assert next(exchange) == b"\0ann\0pass w\xc3\xb6rd"
    with pytest.raises(ProtocolError, match="second response"):
        exchange.send(b"")


def test_login_is_asked_twice() -> None:
    exchange = MECHANISMS["LOGIN"](ANN)
    assert next(exchange) is None
    assert exchange.send(b"Username:") == b"ann"
    assert exchange.send(b"Password:") == b"pass w\xc3\xb6rd"
    with pytest.raises(ProtocolError, match="third response"):
        exchange.send(b"And?")


def test_a_login_shows_no_password() -> None:
    policy = Policy("client.example", login=ANN)
    for shown in (repr(ANN), str(ANN), repr(policy), f"{policy}", log.render("a", {"b": policy})):
        assert "ann" in shown
        assert "wörd" not in shown


# ---- in a conversation


def logged_in(login: Login, *answers: bytes, offers: bytes = b"PLAIN LOGIN") -> list[Event]:
    """Log in against a server that gives `answers`; return the events."""
    client = Client(Policy("client.example", login=login), under_tls=True)
    events = client.receive(b"220 mx.example\r\n")
    client.output()
    events += client.receive(b"250-mx.example\r\n250 AUTH " + offers + b"\r\n")
    for answer in answers:
        assert client.output()
        events += client.receive(answer)
    return events


def first_line(login: Login) -> bytes:
    """Return the AUTH PLAIN line for a login."""
    client = Client(Policy("client.example", login=login), under_tls=True)
    client.receive(b"220 mx.example\r\n")
    client.output()
    client.receive(b"250-mx.example\r\n250 AUTH PLAIN\r\n")
    return client.output()


def test_an_initial_response_is_sent_only_where_the_line_fits() -> None:
    lengths = set[int]()
    for size in range(300, 420):
        login = Login("ann", "p" * size)
        line = first_line(login)
        assert line.endswith(b"\r\n")
        whole = b"AUTH PLAIN " + base64.b64encode(b"\0ann\0" + b"p" * size) + b"\r\n"
        assert line == (whole if len(whole) <= COMMAND_LIMIT else b"AUTH PLAIN\r\n")
        lengths.add(len(line))
    assert max(lengths) > COMMAND_LIMIT - 4
    assert min(lengths) == len(b"AUTH PLAIN\r\n")


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    """Collect what is logged, from DEBUG up."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, collector = logging.getLogger("geomail"), Collector()
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(collector)
    logger.setLevel(level)


@pytest.mark.parametrize(
    "answers",
    [
        (b"535 5.7.8 wrong\r\n",),
        (b"334 \r\n",),
        (b"504 no\r\n", b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"535 wrong\r\n"),
        (b"504 no\r\n", b"334 a\r\n", b"334 b\r\n", b"334 c\r\n"),
        (b"nonsense\r\n",),
        (b"",),
    ],
)
def test_a_failed_login_shows_no_secret(
    answers: tuple[bytes, ...], everything_logged: list[str]
) -> None:
    lost = logged_in(ANN, *answers)[-1]
    assert isinstance(lost, Lost)
    secret = "pass wörd"
    secrets = [
        secret,
        *(base64.b64encode(s.encode()).decode() for s in (secret, f"\0ann\0{secret}")),
    ]
    for text in (str(lost), repr(lost), *everything_logged):
        assert not any(secret in text for secret in secrets)


def test_a_login_in_other_than_ascii_is_utf8() -> None:
    line = first_line(Login("änn", "ß"))
    assert base64.b64decode(line.split()[2]) == "\0änn\0ß".encode()
    assert isinstance(logged_in(Login("änn", "ß"), b"235 ok\r\n")[-1], Ready)


@pytest.mark.parametrize("login", [Login("a\0nn", "secret"), Login("ann", "se\0cret")])
def test_a_nul_in_a_login_is_never_written(login: Login) -> None:
    """RFC 4616 section 2: NUL separates, so it would say another name."""
    client = Client(Policy("client.example", login=login), under_tls=True)
    client.receive(b"220 mx.example\r\n")
    client.output()
    lost = client.receive(b"250-mx.example\r\n250 AUTH PLAIN LOGIN\r\n")[-1]
    assert str(lost) == "AUTH: login failed: AUTH PLAIN: a NUL in the user or the password"
    assert client.output() == b""
