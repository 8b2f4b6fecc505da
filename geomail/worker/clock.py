"""Redis's time, as this worker knows it.

Ages and due times are Redis's; a worker's own clock may be hours off. Each take tells the time, and
a monotonic clock carries it on.
"""

import time


class RedisClock:
    """Milliseconds since 1970 by Redis; before the first take, by this machine."""

    __slots__ = ("_at", "_now_ms")

    def __init__(self) -> None:
        self.set(int(time.time() * 1000))

    def set(self, now_ms: int) -> None:
        """Note that Redis says it is `now_ms`."""
        self._now_ms = now_ms
        self._at = time.monotonic()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return self._now_ms + int((time.monotonic() - self._at) * 1000)
