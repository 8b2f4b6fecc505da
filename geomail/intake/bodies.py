"""The body of an HTTP/1.1 request (RFC 9112, 6 and 7): what belongs to it of the bytes that come.

    body = body_of(head)
    while not body.is_whole:
        content = body.feed(bytes of any number)
    body.rest                   what came behind it: the next request

Of a chunk as little is held as of a body of known length: nothing, but for the line that says its
size. Extensions are let pass and mean nothing, trailers likewise. Promised: the same content
however the bytes are split, in time that grows with their number. A size that is no hexadecimal
number, or a chunk without its line end, raises BodyError: nobody knows then where the next request
begins.
"""

import re

from geomail.errors import ProtocolError
from geomail.intake.heads import Head

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_MAX_LINE = 1024
_READ_AHEAD = 64 * 1024
_MAX_TRAILERS = 8192


class BodyError(ProtocolError):
    """The chunks of a body can't be told apart."""


class Sized:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.rest = b""

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self.left == 0

    def wants(self, most: int) -> int:
        """Return how many bytes to read next, so that nothing is held of what comes behind."""
        return min(self.left, most)

    def feed(self, data: bytes) -> bytes:
        """Return what of `data` is content."""
        if len(data) > self.left:
            self.rest = data[self.left :]
            data = data[: self.left]
        self.left -= len(data)
        return data


class Chunked:
    """A body in chunks, whose length is known at its end."""

    def __init__(self) -> None:
        self.is_whole = False
        self.rest = b""
        self._line = b""  # begun
        self._left = 0  # of a chunk
        self._step = self._size
        self._trailers = 0

    def wants(self, most: int) -> int:
        """Return how many bytes to read next: chunks are often a line each."""
        return min(max(self._left, _READ_AHEAD), most)

    def feed(self, data: bytes) -> bytes:
        """Return what of `data` is content; raises BodyError."""
        found: list[bytes] = []
        at = 0
        while at < len(data) and not self.is_whole:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                found.append(piece)
            else:
                at = self._take_line(data, at)
        self.rest = data[at:]
        return found[0] if len(found) == 1 else b"".join(found)

    def _take_line(self, data: bytes, at: int) -> int:
        """Take a line that is no content, or what there is of it; return where it ends."""
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or at + _MAX_LINE + 1]
        if len(self._line) > _MAX_LINE:
            raise BodyError(f"a line of at most {_MAX_LINE:,} bytes expected between chunks")
        if not end:
            return len(data)
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise BodyError("CRLF expected at the end of a line between chunks")
        self._step(line[:-2])
        return end

    def _size(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise BodyError(f"the size of a chunk expected, not {line[:20]!r}")
        self._left = int(size[1], 16)
        self._step = self._end_of_chunk if self._left else self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line:
            raise BodyError("CRLF expected behind a chunk")
        self._step = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line) + 2
        if self._trailers > _MAX_TRAILERS:
            raise BodyError(f"at most {_MAX_TRAILERS:,} bytes of trailers expected")
        self.is_whole = not line


Body = Sized | Chunked


def body_of(head: Head) -> Body:
    """Return what reads the body of a request."""
    return Chunked() if head.length is None else Sized(head.length)
