"""Replies read the same however the bytes are cut, and what can't be one is never taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import ProtocolError
from geomail.smtp.reply import ENOUGH, LINE_LIMIT, LINES_LIMIT, REPLY_LIMIT, Reply, ReplyReader

Read = tuple[
    list[Reply], bool, bool
]  # the replies, whether an error ended them, whether nothing is left

CASES = [
    (b"250 ok\r\n", [Reply(250, None, ("ok",))]),
    (b"250\r\n", [Reply(250, None, ("",))]),
    (b"250 \r\n", [Reply(250, None, ("",))]),
    (b"250 ok\n", [Reply(250, None, ("ok",))]),
    (b"250\n", [Reply(250, None, ("",))]),
    (b"250-a\n250-b\r\n250 c\n", [Reply(250, None, ("a", "b", "c"))]),
    (b"250-a\r\n250\r\n", [Reply(250, None, ("a", ""))]),
    (b"250-\r\n250 \r\n", [Reply(250, None, ("", ""))]),
    (b"250  two spaces \r\n", [Reply(250, None, (" two spaces ",))]),
    (b"250 2.1.5 ok\r\n", [Reply(250, "2.1.5", ("2.1.5 ok",))]),
    (b"550 5.7.1\r\n", [Reply(550, "5.7.1", ("5.7.1",))]),
    (b"550 5.7.1234 no\r\n", [Reply(550, None, ("5.7.1234 no",))]),
    (b"550 5.7.1x\r\n", [Reply(550, None, ("5.7.1x",))]),
    (b"550 3.7.1 no\r\n", [Reply(550, None, ("3.7.1 no",))]),
    (b"554-5.7.1 a\r\n554 5.7.1 b\r\n", [Reply(554, "5.7.1", ("5.7.1 a", "5.7.1 b"))]),
    (b"250 a\r\n354 b\r\n", [Reply(250, None, ("a",)), Reply(354, None, ("b",))]),
    (b"250 a\r\n250-b\r\n250 c\r\n", [Reply(250, None, ("a",)), Reply(250, None, ("b", "c"))]),
    ("250 größe\r\n".encode(), [Reply(250, None, ("größe",))]),
    (b"250 gr\xf6\xdfe\r\n", [Reply(250, None, ("gr\\xf6\\xdfe",))]),
    (b"250 \x00\x1b[31m\x7f\r\n", [Reply(250, None, ("\x00\x1b[31m\x7f",))]),
    (b"559 a\r\n", [Reply(559, None, ("a",))]),
    (b"250 " + b"a" * (LINE_LIMIT - 6) + b"\r\n", [Reply(250, None, ("a" * (LINE_LIMIT - 6),))]),
    (
        b"250-a\r\n" * (LINES_LIMIT - 1) + b"250 b\r\n",
        [Reply(250, None, ("a",) * (LINES_LIMIT - 1) + ("b",))],
    ),
]

NO_REPLIES = [
    b"\r\n",
    b"\n",
    b" 250 ok\r\n",
    b"25 ok\r\n",
    b"2500 ok\r\n",
    b"250ok\r\n",
    b"250\tok\r\n",
    b"150 ok\r\n",
    b"650 ok\r\n",
    b"260 ok\r\n",
    b"000 ok\r\n",
    b"abc ok\r\n",
    "\u0662\u0665\u0660 ok\r\n".encode(),
    b"Hello, this is no reply.\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"250-a\r\n550 b\r\n",
    b"250-a\r\n250-b\r\n251 c\r\n",
    b"250-a\r\nb\r\n",
    b"\x15\x03\x01\x00\x02\x02\x0a",
    b"250 " + b"a" * (LINE_LIMIT - 5) + b"\r\n",
    b"250-a\r\n" * LINES_LIMIT + b"250 b\r\n",
    (b"250-" + b"a" * 4000 + b"\r\n") * (REPLY_LIMIT // 4000 + 1),
]

texts = st.sampled_from(
    [b"", b"ok", b"2.1.0 ok", b"5.7.1", b"\xff", "ü".encode(), b"a b", b"-", b" "]
)
codes = st.sampled_from([b"220", b"250", b"354", b"421", b"550"])
ends = st.sampled_from([b"\r\n", b"\n"])


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Make one reply of one or more lines."""
    code, lines = draw(codes), draw(st.lists(st.tuples(texts, ends), min_size=1, max_size=4))
    head = b"".join(code + b"-" + text + end for text, end in lines[:-1])
    text, end = lines[-1]
    return head + code + (b" " + text if text else b"") + end


pieces = st.one_of(replies(), replies(), replies(), st.sampled_from(NO_REPLIES[:19]))
streams = st.lists(pieces, max_size=6).map(b"".join)


def read(chunks: list[bytes]) -> Read:
    """Feed the chunks to a new reader up to the first error; keep what came before it."""
    reader, found = ReplyReader(), list[Reply]()
    for chunk in chunks:
        try:
            found.extend(reader.feed(chunk))
        except ProtocolError:
            return found, True, False
    return found, False, reader.is_empty


@pytest.mark.parametrize(("wire", "expected"), CASES)
def test_replies_are_read(wire: bytes, expected: list[Reply]) -> None:
    assert read([wire]) == (expected, False, True)


@pytest.mark.parametrize(("wire", "expected"), CASES)
def test_replies_are_read_byte_by_byte(wire: bytes, expected: list[Reply]) -> None:
    assert read([bytes([byte]) for byte in wire]) == (expected, False, True)


@pytest.mark.parametrize("wire", [wire for wire, _ in CASES if len(wire) < 100])
def test_replies_are_read_at_every_split(wire: bytes) -> None:
    for cut in range(len(wire)):
        assert read([wire[:cut], wire[cut:]]) == read([wire])


@pytest.mark.parametrize("wire", NO_REPLIES)
def test_what_is_no_reply_is_an_error(wire: bytes) -> None:
    garbled = wire if b"\n" in wire else wire + b"\n"
    assert read([garbled])[1]
    assert read([bytes([byte]) for byte in garbled])[1]


@given(streams, st.data())
def test_a_stream_reads_the_same_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    assert read(chunks) == read([stream])
    assert read([bytes([byte]) for byte in stream]) == read([stream])


def test_replies_before_an_error_in_the_same_block_count() -> None:
    found, is_error, _ = read([b"250 2.0.0 queued\r\nHello, this is no reply.\r\n"])
    assert (found, is_error) == ([Reply(250, "2.0.0", ("2.0.0 queued",))], True)


@pytest.mark.parametrize("rest", [b"2", b"250", b"250-a\r\n", b"250-a\r\n2", b"\r", b" "])
def test_half_a_reply_is_not_nothing(rest: bytes) -> None:
    reader = ReplyReader()
    assert len(list(reader.feed(b"220 go ahead\r\n" + rest))) == 1
    assert not reader.is_empty


def test_an_endless_line_is_an_error_before_it_ends() -> None:
    reader = ReplyReader()
    assert list(reader.feed(b"2" * LINE_LIMIT)) == []
    with pytest.raises(ProtocolError, match="more than 4096 bytes"):
        list(reader.feed(b"2"))


def test_an_endless_reply_is_an_error_before_it_ends() -> None:
    reader = ReplyReader()
    assert list(reader.feed(b"250-a\r\n" * LINES_LIMIT)) == []
    with pytest.raises(ProtocolError, match="128 lines"):
        list(reader.feed(b"250-a\r\n"))


def test_a_server_that_never_says_the_same_twice_costs_no_memory() -> None:
    reader = ReplyReader()
    for number in range(1000):
        assert [reply.lines for reply in reader.feed(b"250 queued as %d\r\n" % number)] == [
            (f"queued as {number}",)
        ]
    assert len(reader._seen) <= 64


# ---- what is read and not kept


@pytest.mark.parametrize(
    ("wire", "lines"),
    [
        (b"250 " + b"a" * 4000 + b"\r\n", ("a" * ENOUGH,)),
        (b"250-" + b"a" * 4000 + b"\r\n250 b\r\n", ("a" * ENOUGH,)),
        (b"250-a\r\n250 " + b"b" * 4000 + b"\r\n", ("a", "b" * (ENOUGH - 7))),
        (b"250-5.1.1 a\r\n" * 16 + b"250 b\r\n", ("5.1.1 a",) * 16 + ("b",)),
        (b"250-" + b"a" * 506 + b"\r\n250 b\r\n", ("a" * 506, "b")),
        ((b"250-" + b"a" * 506 + b"\r\n") * 127 + b"250 b\r\n", ("a" * 506,) * 4),
        (b"250 " + b"\xff" * 4000 + b"\r\n", ("\\xff" * ENOUGH,)),
        (
            b"250 a" + "\U0001f4e7".encode() * 900 + b"\r\n",
            ("a" + "\U0001f4e7" * 511 + "\\xf0\\x9f\\x93",),
        ),
    ],
)
def test_no_more_of_a_reply_is_kept_than_is_wanted(wire: bytes, lines: tuple[str, ...]) -> None:
    for size in (len(wire), 1):
        reader = ReplyReader(most_kept=ENOUGH)
        blocks = [wire[at : at + size] for at in range(0, len(wire), size)]
        found = [reply for block in blocks for reply in reader.feed(block)]
        assert [reply.lines for reply in found] == [lines]
        assert reader.is_empty
        assert [reply.lines for reply in reader.feed(b"250-c\r\n250 d\r\n")] == [("c", "d")]


@pytest.mark.parametrize("wire", NO_REPLIES)
def test_what_is_not_kept_is_checked_all_the_same(wire: bytes) -> None:
    reader = ReplyReader(most_kept=1)
    with pytest.raises(ProtocolError):
        list(reader.feed(wire if b"\n" in wire else wire + b"\n"))


def test_long_lines_are_not_remembered() -> None:
    reader = ReplyReader(most_kept=ENOUGH)
    for number in range(64):
        list(reader.feed(b"250 %04d" % number + b"a" * 4000 + b"\r\n"))
    assert sum(map(len, reader._seen)) == 0


def test_an_error_shows_what_came_and_not_too_much_of_it() -> None:
    with pytest.raises(ProtocolError) as caught:
        list(ReplyReader().feed(b"\xff\x00" + b"x" * 4000 + b"\r\n"))
    assert "\\xff" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (200, (True, False, False, False)),
        (251, (True, False, False, False)),
        (299, (True, False, False, False)),
        (354, (False, True, False, False)),
        (421, (False, False, True, False)),
        (452, (False, False, True, False)),
        (500, (False, False, False, True)),
        (599, (False, False, False, True)),
    ],
)
def test_the_first_digit_decides(code: int, kinds: tuple[bool, ...]) -> None:
    reply = Reply(code, None, ("",))
    found = (reply.is_positive, reply.is_intermediate, reply.is_transient, reply.is_permanent)
    assert found == kinds


def test_a_reply_is_shown_in_one_line() -> None:
    assert str(Reply(554, "5.7.1", ("5.7.1 no", "5.7.1 never"))) == "554 5.7.1 no 5.7.1 never"
    assert str(Reply(250, None, ("",))) == "250"
