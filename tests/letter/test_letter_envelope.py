"""Addresses in commands and in headers, null senders, redirection."""

import subprocess
import sys

import pytest
from letters import FIRST_SEEN_MS, ID, SENDER, mailboxes, parse, write

from geomail.errors import PayloadError
from geomail.job import Address, Email
from geomail.letter import Letter, compose


@pytest.mark.parametrize(
    ("addr", "command", "header"),
    [
        ("ann@example.org", "ann@example.org", "ann@example.org"),
        ("Ann+tag@Example.ORG", "Ann+tag@Example.ORG", "Ann+tag@Example.ORG"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@faß.example", "ann@xn--fa-hia.example", "ann@xn--fa-hia.example"),
        ("ann@例え.テスト", "ann@xn--r8jz45g.xn--zckzah", "ann@xn--r8jz45g.xn--zckzah"),
        ("xxx.@example.org", "xxx.@example.org", '"xxx."@example.org'),
        ("a..b@example.org", "a..b@example.org", '"a..b"@example.org'),
        (".a@example.org", ".a@example.org", '".a"@example.org'),
        ('"a b"@example.org', '"a b"@example.org', '"a b"@example.org'),
        ("a b@example.org", '"a b"@example.org', '"a b"@example.org'),
        ('a"b@example.org', '"a\\"b"@example.org', '"a\\"b"@example.org'),
        ("a@b@example.org", '"a@b"@example.org', '"a@b"@example.org'),
        ("ann@[192.0.2.1]", "ann@[192.0.2.1]", "ann@[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "ann@[IPv6:2001:db8::1]", "ann@[IPv6:2001:db8::1]"),
        ("jörg@example.org", "jörg@example.org", "jörg@example.org"),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example", "jörg@xn--bcher-kva.example"),
        ("jörg.@example.org", "jörg.@example.org", '"jörg."@example.org'),
    ],
)
def test_both_spellings_of_an_address(addr: str, command: str, header: str) -> None:
    letter = write(Email(to=[Address(addr)], cc=[Address(addr, "N")], recipients=[addr]))
    assert letter.recipients == (command,)
    assert f"To: {header}\r\nCc: N <{header}>\r\n".encode() in letter.content
    assert letter.smtputf8 is not addr.partition("@")[0].isascii()
    assert letter.eight_bit is letter.smtputf8


@pytest.mark.parametrize(
    "email",
    [
        Email(recipients=["jörg@x.org"]),
        Email(to=[Address("jörg@x.org", "J")], recipients=["a@x.org"]),
        Email(reply_to=[Address("jörg@x.org")], recipients=["a@x.org"]),
        Email(sender=Address("jörg@x.org"), recipients=["a@x.org"]),
        Email(return_path="jörg@x.org", recipients=["a@x.org"]),
        Email(raw=b"A: b\r\n\r\n", recipients=["jörg@x.org"]),
    ],
)
def test_any_local_part_beyond_ascii_needs_smtputf8(email: Email) -> None:
    assert write(email).smtputf8
    assert write(email, eight_bit=False).smtputf8


@pytest.mark.parametrize(
    "addr", ["", "ann", "@x.org", "ann@", "a@b c.org", "a@ü..org", "a@\u2764.x"]
)
def test_what_is_no_address_is_refused(addr: str) -> None:
    with pytest.raises(PayloadError):
        write(Email(to=[Address(addr)]))


@pytest.mark.parametrize(
    ("email", "mail_from"),
    [
        (Email(), "news@example.com"),
        (Email(sender=Address("a@bücher.example", "A")), "a@xn--bcher-kva.example"),
        (Email(return_path="bounce@x.org"), "bounce@x.org"),
        (Email(return_path=""), ""),
        (Email(return_path="<>"), ""),
        (Email(mail_from="m@x.org", raw=b"A: b\r\n\r\n"), "m@x.org"),
        (Email(mail_from="", raw=b"A: b\r\n\r\n"), ""),
        (Email(mail_from="m@x.org", return_path="b@x.org"), "b@x.org"),
    ],
)
def test_the_envelope_sender(email: Email, mail_from: str) -> None:
    assert write(email).mail_from == mail_from


def redirected(email: Email, recipients: list[str] | None = None) -> Letter:
    return compose(
        email,
        id=ID,
        first_seen_ms=FIRST_SEEN_MS,
        sender=SENDER,
        eight_bit=True,
        redirect_to="dev@example.net",
        recipients=recipients,
    )


@pytest.mark.parametrize("raw", [None, b"Subject: x\r\n\r\nbody\r\n"])
def test_a_redirected_letter_says_whose_it_was(raw: bytes | None) -> None:
    people = [f"person{n}@example.org" for n in range(30)]
    letter = redirected(Email(to=[Address(people[0])], recipients=people, raw=raw))
    assert letter.recipients == ("dev@example.net",)
    assert str(parse(letter)["x-geomail-to"]) == ", ".join(people)
    assert raw is not None or mailboxes(letter, "to") == [("", people[0])]
    part = redirected(Email(recipients=people, raw=raw), people[3:4])
    assert str(parse(part)["x-geomail-to"]) == people[3]


def test_ascii_addresses_do_not_pay_for_idna() -> None:
    code = (
        "import sys; from geomail.job import *; from geomail.letter import compose; "
        "compose(Email(to=[Address('a@x.org')], recipients=['a@x.org']), id='1', first_seen_ms=0,"
        " sender=Address('b@x.org'), eight_bit=True); "
        "print([name for name in ('idna', 'email', 'gevent', 'socket', 'random')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
