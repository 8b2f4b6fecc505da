"""Signals that end the demo, obeyed where nothing can be left behind.

Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does by itself; but not while they are
held: then at the end of that. So a child that is being started is always in somebody's hand. An
interrupt that was raised where nobody heard it (in a callback) is not lost: `check` raises again.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The signals, from `with` to its end; the old handlers come back then."""

    def __init__(self) -> None:
        self._has_come = False
        self._is_held = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._has_come:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put signals off until the end of the block."""
        self._is_held = True
        yield
        self._is_held = False
        self.check()

    def hold(self) -> None:
        """Put signals off for good: the end has begun, and is not to be interrupted."""
        self._is_held = True

    def _come(self, _number: int, _frame: object) -> None:
        self._has_come = True
        if not self._is_held:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
                self._before[number] = signal.signal(number, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
