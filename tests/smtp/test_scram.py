"""SCRAM-SHA-256: the example of RFC 7677, and servers that lie, stall or make no sense."""

import base64
from collections.abc import Generator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import ProtocolError
from geomail.smtp import scram
from geomail.smtp.scram import scram_sha_256

NONCE = "rOprNGfwEbeRWgbNEkqO"
BOTH = NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = f"r={BOTH},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
CLIENT_FINAL = f"c=biws,r={BOTH},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def begun(
    user: str = "user", password: str = "pencil", nonce: str = NONCE
) -> Generator[bytes, bytes, None]:
    """Return a conversation whose first response was given."""
    steps = scram_sha_256(user, password, nonce)
    next(steps)
    return steps


def test_the_example_of_rfc_7677() -> None:
    steps = scram_sha_256("user", "pencil", NONCE)
    assert next(steps) == f"n,,n=user,r={NONCE}".encode()
    assert steps.send(SERVER_FIRST) == CLIENT_FINAL
    assert steps.send(SERVER_FINAL) == b""
    with pytest.raises(StopIteration):
        steps.send(b"")


def test_extensions_that_may_be_ignored_are_ignored_and_signed() -> None:
    """RFC 5802 section 5.1: what stands behind the last known attribute."""
    steps = begun()
    assert steps.send(SERVER_FIRST + b",x=more") != CLIENT_FINAL
    steps = begun()
    steps.send(SERVER_FIRST)
    assert steps.send(SERVER_FINAL + b",x=more") == b""


@pytest.mark.parametrize(
    ("name", "said"),
    [("a,b=c", b"a=2Cb=3Dc"), ("ann@example.com", b"ann@example.com"), ("I\u00adX", b"IX")],
)
def test_names_are_spelt_as_attributes(name: str, said: bytes) -> None:
    assert next(scram_sha_256(name, "pencil", NONCE)) == b"n,,n=" + said + b",r=" + NONCE.encode()


def test_two_spellings_of_a_password_are_one() -> None:
    one, other = begun(password="p\u00e4ss"), begun(password="pa\u0308ss")
    assert one.send(SERVER_FIRST) == other.send(SERVER_FIRST)


@pytest.mark.parametrize(("user", "password"), [("a\x07b", "x"), ("ann", ""), ("ann", "a\ud800")])
def test_what_can_not_be_prepared_is_not_said(user: str, password: str) -> None:
    with pytest.raises(ProtocolError, match=r"^the (user|password) (is empty|holds a character)"):
        begun(user, password)


@pytest.mark.parametrize("nonce", ["", "a,b", "a b", "ä", "a\n"])
def test_there_must_be_a_nonce(nonce: str) -> None:
    with pytest.raises(ProtocolError, match="no nonce"):
        begun(nonce=nonce)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"", "not r="),
        (b"e=other-error", "not r="),
        (b"m=must," + SERVER_FIRST, "not r="),  # an extension that may not be ignored
        (SERVER_FIRST.replace(b",i=4096", b""), "not r="),
        (SERVER_FIRST.replace(b"i=4096", b"i=04096"), "not r="),
        (SERVER_FIRST.replace(b"i=4096", b"i=-4096"), "not r="),
        (SERVER_FIRST.replace(b"i=4096", b"i=" + b"9" * 4000), "not r="),
        (SERVER_FIRST.replace(b"s=W22", b"s=\xff"), "not r="),
        (SERVER_FIRST.replace(b"Q==", b"Q="), "not base64"),
        (SERVER_FIRST.replace(b"4096", b"4095"), "wants 4095 iterations, and 4096 to 600000 are"),
        (SERVER_FIRST.replace(b"4096", b"600001"), "wants 600001 iterations"),
        (SERVER_FIRST.replace(b"4096", b"4294967295"), "wants 4294967295 iterations"),
        (SERVER_FIRST.replace(b"r=rOpr", b"r=rOpR"), "nonce does not continue ours"),
        (SERVER_FIRST.replace(BOTH.encode(), NONCE.encode()), "nonce does not continue ours"),
    ],
)
def test_a_first_message_that_can_not_be_trusted(first: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        begun().send(first)


@pytest.mark.parametrize(
    ("final", "said"),
    [
        (b"", "did not prove"),
        (b"v=", "did not prove"),
        (SERVER_FINAL[:-2] + b"A=", "did not prove"),
        (SERVER_FINAL.replace(b"v=6", b"v=7"), "did not prove"),
        (CLIENT_FINAL.rpartition(b",p=")[2], "did not prove"),
        (b"e=invalid-proof", "the server says invalid-proof"),
        (b"e=<script>", "did not prove"),
        (b"v=====", "did not prove"),
        (b"v=A", "not base64"),
    ],
)
def test_a_server_that_can_not_sign_is_not_believed(final: bytes, said: str) -> None:
    steps = begun()
    steps.send(SERVER_FIRST)
    with pytest.raises(ProtocolError, match=said):
        steps.send(final)


def test_the_most_iterations_are_done_once_for_a_password_and_salt() -> None:
    scram.salted_password.cache_clear()
    first = SERVER_FIRST.replace(b"4096", b"600000")
    assert begun().send(first) == begun().send(first)
    found = scram.salted_password.cache_info()
    assert (found.misses, found.hits) == (1, 1)


garbage = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda r, s, i: b"r=%s,s=%s,i=%d" % (r, s, i),
        st.sampled_from([BOTH.encode(), NONCE.encode(), b"x"]),
        st.binary(max_size=40).map(base64.b64encode),
        st.integers(-1, 10**12).filter(lambda i: not 10_000 < i <= 600_000),
    ),
    st.binary(max_size=40).map(lambda signature: b"v=" + base64.b64encode(signature)),
    st.just(SERVER_FIRST),
)


@given(st.lists(garbage, max_size=4))
def test_nothing_but_the_signature_is_believed(challenges: list[bytes]) -> None:
    steps = begun()
    answers: list[bytes] = []
    with suppress(ProtocolError):
        answers.extend(map(steps.send, challenges))
    assert len(answers) < 2
