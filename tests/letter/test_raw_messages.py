"""Finished messages: what is repaired, what is refused, and that all else stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import check_wire, write

from geomail.errors import PayloadError
from geomail.job import Address, Email
from geomail.letter import Letter, compose

DATE = b"Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n"
MESSAGE_ID = b"Message-ID: <0123456789abcdef.17.3@example.com>\r\n"
WHOLE = (
    b"DATE: Mon, 1 Jan 2024 00:00:00 +0000\r\nmessage-id : <a@b>\r\nSubject:  two\r\n\tthree \r\n"
)


def sent(raw: bytes, *, eight_bit: bool = True) -> Letter:
    return write(Email(raw=raw, recipients=["a@x.org"]), eight_bit=eight_bit)


@pytest.mark.parametrize(
    "raw",
    [
        WHOLE + b"\r\n",
        WHOLE + b"\r\nbody\r\n.\r\n..\r\n \t \r\n",
        WHOLE + b"\r\nSubject: in the body\r\nBcc: too\r\n\r\n\r\n",
        WHOLE + b"X-Eight: \xff\r\n\r\n\xfc\xe9\0\r\n",
        WHOLE + b"\r\n" + b"x" * 998 + b"\r\n",
    ],
)
def test_a_whole_message_stays_byte_for_byte(raw: bytes) -> None:
    assert sent(raw).content == raw


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"Subject: x\r\n\r\nb\r\n", b"Subject: x\r\n" + DATE + MESSAGE_ID + b"\r\nb\r\n"),
        (b"Subject: x", b"Subject: x\r\n" + DATE + MESSAGE_ID + b"\r\n"),
        (b"Subject: x\n\nb", b"Subject: x\r\n" + DATE + MESSAGE_ID + b"\r\nb\r\n"),
        (WHOLE.replace(b"\r\n", b"\n") + b"\na\rb\n\r\nc", WHOLE + b"\r\na\r\nb\r\n\r\nc\r\n"),
        (b"bcc: a@x.org,\r\n b@x.org\r\n\tc@x.org\r\n" + WHOLE + b"\r\n", WHOLE + b"\r\n"),
        (WHOLE + b"Bcc : a@x.org\r\nResent-BCC: x\r\n\r\nBcc: b\r\n", WHOLE + b"\r\nBcc: b\r\n"),
        (WHOLE + b"X-Bcc: a\r\n\r\n", WHOLE + b"X-Bcc: a\r\n\r\n"),
        (
            b"X: y\r\n Date: folded\r\n\r\nDate: z\r\n",
            b"X: y\r\n Date: folded\r\n" + DATE + MESSAGE_ID + b"\r\nDate: z\r\n",
        ),
    ],
)
def test_what_is_repaired(raw: bytes, wanted: bytes) -> None:
    assert sent(raw).content == wanted


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "raw is empty"),
        (b"\r\nbody", "line 1 is no header"),
        (b"just a text\r\n", "line 1 is no header"),
        (b" folded: first\r\n\r\n", "line 1 is no header"),
        (b"From ann Mon Jan 1\r\nA: b\r\n\r\n", "line 1 is no header"),
        (b"A: b\r\nno colon\r\n\r\n", "line 2 is no header"),
        (b"\xfc: b\r\n\r\n", "line 1 is no header"),
        (b"A: b\r\n\r\n" + b"x" * 999 + b"\r\n", r"5\.6\.0 raw: line 3 is longer"),
        (b"A: " + b"x" * 996 + b"\r\n\r\n", r"5\.6\.0 raw: line 1 is longer"),
    ],
)
def test_what_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason):
        sent(raw)


@pytest.mark.parametrize(
    ("mail_from", "domain"), [("n@shop.example", b"shop.example"), ("", b"x.org")]
)
def test_without_a_sender_the_envelope_names_the_domain(mail_from: str, domain: bytes) -> None:
    email = Email(raw=b"Subject: x\r\n\r\n", mail_from=mail_from, recipients=["a@x.org"])
    letter = compose(email, id="w.1.2", first_seen_ms=0, sender=Address(""), eight_bit=True)
    assert letter.mail_from == mail_from
    assert b"Message-ID: <w.1.2@" + domain + b">\r\n" in letter.content


def test_eight_bits_need_a_host_that_takes_them() -> None:
    raw = WHOLE + b"\r\n\xfc\r\n"
    assert sent(raw).eight_bit
    with pytest.raises(PayloadError, match=r"^5\.6\.3 "):
        sent(raw, eight_bit=False)
    assert not sent(WHOLE + b"\r\n", eight_bit=False).eight_bit


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x", b" ", b"\xff", b"A: b"])))
def test_any_body_has_sound_lines(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    content = sent(WHOLE + b"\r\n" + body).content
    check_wire(content)
    if body.endswith(b"\r\n") and body.count(b"\r\n") == body.count(b"\r") == body.count(b"\n"):
        assert content == WHOLE + b"\r\n" + body
