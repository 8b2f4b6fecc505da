"""Any e-mail at all: the standard library's parser gives back what went in."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st
from letters import (
    FIRST_SEEN_MS,
    ID,
    ONCE,
    SENDER,
    File,
    files_of,
    header_lines,
    lines,
    mailboxes,
    parse,
    text_of,
    write,
)

from geomail.job import Address, Attachment, Email
from geomail.letter import compose

ENCODED_WORD = re.compile(rb'(name=")?=\?utf-8\?[bq]\?[!-~]*\?="?')
CONTROLS = "".join(map(chr, [*range(32), 127]))
NASTY = [
    "=?utf-8?q?x?=",
    "=?",
    "?=",
    "  ",
    " ",
    '"',
    "\\",
    ",",
    "<",
    ">",
    "@",
    ";",
    "ü",
    "\U0001f600",
]
NASTY += [
    "\u05e9\u05dc\u05d5\u05dd",
    "日本語のとても長い名前",
    "x" * 80,
    "e\u0301",
    "\u200d",
    "'",
    "%",
]
BREAKS = ["\r", "\n", "\r\n", ".", "\r\n.\r\n", "\nFrom x", "=", "=20", " \n", "\t\n", "x" * 998]
BREAKS += ["ü" * 500, "\0", "\x1a", "--=_" + ID + ".a", "\x85", "\u2028", "x" * 73 + " \n"]

plain = st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS)
line_texts = st.lists(st.one_of(st.text(plain, max_size=20), st.sampled_from(NASTY))).map("".join)
any_char = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.one_of(st.text(any_char, max_size=40), st.sampled_from(BREAKS))).map("".join)
words = st.text(string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-", min_size=1)
local_parts = st.one_of(words, st.builds("{}.{}".format, words, words))
domains = st.sampled_from(
    ["example.org", "xn--bcher-kva.example", "a.b.example.com", "[192.0.2.1]"]
)
addrs = st.builds("{}@{}".format, local_parts, domains)
addresses = st.builds(Address, addrs, line_texts)
address_lists = st.lists(addresses, max_size=4)
header_names = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=40)
headers = st.lists(st.tuples(header_names.map("X-".__add__), line_texts), max_size=3)
cids = st.one_of(st.none(), st.text(string.ascii_letters + string.digits + "@.", min_size=1))
types = st.sampled_from(["application/pdf", "image/png", "text/plain", "text/csv; charset=utf-8"])
attachments = st.builds(
    Attachment, st.one_of(st.none(), line_texts), st.binary(max_size=300), types, cids
)
emails = st.builds(
    Email,
    to=address_lists,
    cc=address_lists,
    bcc=address_lists,
    reply_to=address_lists,
    sender=st.one_of(st.none(), addresses),
    subject=line_texts,
    text=st.one_of(st.none(), texts),
    html=st.one_of(st.none(), texts),
    headers=headers,
    attachments=st.lists(attachments, max_size=3),
    recipients=st.lists(addrs, min_size=1, max_size=3),
)


@given(emails, st.booleans())
def test_what_goes_in_comes_out(email: Email, eight_bit: bool) -> None:
    letter = write(email, eight_bit=eight_bit)
    message = parse(letter)
    assert str(message["subject"]) == email.subject
    assert mailboxes(letter, "from") == pairs([email.sender or SENDER])
    assert mailboxes(letter, "to") == pairs(email.to) or not email.to
    assert mailboxes(letter, "cc") == pairs(email.cc)
    assert mailboxes(letter, "reply-to") == pairs(email.reply_to)
    text, html = text_of(message, "plain"), text_of(message, "html")
    is_bare = email.text is email.html is None and not email.attachments
    assert text == ("" if is_bare else None if email.text is None else lines(email.text))
    assert html == (None if email.html is None else lines(email.html))
    assert sorted(files_of(message), key=repr) == sorted(files_in(email), key=repr)


@given(emails, st.booleans())
def test_every_header_is_sound(email: Email, eight_bit: bool) -> None:
    letter = write(email, eight_bit=eight_bit)
    found = header_lines(letter)
    names = [line.partition(b":")[0].lower().decode() for line in found if line[:1] != b" "]
    assert [name for name in ONCE if names.count(name) != 1] == []
    assert "bcc" not in names
    assert all(line.isascii() and line.decode().isprintable() for line in found)
    assert all(line.strip() for line in found)
    coded = [line for line in found if any(map(ENCODED_WORD.fullmatch, line.split()))]
    assert all(len(line) <= 76 for line in coded)


@given(emails, st.booleans())
def test_a_retry_and_a_part_have_the_same_octets(email: Email, eight_bit: bool) -> None:
    first = write(email, eight_bit=eight_bit)
    assert write(email, eight_bit=eight_bit) == first
    assert write(email, eight_bit=eight_bit, id=f"{ID}/3").content == first.content


@given(emails)
def test_the_envelope_is_the_recipients(email: Email) -> None:
    letter = write(email)
    assert letter.recipients == tuple(email.recipients)
    assert letter.mail_from == (email.sender or SENDER).addr
    part = compose(
        email,
        id=f"{ID}/1",
        first_seen_ms=FIRST_SEEN_MS,
        sender=SENDER,
        eight_bit=True,
        recipients=email.recipients[:1],
    )
    assert part.recipients == tuple(email.recipients[:1])
    assert part.content == letter.content


def pairs(addresses: list[Address]) -> list[tuple[str, str]]:
    return [(address.name, address.addr) for address in addresses]


def files_in(email: Email) -> list[File]:
    return [
        File(file.filename, file.content, file.type.partition(";")[0], file.cid)
        for file in email.attachments
    ]
