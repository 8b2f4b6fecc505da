"""What the log says about a Redis that is away: when it went, every five seconds, when it is back.

Several connections share one `News`. While some are served and others are not (memory is full, one
line is dead), it says so every five seconds too, and not at each turn.
"""

import time

from geomail import log

_COMPLAIN_EVERY_S = 5.0


class News:
    """Whether one server answers, as far as people were told."""

    def __init__(self, label: str) -> None:
        """All is well, as far as anybody knows."""
        self.away_since: float | None = None
        self._label = label
        self._complained_at = float("-inf")
        self._is_told = False

    def complain(self, role: str, text: str, advice: str | None = None) -> None:
        """Say that Redis is away, and what to try, unless that was said a short time ago."""
        now = time.monotonic()
        if self.away_since is None:
            self.away_since = now
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at, self._is_told = now, True
            more = {"advice": advice} if advice else {}
            log.warning("redis_away", redis=self._label, role=role, error=text, **more)

    def rejoice(self) -> None:
        """Say that Redis is back, if it was said to be away."""
        if self.away_since is None:
            return
        away_s = time.monotonic() - self.away_since
        self.away_since = None
        if self._is_told:
            self._is_told = False
            log.info("redis_back", redis=self._label, away_s=away_s)
