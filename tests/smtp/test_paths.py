"""Paths of MAIL and RCPT: what is an address, what is not, and nothing harmful comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.smtp.paths import read_mail, read_rcpt


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"<a@b.example>", "a@b.example"),
        (b"<xxx.@b.example>", "xxx.@b.example"),
        (b"<a..b@b.example>", "a..b@b.example"),
        (b"<a+b=c/d@[127.0.0.1]>", "a+b=c/d@[127.0.0.1]"),
        (b'<"a b>\\"c"@b.example>', '"a b>\\"c"@b.example'),
        (b"<@relay.example,@other.example:a@b.example>", "a@b.example"),
        (b"<Postmaster>", "Postmaster"),
        ("<jürgen@büro.example>".encode(), "jürgen@büro.example"),
        (b"<a>", None),
        (b"<@b.example>", None),
        (b"<a@>", None),
        (b"<>", None),
        (b"<\xff@b.example>", None),
    ],
)
def test_recipient(path: bytes, address: str | None) -> None:
    assert read_rcpt(b"TO:" + path) == (address, [])
    assert read_rcpt(b"to: " + path) == (address, [])


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"TO:",
        b"TO:a@b.example",
        b"TO <a@b.example>",
        b"TO:<a@b.example",
        b"TO:<a b@b.example>",
        b"TO:<a\n@b.example>",
        b"TO:<a\0@b.example>",
        b"TO:<a@b.example>NOTIFY=NEVER",
        b"TO:<a@b.example> A=\x01",
        b'TO:<"a@b.example>',
        b'TO:<"a\r"@b.example>',
        b"FROM:<a@b.example>",
    ],
)
def test_wrong_syntax(argument: bytes) -> None:
    assert read_rcpt(argument) is None


def test_sender_may_be_null_and_has_parameters() -> None:
    assert read_mail(b"FROM:<>") == ("", [])
    assert read_mail(b"From:<> size=5  BODY=8bitmime") == (
        "",
        [(b"SIZE", b"5"), (b"BODY", b"8bitmime")],
    )


def test_a_long_line_costs_no_time() -> None:
    assert read_mail(b"FROM:<" + b"a" * 100_000) is None
    assert read_mail(b'FROM:<"' + b"a" * 100_000) is None


@given(st.binary(max_size=40))
def test_no_control_character_comes_out(path: bytes) -> None:
    found = read_rcpt(b"TO:<" + path + b">")
    address = (found and found[0]) or ""
    assert not {chr(code) for code in (*range(32), 127)}.intersection(address)
