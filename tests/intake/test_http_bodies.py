"""Bodies: the same content however the bytes are split, and what follows is not part of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.intake.bodies import BodyError, Chunked, Sized, body_of
from geomail.intake.heads import Head

_NEXT = b"GET / HTTP/1.1\r\n"


def read(body: Sized | Chunked, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return what is content of the pieces, and what is not."""
    content = b""
    for at, piece in enumerate(pieces):
        content += body.feed(piece)
        if body.is_whole:
            return content, body.rest + b"".join(pieces[at + 1 :])
    raise AssertionError(f"not whole: {content!r}")


def halves(data: bytes) -> list[list[bytes]]:
    return [[data[:at], data[at:]] for at in range(len(data) + 1)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_a_body_of_known_length() -> None:
    for pieces in (*halves(b"hello" + _NEXT), bytewise(b"hello" + _NEXT)):
        assert read(Sized(5), pieces) == (b"hello", _NEXT)
    assert Sized(0).is_whole


@pytest.mark.parametrize(
    ("coded", "content"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhel\r\n\r\n00\r\n\r\n", b"hel\r\n"),
        (b"2;a=b\r\nhe\r\n3 \t; c\r\nllo\r\n0;x\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n0\r\nTrailer: a\r\nB: c\r\n\r\n", b"0123456789"),
        (b"0\r\n\r\n", b""),
    ],
)
def test_chunks_at_every_split(coded: bytes, content: bytes) -> None:
    for pieces in (*halves(coded + _NEXT), bytewise(coded + _NEXT)):
        assert read(Chunked(), pieces) == (content, _NEXT)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_whatever_is_sent_in_chunks_is_read(chunks: list[bytes], data: st.DataObject) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n" + _NEXT
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=6)))
    edges = [0, *cuts, len(coded)]
    pieces = [coded[start:end] for start, end in pairwise(edges)]
    assert read(Chunked(), pieces) == (b"".join(chunks), _NEXT)


@pytest.mark.parametrize(
    "coded",
    [
        b"5\nhello\n0\n\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+5\r\nhello",
        b"0x5\r\nhello",
        b"5 5\r\n",
        b"g\r\n",
        b"fffffffffffff\r\n",
        b"1" * 2000,
        b"5;" + b"a" * 2000 + b"\r\n",
        b"0\r\n" + b"A: b\r\n" * 2000,
    ],
)
def test_chunks_that_are_none(coded: bytes) -> None:
    for pieces in ([coded], bytewise(coded)):
        with pytest.raises(BodyError):
            read(Chunked(), pieces)


def test_a_request_tells_which_it_is() -> None:
    assert isinstance(body_of(Head("POST", "/", {}, None)), Chunked)
    assert isinstance(body_of(Head("POST", "/", {}, 5)), Sized)
