"""Log lines that strangers could make us write by the thousand: one now and then, with a count."""

import time
from collections.abc import Callable

_EVERY_S = 5.0


class Seldom:
    """One kind of line, at most every five seconds."""

    def __init__(self, say: Callable[..., None], event: str) -> None:
        """`say`: one of geomail.log's functions."""
        self._say = say
        self._event = event
        self._said_at = float("-inf")
        self._unsaid = 0

    def __call__(self, **fields: object) -> None:
        """Say it, or count it for the next time."""
        now = time.monotonic()
        if now - self._said_at < _EVERY_S:
            self._unsaid += 1
            return
        more = {"and_before": self._unsaid} if self._unsaid else {}
        self._said_at, self._unsaid = now, 0
        self._say(self._event, **fields, **more)
