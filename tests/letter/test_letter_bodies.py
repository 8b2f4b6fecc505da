"""Bodies and parts: the transfer encoding that is chosen, and what comes back."""

import binascii
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import ID, File, files_of, lines, parse, text_of, write

from geomail.job import Attachment, Email
from geomail.letter.body import base64, has_long_line, quoted_printable, with_crlf

HTML = '<p>Hello <img src="cid:logo@x"></p>'
LOGO = Attachment("logo.png", b"\x89PNG\r\n\x1a\n\0", "image/png", "logo@x")
PDF = Attachment("a.pdf", bytes(range(256)), "application/pdf", None)


@pytest.mark.parametrize(
    ("text", "coding", "coding_for_seven_bits"),
    [
        ("", "7bit", "7bit"),
        ("Hello\n", "7bit", "7bit"),
        ("trailing spaces   \n and tabs\t\n", "7bit", "7bit"),
        ("From here\n.\n..\n.\r\n", "7bit", "7bit"),
        ("\n.\n" * 9 + "\r\n.\r\n\r.\r\n\r\r\n.\r\r\n", "7bit", "7bit"),
        ("x" * 998, "7bit", "7bit"),
        ("x" * 998 + "\n" + "y" * 998 + "\n", "7bit", "7bit"),
        ("x" * 999, "quoted-printable", "quoted-printable"),
        ("a\n" + "x" * 999 + "\nb", "quoted-printable", "quoted-printable"),
        ("Grüße\n", "8bit", "base64"),
        ("Ein längerer Text, fast ganz ASCII\n", "8bit", "quoted-printable"),
        ("ü" * 499, "8bit", "base64"),
        ("ü" * 500, "base64", "base64"),
        ("日本語\n", "8bit", "base64"),
        ("zero \0 in a longer text", "quoted-printable", "quoted-printable"),
        ("escape \x1b[1m, bell \a, del \x7f and page \f", *["quoted-printable"] * 2),
        ("\0\1\2\3", "base64", "base64"),
        ("\U0001f600" * 10, "8bit", "base64"),
        ("neither \x85 nor \u2028 ends a line", "8bit", "quoted-printable"),
        ("=?utf-8?q?x?= =20 =\n", "7bit", "7bit"),
    ],
)
def test_the_cheapest_coding_that_is_safe(
    text: str, coding: str, coding_for_seven_bits: str
) -> None:
    for eight_bit, wanted in ((True, coding), (False, coding_for_seven_bits)):
        message = parse(write(Email(text=text), eight_bit=eight_bit))
        assert message["content-transfer-encoding"] == wanted
        assert text_of(message, "plain") == lines(text)


@pytest.mark.parametrize(
    ("email", "is_transparent"),
    [
        (Email(text="One.\nTwo.\n"), True),
        (Email(text=""), True),
        (Email(html="<p>one.</p>\n.", text="a"), False),
        (Email(html="<p>one.</p>\n", text="a\r\n.b"), False),
        (Email(html="<p>one.</p>\n", text="a"), True),
        (Email(text=".One"), False),
        (Email(text="One\r.Two"), False),
        (Email(text="\0 is quoted\n. is not\n" + "x" * 99), False),
        (Email(text="One", headers=[(".X", "no text of ours begins its line")]), False),
    ],
)
def test_what_is_said_to_be_transparent(email: Email, is_transparent: bool) -> None:
    assert write(email).is_transparent is is_transparent


@given(st.lists(st.sampled_from(["\r", "\n", "\r\n", " ", "\t", "=", ".", "x" * 37, "ü", "\0"])))
def test_quoted_printable_comes_back_in_short_lines(pieces: list[str]) -> None:
    data = with_crlf("".join(pieces).encode())
    coded = quoted_printable(data)
    assert binascii.a2b_qp(coded) == data
    assert max(map(len, coded.split(b"\r\n"))) <= 76
    assert not re.search(rb"[ \t](\r\n|$)", coded)


@given(st.binary(max_size=400))
def test_base64_comes_back_in_short_lines(data: bytes) -> None:
    coded = base64(data)
    assert binascii.a2b_base64(coded) == data
    assert max(map(len, coded.split(b"\r\n"))) <= 76


@given(st.lists(st.integers(0, 1100), max_size=6), st.booleans())
def test_a_long_line_is_seen(lengths: list[int], is_ended: bool) -> None:
    data = b"\r\n".join(b"x" * length for length in lengths) + b"\r\n" * is_ended
    assert has_long_line(data) == (max([0, *lengths]) > 998)


@pytest.mark.parametrize(
    ("email", "tree"),
    [
        (Email(), "text/plain"),
        (Email(text="t"), "text/plain"),
        (Email(html=HTML), "text/html"),
        (Email(text="t", html=HTML), "alternative(text/plain text/html)"),
        (Email(html=HTML, attachments=[LOGO]), "related(text/html image/png)"),
        (
            Email(text="t", html=HTML, attachments=[LOGO]),
            "alternative(text/plain related(text/html image/png))",
        ),
        (Email(text="t", attachments=[PDF]), "mixed(text/plain application/pdf)"),
        (Email(text="t", attachments=[LOGO]), "mixed(text/plain image/png)"),
        (Email(attachments=[PDF]), "mixed(application/pdf)"),
        (
            Email(text="t", html=HTML, attachments=[PDF, LOGO, PDF]),
            (
                "mixed(alternative(text/plain related(text/html image/png))"
                " application/pdf application/pdf)"
            ),
        ),
    ],
)
def test_the_tree_of_parts(email: Email, tree: str) -> None:
    message = parse(write(email))
    assert shape(message) == tree
    assert text_of(message, "html") == email.html
    assert len(files_of(message)) == len(email.attachments)


def shape(part: object) -> str:
    assert hasattr(part, "get_content_type")
    kind: str = part.get_content_type()
    if not kind.startswith("multipart/"):
        return kind
    assert hasattr(part, "iter_parts")
    return f"{kind.removeprefix('multipart/')}({' '.join(map(shape, part.iter_parts()))})"


def test_inline_and_attached_parts_say_so() -> None:
    files = list(parse(write(Email(html=HTML, attachments=[LOGO, PDF]))).walk())[-2:]
    assert [part.get_content_disposition() for part in files] == ["inline", "attachment"]
    assert files[0]["content-id"] == "<logo@x>"


def test_a_text_that_knows_the_boundary_ends_no_part() -> None:
    text = "".join(f"--=_{ID}.{level}\r\n--=_{ID}.{level}--\r\n" for level in "amr")
    email = Email(text=text, html=text, attachments=[PDF, LOGO])
    message = parse(write(email))
    assert text_of(message, "plain") == text_of(message, "html") == lines(text)
    assert len(files_of(message)) == 2


def test_a_forwarded_message_is_never_base64() -> None:
    forwarded = b"Subject: x\r\nMIME-Version: 1.0\r\n\r\nHello\r\n"
    message = parse(write(Email(text="t", attachments=[eml(forwarded)])))
    inner = list(message.walk())[-1]
    assert inner["subject"] == "x"
    assert inner.get_payload() == "Hello\r\n"


@pytest.mark.parametrize(
    "content", ["a: ü\r\n\r\n".encode(), b"x" * 999, f"--=_{ID}.m--".encode(), b"\0"]
)
def test_a_forwarded_message_that_cannot_go_as_it_is_goes_opaque(content: bytes) -> None:
    message = parse(write(Email(attachments=[eml(content)]), eight_bit=False))
    wanted = File("f.eml", content, "application/octet-stream", None)
    assert files_of(message) == [wanted]


def test_a_forwarded_message_may_be_eight_bit() -> None:
    letter = write(Email(attachments=[eml("Subject: ü\r\n\r\n".encode())]))
    assert letter.eight_bit
    assert "Subject: ü\r\n".encode() in letter.content


def eml(content: bytes) -> Attachment:
    return Attachment("f.eml", content, "message/rfc822", None)
