"""Each mechanism answers what its RFC says, asks back for nothing, and shows no secret."""

import base64
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail import log
from geomail.errors import ProtocolError
from geomail.smtp.auth import MECHANISMS, Exchange, Login, choose
from geomail.smtp.client import Client
from geomail.smtp.events import Event, Lost, Policy, Ready
from geomail.smtp.opening import COMMAND_LIMIT

ANN = Login("ann", "pass wörd")
BEARER = Login("ann@example.com", token="vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
NONCE = "fyko+d2lbbFgONRv9qkxdawL"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("PLAIN LOGIN", "PLAIN LOGIN"),
        ("CRAM-MD5 LOGIN", "LOGIN CRAM-MD5"),
        ("LOGIN CRAM-MD5 PLAIN SCRAM-SHA-256 NTLM", "SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5"),
        ("XOAUTH2 OAUTHBEARER", ""),
        ("", ""),
    ],
)
def test_the_best_mechanism_comes_first(offered: str, chosen: str) -> None:
    assert choose(frozenset(offered.split()), ANN) == chosen.split()


def test_in_clear_the_password_is_said_last() -> None:
    offered = frozenset(MECHANISMS)
    in_clear = ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"]
    assert choose(offered, ANN, in_clear=True) == in_clear
    assert choose(offered, BEARER, in_clear=True) == []


def test_a_token_goes_by_its_own_mechanisms_alone() -> None:
    assert choose(frozenset(MECHANISMS), BEARER) == ["OAUTHBEARER", "XOAUTH2"]
    assert choose(frozenset(("PLAIN", "LOGIN")), BEARER) == []


def test_a_password_that_can_not_be_prepared_goes_by_another_mechanism() -> None:
    odd = Login("ann", "tab\tbed")
    assert choose(frozenset(("SCRAM-SHA-256", "PLAIN")), odd) == ["PLAIN"]
    assert choose(frozenset(("SCRAM-SHA-256",)), odd) == ["SCRAM-SHA-256"]
    with pytest.raises(ProtocolError, match=r"^AUTH SCRAM-SHA-256: the password holds a char"):
        Exchange("SCRAM-SHA-256", odd, NONCE).first()


def test_plain_says_all_at_once() -> None:
    exchange = Exchange("PLAIN", ANN)
    assert exchange.first() == b"\0ann\0pass w\xc3\xb6rd"
    exchange.succeeded()
    with pytest.raises(ProtocolError, match=r"^AUTH PLAIN: the server asks for more"):
        exchange.respond(b"")


def test_login_is_asked_twice() -> None:
    exchange = Exchange("LOGIN", ANN)
    assert exchange.first() is None
    assert exchange.respond(b"Username:") == b"ann"
    assert exchange.respond(b"Password:") == b"pass w\xc3\xb6rd"
    exchange.succeeded()
    with pytest.raises(ProtocolError, match=r"^AUTH LOGIN: the server asks for more"):
        exchange.respond(b"And?")


def test_cram_md5_is_as_in_rfc_2195() -> None:
    exchange = Exchange("CRAM-MD5", Login("tim", "tanstaaftanstaaf"))
    assert exchange.first() is None
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert exchange.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"


def test_cram_md5_where_a_system_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise ValueError("disabled for FIPS")

    monkeypatch.setattr("hmac.new", forbidden)
    exchange = Exchange("CRAM-MD5", ANN)
    exchange.first()
    with pytest.raises(ProtocolError, match=r"^AUTH CRAM-MD5: this system forbids MD5"):
        exchange.respond(b"<1@a>")


def test_xoauth2_names_the_user_and_the_token() -> None:
    exchange = Exchange("XOAUTH2", BEARER)
    said = f"user=ann@example.com\x01auth=Bearer {BEARER.token}\x01\x01".encode()
    assert exchange.first() == said
    exchange.succeeded()


def test_oauthbearer_is_as_in_rfc_7628() -> None:
    exchange = Exchange("OAUTHBEARER", BEARER)
    said = f"n,a=ann@example.com,\x01auth=Bearer {BEARER.token}\x01\x01".encode()
    assert exchange.first() == said
    odd = Exchange("OAUTHBEARER", Login("a,b=c", token="t"))
    assert (odd.first() or b"").startswith(b"n,a=a=2Cb=3Dc,\x01")


@pytest.mark.parametrize(("mechanism", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\x01")])
def test_a_refused_token_gets_one_answer_and_no_yes(mechanism: str, answer: bytes) -> None:
    exchange = Exchange(mechanism, BEARER)
    exchange.first()
    assert exchange.respond(b'{"status":"401"}') == answer
    with pytest.raises(ProtocolError, match="the server says no and then yes"):
        exchange.succeeded()
    with pytest.raises(ProtocolError, match="the server asks for more"):
        exchange.respond(b'{"status":"401"}')


@pytest.mark.parametrize(
    ("challenge", "told"),
    [
        (b'{"status":"401","schemes":"bearer","scope":"mail"}', "status 401, scope mail"),
        (b'{"status":400}', "status 400"),
        (b'{"status":"invalid_token","scope":null}', "status invalid_token"),
        (b'{"status":"a\\u001b[31mb"}', "status a?[31mb"),
        (b'{"status":"' + b"x" * 4000 + b'"}', "status " + "x" * 113),
        (b'{"status":["deep"]}', ""),
        (b"{" * 3000, ""),
        (b'{"a":' + b"[" * 3000, ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_the_reason_is_told_as_far_as_it_can_be_read(challenge: bytes, told: str) -> None:
    assert Exchange("XOAUTH2", BEARER).reason(challenge) == told


def test_a_reason_that_repeats_the_token_does_not() -> None:
    exchange = Exchange("XOAUTH2", BEARER)
    said = f'{{"status":"{BEARER.token} is bad","scope":"x {(BEARER.token or "")[:12]} y"}}'
    assert exchange.reason(said.encode()) == "status … is bad, scope x … y"


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    "login",
    [
        Login("a\0nn", "secret", "t0ken"),
        Login("ann", "se\0cret", "t0ken"),
        Login("a\x01nn", "secret", "t0ken"),
        Login("a\r\nnn", "secret", "t0ken"),
        Login("", "secret", "t0ken"),
        Login("ann", "secret", "t0k\x01en"),
        Login("ann", "secret", "t0k en"),
        Login("ann", "secret", ""),
        Login("ann", "secret\udcff", "t0ken"),
    ],
)
def test_what_would_end_a_field_is_never_said(mechanism: str, login: Login) -> None:
    with pytest.raises(ProtocolError, match=f"^AUTH {mechanism}: ") as raised:
        Exchange(mechanism, login, NONCE).first()
    assert "secret" not in str(raised.value)
    assert "t0k" not in str(raised.value)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@given(challenges=st.lists(st.binary(max_size=300), min_size=4, max_size=6))
def test_no_challenges_go_on_for_ever(mechanism: str, challenges: list[bytes]) -> None:
    exchange = Exchange(mechanism, Login("ann", "pass wörd", "t0ken"), NONCE)
    exchange.first()
    with pytest.raises(ProtocolError, match=f"^AUTH {mechanism}: ") as raised:
        answer(exchange, challenges)
    assert "wörd" not in str(raised.value)
    assert "t0ken" not in str(raised.value)
    with pytest.raises(ProtocolError):
        exchange.respond(b"")


def answer(exchange: Exchange, challenges: list[bytes]) -> None:
    """Let the exchange answer all of these, as a connection does."""
    for challenge in challenges:
        exchange.reason(challenge)
        exchange.respond(challenge)


@given(st.text(max_size=300))
def test_what_a_server_says_loses_nothing_but_secrets(text: str) -> None:
    exchange = Exchange("PLAIN", Login("ann", "zqzqzqzq"))
    exchange.first()
    if "zqzq" not in text:
        assert exchange.redacted(text) == text
    assert "zqzqzqzq" not in exchange.redacted(f"{text} zqzqzqzq {text}")


def test_a_login_shows_no_password() -> None:
    both = Login("ann", "pass wörd", "t0ken")
    policy = Policy("client.example", login=both)
    for shown in (repr(both), str(both), repr(policy), f"{policy}", log.render("a", {"b": policy})):
        assert "ann" in shown
        assert "wörd" not in shown
        assert "t0ken" not in shown
    assert "wörd" not in repr(Exchange("PLAIN", both))


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


ANSWERS = st.builds(
    "{} {}\r\n".format,
    st.sampled_from([235, 250, 334, 354, 421, 432, 454, 500, 501, 504, 530, 534, 535, 538]),
    st.one_of(
        st.binary(max_size=60).map(lambda challenge: base64.b64encode(challenge).decode()),
        st.sampled_from(
            ["", "5.5.4 no", "5.7.8 no such mechanism", "5.7.9 too weak", "====", "r="]
        ),
        st.builds(
            lambda more, i: base64.b64encode(f"r={NONCE}{more},s=QUJD,i={i}".encode()).decode(),
            st.sampled_from(["", "x"]),
            st.sampled_from([1, 4096, 600_001]),
        ),
    ),
)


@pytest.mark.parametrize("login", [ANN, BEARER], ids=["password", "token"])
@given(answers=st.lists(ANSWERS, min_size=25, max_size=25))
def test_whatever_a_host_answers_a_login_ends(login: Login, answers: list[str]) -> None:
    policy = Policy("client.example", login=login, nonce=NONCE)
    client = Client(policy, under_tls=True)
    events = client.receive(b"220 mx.example\r\n")
    client.output()
    offers = " ".join(MECHANISMS).encode()
    events += client.receive(b"250-mx.example\r\n250 AUTH " + offers + b"\r\n")
    for answer in answers:
        if not client.output():
            break
        events += client.receive(answer.encode())
    [event] = events
    assert isinstance(event, Ready | Lost)
    assert client.mechanism != "SCRAM-SHA-256"  # nobody here could have signed
    assert "wörd" not in str(event)
    assert str(login.token) not in str(event)


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
        (b"501 what is AGFubgBwYXNzIHfDtnJk?\r\n",),
        (b"535-what is pass w\xc3\xb6rd\r\n535 and AGFubgBwYXNzIHfDtnJk?\r\n",),
        (b"421 what is AGFubgBwYXNzIHfDtnJk?\r\n",),
        (b"AUTH PLAIN AGFubgBwYXNzIHfDtnJk\r\n",),
        (b"235 ok\r\n250 what is AGFubgBwYXNzIHfDtnJk?\r\n",),
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
