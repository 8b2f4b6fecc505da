"""Stuffing is undone by unstuffing, and no content of any kind ends a message early."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import ProtocolError
from geomail.smtp.data import end_of_data, has_bare_newline, stuff, unstuff, unstuff_lines

SMUGGLED = [
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n\r.\r\n",
    b"\r\n.\r\n",
    b"\r\n.\r\r\n",
    b"\n\n.\r\n",
    b"\0\n.\r\n",
]
LENIENT_END = re.compile(rb"(?:^|\r|\n)\.(?=\r|\n)")
pieces = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\0", b"\xc3\xa9", *SMUGGLED])
contents = st.lists(pieces, max_size=30).map(b"".join)
lines = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.", b"b b"]), max_size=12)
canonical = lines.map(lambda each: b"".join(line + b"\r\n" for line in each))


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"..\r\n", b"...\r\n.\r\n"),
        (b"a\r\n.b\r\n.\r\nc.\r\n", b"a\r\n..b\r\n..\r\nc.\r\n.\r\n"),
        (b"a\nb\rc", b"a\r\nb\r\nc\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
    ],
)
def test_stuff(content: bytes, wire: bytes) -> None:
    assert stuff(content) == wire


@given(canonical)
def test_unstuff_undoes_stuff(content: bytes) -> None:
    assert unstuff(stuff(content)) == content


@given(contents)
def test_nothing_ends_the_data_early(content: bytes) -> None:
    wire = stuff(content)
    assert [match.end() for match in LENIENT_END.finditer(wire)] == [len(wire) - 2]
    assert end_of_data(wire) == len(wire)
    assert not has_bare_newline(wire)


@pytest.mark.parametrize("smuggled", SMUGGLED)
def test_known_smuggling_is_defused(smuggled: bytes) -> None:
    wire = stuff(b"Subject: a\r\n\r\nb" + smuggled + b"MAIL FROM:<evil@example.org>\r\n")
    assert [match.end() for match in LENIENT_END.finditer(wire)] == [len(wire) - 2]


@pytest.mark.parametrize("smuggled", SMUGGLED)
def test_only_the_real_end_is_found(smuggled: bytes) -> None:
    wire = b"b" + smuggled + b"c\r\n.\r\n"
    expected = len(b"b" + smuggled) if b"\r\n.\r\n" in smuggled else len(wire)
    assert end_of_data(wire) == expected


@given(contents)
def test_content_is_refused_unless_every_line_end_is_crlf(content: bytes) -> None:
    rest = content.replace(b"\r\n", b"")
    assert has_bare_newline(content) == (b"\r" in rest or b"\n" in rest)


@given(canonical, st.binary(max_size=9), st.data())
def test_the_end_is_found_at_every_split(content: bytes, after: bytes, data: st.DataObject) -> None:
    wire = stuff(content)
    whole = wire + after
    split = data.draw(st.integers(0, len(whole)))
    first = end_of_data(whole[:split])
    assert first == (len(wire) if split >= len(wire) else -1)
    assert first >= 0 or end_of_data(whole, resume=split) == len(wire)


def test_the_search_begins_at_the_content() -> None:
    wire = b"DATA\r\n.\r\nMAIL"
    assert end_of_data(wire, 6) == 9
    assert end_of_data(b"DATA\r\nabc\r\n.\r\n", 6) == 14
    assert end_of_data(b"DATA\r\nabc", 6) == -1


@pytest.mark.parametrize("wire", [b"", b"a\r\n", b"a\r\n.\r\nb", b".\r\n.\r\n"])
def test_unstuff_refuses_what_does_not_end_at_its_end(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        unstuff(wire)


def test_unstuff_removes_one_dot_of_every_line() -> None:
    assert unstuff_lines(b".a\r\n..b\r\n.c\r\n") == b"a\r\n.b\r\nc\r\n"
