"""Fields, one nasty text at a time: what a reader sees, and what is on the wire."""

import re

import pytest
from letters import header_lines, mailboxes, parse, write

from geomail.errors import PayloadError
from geomail.job import Address, Attachment, Email
from geomail.letter import compose
from geomail.letter.date import date
from geomail.letter.header import brought, encoded_words, field, subject

ANN = Address("ann@example.org")
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
TEXTS = [
    "",
    " ",
    "   leading and trailing   ",
    "tab\there",
    "two  spaces",
    "word " * 60,
    "w" * 70,
    "w" * 500,
    "w" * 30 + " " + "v" * 500 + " u",
    "a" * 67,
    "a" * 68,
    "a  b " * 40,
    " " * 200,
    "x" * 66 + "  " + "y" * 20,
    "=?utf-8?q?x?=",
    "a =?utf-8?b?eA==?= b",
    "=?=?=?",
    "Grüße aus Köln",
    "ü" * 300,
    "日本語" * 100,
    *("x" * length + "\U0001f600" * 40 for length in range(8)),
    FAMILY * 20,
    "\u05e9\u05dc\u05d5\u05dd \u0639\u0631\u0628\u0649 left",
    "\u202eright to left override",
    'quotes " and \\ and , and ; and <a@b>',
    "100 % = _underscore_ ? *",
    "e\u0301" * 60,
    "\x85\u2028\u00a0\ufeff",
    "From here: x",
    ".",
    "Bcc: x@example.org",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_subject_comes_back_literally(text: str) -> None:
    letter = write(Email(to=[ANN], subject=text, recipients=[ANN.addr]))
    assert str(parse(letter)["subject"]) == text
    assert all(len(line) <= 76 for line in header_lines(letter))


@pytest.mark.parametrize("text", TEXTS)
def test_a_name_comes_back_literally(text: str) -> None:
    people = [Address("a@example.org", text), Address("b@example.org", text), ANN]
    letter = write(Email(to=people, reply_to=people, sender=people[0], recipients=[ANN.addr]))
    wanted = [(person.name, person.addr) for person in people]
    assert mailboxes(letter, "to") == mailboxes(letter, "reply-to") == wanted
    assert mailboxes(letter, "from") == wanted[:1]
    assert all(len(line) <= 76 for line in header_lines(letter))


@pytest.mark.parametrize("text", [text for text in TEXTS if "\t" not in text])
def test_a_file_name_comes_back_literally(text: str) -> None:
    letter = write(Email(attachments=[Attachment(text, b"x", "image/png", None)]))
    part = next(iter(parse(letter).iter_attachments()))
    assert part["content-disposition"].params["filename"] == text


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip()])
def test_an_own_header_comes_back(text: str) -> None:
    letter = write(Email(headers=[("X-Own", text)]))
    message = parse(letter)
    if "=?" in text:
        assert f"X-Own: {text}".encode() in letter.content
    elif text.isascii():
        assert str(message["x-own"]) == text.replace("\t", " ").strip(" ")
    else:
        assert str(message["x-own"]) == text


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Ann", "Ann <a@x.org>"),
        ("Ann Lee", "Ann Lee <a@x.org>"),
        ("Dr. Lee", '"Dr. Lee" <a@x.org>'),
        ("Lee, Ann", '"Lee, Ann" <a@x.org>'),
        ('Ann "A" \\ Lee', '"Ann \\"A\\" \\\\ Lee" <a@x.org>'),
        ("ann@x.org", '"ann@x.org" <a@x.org>'),
        ("Jörg", "=?utf-8?b?SsO2cmc=?= <a@x.org>"),
        ("Jörg Anderson", "=?utf-8?q?J=C3=B6rg_Anderson?= <a@x.org>"),
        ("日本", "=?utf-8?b?5pel5pys?= <a@x.org>"),
    ],
)
def test_a_name_takes_its_shortest_form(name: str, wanted: str) -> None:
    letter = write(Email(to=[Address("a@x.org", name)]))
    assert f"To: {wanted}".encode() in header_lines(letter)


def test_words_are_short_and_end_with_a_character() -> None:
    for text in ("ü" * 200, "\U0001f600" * 99, "日本" * 99, "ab\U0001f600ü" * 50):
        for first in range(24, 76):
            words = encoded_words(text, first)
            assert len(words[0]) <= first
            assert max(map(len, words)) <= 75
            for word in words:
                assert re.fullmatch(r"=\?utf-8\?[bq]\?[!->@-~]+\?=", word)


def test_a_thousand_recipients_are_folded() -> None:
    people = [Address(f"person{n}@example.org", f"Person {n}") for n in range(1000)]
    letter = write(Email(to=people, recipients=[person.addr for person in people]))
    assert mailboxes(letter, "to") == [(person.name, person.addr) for person in people]
    assert all(len(line) <= 76 for line in header_lines(letter))
    assert len(letter.recipients) == 1000


def test_nobody_is_said() -> None:
    letter = write(Email(bcc=[ANN], recipients=[ANN.addr]))
    assert b"To: undisclosed-recipients:;" in header_lines(letter)
    assert b"ann@example.org" not in letter.content
    assert letter.recipients == ("ann@example.org",)


def test_structured_headers_keep_their_words() -> None:
    url = "<https://example.org/" + "x" * 300 + ">"
    references = " ".join(f"<{n}.{'y' * 30}@example.org>" for n in range(40))
    letter = write(Email(headers=[("List-Unsubscribe", url), ("References", references)]))
    assert f"List-Unsubscribe: {url}".encode() in header_lines(letter)
    assert str(parse(letter)["references"]) == references


def test_own_message_id_and_date_stand_in() -> None:
    own = [("message-id", "<own@example.org>"), ("DATE", "Mon, 1 Jan 2024 00:00:00 +0100")]
    letter = write(Email(headers=[*own, ("X-Tag", "a"), ("X-Tag", "b")]))
    message = parse(letter)
    assert message.get_all("message-id") == ["<own@example.org>"]
    assert message.get_all("date") == ["Mon, 01 Jan 2024 00:00:00 +0100"]
    assert message.get_all("x-tag") == ["a", "b"]


def test_message_id_and_date_follow_from_the_job() -> None:
    message = parse(write(Email(sender=Address("a@bücher.example"))))
    assert message["message-id"] == "<0123456789abcdef.17.3@xn--bcher-kva.example>"
    assert message["date"] == "Fri, 20 Nov 2026 10:00:00 +0000"


@pytest.mark.parametrize(
    ("epoch_s", "wanted"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
        (1_709_164_799, "Wed, 28 Feb 2024 23:59:59 +0000"),
        (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 +0000"),
    ],
)
def test_dates(epoch_s: int, wanted: str) -> None:
    assert date(epoch_s) == wanted


@pytest.mark.parametrize("control", ["\r\nBcc: x@y.z", "\n x", "\r", "\0", "\x1b", "\x7f"])
@pytest.mark.parametrize("place", ["to", "name", "subject", "header", "filename", "type", "cid"])
def test_no_control_character_reaches_a_header(place: str, control: str) -> None:
    text = f"a{control}"
    file = {"filename": "f", "type": "image/png", "cid": "c"} | {place: text}
    email = Email(
        to=[Address(text + "@x.org" if place == "to" else "a@x.org", text * (place == "name"))],
        subject=text if place == "subject" else "",
        headers=[("X-A", text)] if place == "header" else [],
        html="",
        attachments=[Attachment(file["filename"], b"", file["type"], file["cid"])],
    )
    with pytest.raises(PayloadError, match="control character"):
        write(email)
    with pytest.raises(PayloadError, match="control character"):
        write(Email(to=[Address("a@x.org", f"ü{control}")], subject=f"ü{control}"))


def test_a_surrogate_is_refused() -> None:
    for email in (Email(text="\ud800"), Email(subject="\ud800"), Email(recipients=["\ud800@x.y"])):
        with pytest.raises(PayloadError):
            write(email)


def test_a_word_that_no_line_holds_is_refused() -> None:
    for name, tokens in (("X-A", brought("X-A", "a" * 998)), ("Subject", ["x", "ü" * 500])):
        with pytest.raises(PayloadError, match="no line can hold"):
            field(name, tokens)
    assert max(map(len, subject("x" * 5000))) <= 75


def test_an_id_that_is_none_is_our_own_mistake() -> None:
    for wrong in ("", "a b", "a..b", "/1", "x" * 65, "a\r\nb"):
        with pytest.raises(ValueError, match="Message-ID"):
            compose(Email(), id=wrong, first_seen_ms=0, sender=ANN, eight_bit=True)
