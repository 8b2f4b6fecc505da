"""Responses as bytes: every framing at every split, and what is no response."""

import time
from contextlib import suppress

import pytest
from hypothesis import given, strategies

from geomail.carriers.request import Request
from geomail.carriers.response import Response, conversation
from geomail.carriers.target import target_of
from geomail.errors import ProtocolError

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_TO_COME = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

# bytes, is it the answer to HEAD, status, bytes of the body (None: by the split), is it kept
_WHOLE = [
    (_OK + b"Content-Length: 5\r\n\r\nhello", False, 200, 5, True),
    (_OK + b"Content-Length: 0\r\n\r\n", False, 200, 0, True),
    (_OK + b"content-length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", False, 200, 5, True),
    (_OK + b"Content-Length: 5\r\n\r\n", True, 200, 0, True),
    (_OK + b"Transfer-Encoding: chunked\r\n\r\n", True, 200, 0, True),
    (_OK + b"Transfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n",
     False, 200, 25, True),
    (_OK + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n",
     False, 200, 21, True),
    (_OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
     False, 200, 5, False),
    (_OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", False, 200, None, False),
    (_OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", False, 200, 4, False),
    (_OK + b"Transfer-Encoding: chunked\r\n\r\n5g\r\n", False, 200, 4, False),
    (_OK + b"Connection: Close\r\nContent-Length: 2\r\n\r\nhi", False, 200, 2, False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", False, 200, 2, False),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
     False, 200, 2, False),
    (b"HTTP/1.1 204\r\n\r\n", False, 204, 0, True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, 304, 0, True),
    (b"HTTP/1.1 500 \xe9\x07\r\nContent-Length:2\n\nhi", False, 500, 2, True),
    (_TO_COME + b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx", False, 404, 1, True),
]  # fmt: skip


def _response(*, is_for_head: bool = False, most_body: int = 1000) -> Response:
    """Return one whose request has been sent."""
    http = conversation()
    target = target_of("http://a.example/")
    Request("HEAD" if is_for_head else "GET", target).written(http)
    return Response(http, most_body=most_body)


def _fed(pieces: list[bytes], *, is_for_head: bool = False) -> Response:
    response = _response(is_for_head=is_for_head)
    for piece in pieces:
        if not response.is_done:
            response.feed(piece)
    return response


@pytest.mark.parametrize(("wire", "is_for_head", "status", "size", "is_kept"), _WHOLE)
def test_reads_at_every_split(
    wire: bytes, is_for_head: bool, status: int, size: int | None, is_kept: bool
) -> None:
    byte_by_byte = [wire[at : at + 1] for at in range(len(wire))]
    splits = [[wire[:at], wire[at:]] for at in range(1, len(wire))]
    for pieces in ([wire], byte_by_byte, *splits):
        response = _fed(pieces, is_for_head=is_for_head)
        assert response.is_done
        assert (response.status, response.is_kept_open) == (status, is_kept)
        assert size in (None, response.body_bytes)


@pytest.mark.parametrize("wire", [row[0] for row in _WHOLE if row[4] and not row[1]])
def test_what_nobody_asked_for_ends_the_connection(wire: bytes) -> None:
    response = _fed([wire + b"HTTP/1.1 200 OK\r\n\r\n"])
    assert response.is_done
    assert not response.is_kept_open


@pytest.mark.parametrize(("wire", "is_for_head", "status", "size", "is_kept"), _WHOLE)
def test_ends_at_every_byte(
    wire: bytes, is_for_head: bool, status: int, size: int | None, is_kept: bool
) -> None:
    for at in range(len(wire)):
        response = _response(is_for_head=is_for_head)
        if at:
            response.feed(wire[:at])
        if response.status:
            response.feed(b"")
            assert response.is_done
            assert response.status == status
            assert not response.is_kept_open
        else:
            with pytest.raises(ProtocolError, match="the connection ended" if at else "closed"):
                response.feed(b"")


def test_body_without_a_length_ends_with_the_connection() -> None:
    response = _fed([_OK + b"\r\nhe", b"llo", b""])
    assert (response.is_done, response.body_bytes, response.is_kept_open) == (True, 5, False)


@pytest.mark.parametrize(
    "wire",
    [
        *(b"SSH-2.0-OpenSSH\r\n", b"220 mail ESMTP\r\n", b"HTTP/2 200\r\n\r\n", b"\r", b"<"),
        *(b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 000 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n"),
        *(b"http/1.1 200 OK\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n"),
        *(_OK + b"Content-Length: 5, 6\r\n\r\n", _OK + b"Content-Length: -5\r\n\r\n"),
        *(_OK + b"Transfer-Encoding: gzip\r\n\r\n", _OK + b"X : secret\r\n\r\n"),
    ],
)  # fmt: skip
def test_what_is_no_response_is_refused(wire: bytes) -> None:
    response = _response()
    with pytest.raises(ProtocolError, match=r"no HTTP/1\.1: [^:]+(: chunked is supported)?\Z"):
        response.feed(wire)
    assert response.status == 0


@pytest.mark.parametrize("piece", [b"X: y\r\n", b"a" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_endless_heads_are_left(piece: bytes) -> None:
    response = _response()
    if not piece.startswith(b"HTTP"):
        response.feed(_OK)
    fed = 0
    with pytest.raises(ProtocolError, match="64 kB"):  # noqa: PT012
        while fed < 1_000_000:
            fed += len(piece)
            response.feed(piece)
    assert fed < 67_000


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Content-Length: 1000000000000\r\n", b"x" * 100),
        (b"", b"x" * 100),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"5;" + b"x" * 50),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\nX: y\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"FFFFFFFFFF\r\n" + b"x" * 100),
    ],
)
def test_endless_bodies_are_cut(head: bytes, piece: bytes) -> None:
    response = _response(most_body=10_000)
    response.feed(_OK + head + b"\r\n")
    fed = 0
    while not response.is_done:
        response.feed(piece)
        fed += len(piece)
    assert fed <= 11_000
    assert response.status == 200
    assert not response.is_kept_open


@pytest.mark.parametrize("pieces", [1, 64])
@pytest.mark.parametrize(
    ("start", "blank", "end"),
    [
        (_OK + b"X:", b" ", b"\0\r\n\r\n"),
        (_OK + b"X:", b"\n ", b"\0\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"X:", b"\t", b"\0\r\n\r\n"),
        (_OK + _CHUNKED + b"1;", b" ", b"\n\r\n"),
        (_OK + _CHUNKED + b"0\r\nX:", b"\r\n ", b"\0\r\n\r\n"),
    ],
)
def test_white_space_costs_no_time(start: bytes, blank: bytes, end: bytes, pieces: int) -> None:
    wire = start + blank * (60_000 // len(blank)) + end
    size = len(wire) // pieces + 1
    began_s = time.process_time()
    with suppress(ProtocolError):
        response = _fed([wire[at : at + size] for at in range(0, len(wire), size)])
        assert response.status == 200
        assert not response.is_kept_open
    assert time.process_time() - began_s < 0.5


@pytest.mark.parametrize("head", [b"\r\n", b"Content-Length: 5000\r\n\r\n"])
def test_white_space_in_a_body_changes_nothing(head: bytes) -> None:
    response = _fed([_OK + head + b"\n" * 5000, b""])
    assert (response.is_done, response.status, response.is_kept_open) == (True, 200, False)


def test_folded_and_repeated_fields_are_read() -> None:
    response = _fed(
        [_OK + b"Location: /a\r\n\tb\r\nConnection: x\r\nConnection: close\r\n\r\n", b""]
    )
    assert response.field("location") == "/a b"
    assert response.field("retry-after") is None
    assert not response.is_kept_open


_WORDS = (
    *(_OK, b"HTTP/1.0 500 X\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"Connection: close\r\n"),
    *(b"Content-Length: ", b"9" * 20, b"5", b",", b":", b";", b" ", b"\r\n", b"\n", b"\0", b"\xff"),
    *(b"Transfer-Encoding: chunked\r\n", b"F" * 20 + b"\r\n", b"5\r\nhello\r\n", b"0\r\n"),
)  # fmt: skip
_PIECE = strategies.binary(min_size=1, max_size=40) | strategies.sampled_from(_WORDS)


@given(strategies.lists(_PIECE))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    for start in (b"", _OK + b"\r\n", _OK + _CHUNKED, b"HTTP/1.1 "):
        response = _response(most_body=50)
        try:
            for piece in [*([start] if start else []), *pieces, b""]:
                if not response.is_done:
                    response.feed(piece)
        except ProtocolError:
            assert response.status == 0
        else:
            assert response.is_done
