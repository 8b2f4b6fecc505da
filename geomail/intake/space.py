"""How much of jobs that are still coming a door holds, over all its connections.

A connection holds up to _FREE bytes without asking: a thousand of them are some tens of MB. What is
larger takes a place that grows with what has come, never with what was announced, so a client that
promises much and sends little keeps nobody out. When all places together would be larger than
allowed, the one that wants to grow is refused, and gives back what it has.
"""

from types import TracebackType
from typing import Self

_FREE = 64 * 1024


class Space:
    """The room for jobs that are coming."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.taken = 0

    def place(self) -> "Place":
        """Return a place for one job, of no size yet."""
        return Place(self)


class Place:
    """What one job takes, until the end of a `with`."""

    __slots__ = ("_size", "_space")

    def __init__(self, space: Space) -> None:
        self._space = space
        self._size = 0

    def grow_to(self, size: int) -> bool:
        """Return whether there is room for `size` bytes, and keep it."""
        if size <= _FREE:
            return True
        space = self._space
        if space.taken - self._size + size > space.most_bytes:
            return False
        space.taken += size - self._size
        self._size = size
        return True

    def clear(self) -> None:
        """Give back what it takes; it may grow again."""
        self._space.taken -= self._size
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self.clear()
