"""Content that comes by BDAT (RFC 3030): octets that are counted, not lines that are looked at.

A chunk's size is said before its octets, and they are sent whatever the answer will be. So a reader
has to take them from the stream even when it refuses them, else they are read as commands; and when
it can't tell how many there are, nothing that follows can be trusted.

`ChunkReader` joins the chunks of one message byte for byte, and keeps no more than max_size of
them: a chunk that goes beyond is swallowed from its first octet on. Its size is announced, so even
an absurd one costs nothing.
"""

import re
from typing import NamedTuple

# A chunk of 18 digits takes a thousand years; what is longer is no number that anyone means.
_ARGUMENT = re.compile(rb"([0-9]{1,18})(?i:( LAST))?\s*")


class Chunk(NamedTuple):
    """What is said before a chunk's octets."""

    size: int
    is_last: bool


def read_bdat(argument: bytes) -> Chunk | None:
    """Return what the argument of BDAT says, or None for wrong syntax."""
    match = _ARGUMENT.fullmatch(argument)
    return Chunk(int(match[1]), match[2] is not None) if match else None


class ChunkReader:
    """Joins the chunks of one message after the other; blocks may be cut anywhere."""

    __slots__ = ("_announced", "_keeps", "_kept", "_max_size", "left")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._kept: bytes | bytearray = b""
        self._keeps = True
        self._announced = 0
        self.left = 0

    @property
    def is_too_large(self) -> bool:
        """Tell whether the chunks of this message are larger than max_size together."""
        return self._announced > self._max_size

    @property
    def came(self) -> int:
        """Return how many octets of this message have come."""
        return self._announced - self.left

    @property
    def kept(self) -> int:
        """Return how many octets of this message are kept."""
        return len(self._kept)

    def begin(self, size: int, *, keeps: bool = True) -> None:
        """Expect `size` octets, which are swallowed unless this reader `keeps` them."""
        self.left = size
        self._keeps = keeps
        if keeps:
            self._announced += size
            if self.is_too_large:
                self._kept = b""
                self._keeps = False

    def read(self, block: bytes, start: int) -> int:
        """Take from `block` what belongs to this chunk; return the index after it."""
        end = min(start + self.left, len(block))
        self.left -= end - start
        if self._keeps and end > start:
            self._keep(block, start, end)
        return end

    def take(self) -> bytes | None:
        """Return the chunks, joined, or None when they were too large; begin the next message."""
        content = None if self.is_too_large else bytes(self._kept)
        self.forget()
        return content

    def forget(self) -> None:
        """Begin the next message."""
        self._kept = b""
        self._announced = 0

    def _keep(self, block: bytes, start: int, end: int) -> None:
        """Keep the only piece as it is cut: most messages come whole, and are copied once."""
        if not self._kept:
            self._kept = block[start:end]
            return
        if isinstance(self._kept, bytes):
            self._kept = bytearray(self._kept)
        self._kept += memoryview(block)[start:end]
