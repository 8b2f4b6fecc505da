"""Signals that end the demo, obeyed where nothing can be left behind.

Ctrl-C, SIGTERM and SIGHUP are noted, and `check` raises KeyboardInterrupt at the next place where
every child is in somebody's hand; an exception out of the blue would come while one is started. One
more signal, when a first has not been obeyed for two seconds, does come out of the blue; none does
once the end has begun.
"""

import signal
import time
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 2.0


class Interrupts:
    """The signals, from `with` to its end; the old handlers come back then."""

    def __init__(self) -> None:
        self._came_at: float | None = None
        self._is_ending = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._came_at is not None:
            raise KeyboardInterrupt

    def end(self) -> None:
        """Let no signal interrupt any more."""
        self._is_ending = True

    def _come(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        if self._came_at is None:
            self._came_at = now
        if not self._is_ending and now - self._came_at > _PATIENCE_S:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
                self._before[number] = signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
