"""Slowing down for a host that says "too fast": how many mails it gets until it takes them again.

The first such answer cuts the rate to half of what it was, each further one halves it again, once a
second at most: answers to what was under way say nothing new. Without one it comes back step by
step, by a tenth of itself each _STEP_S from the next mail on, and when it is whole again, nothing
is slowed. So the host is met a little above what it takes, seldom, and not in proportion to what
waits.

Pure arithmetic; times are seconds of a monotonic clock, rates mails a second.
"""

_CUT_EVERY_S = 1.0
_STEP_S = 3.0
_STEP = 1.1
_SLOWEST = 0.1
_LEAST_BEFORE = 2.0
_LATE_S = 0.1
_LOOK_S = 1.0
_SHORTEST_S = 0.05


class Slowing:
    """One host's rate while it is less than what the host gets by itself."""

    __slots__ = ("_before", "_cut_at", "_has_spent", "_next", "_rate", "_risen_at")

    def __init__(self, now: float, *, rate: float) -> None:
        """Cut to half of `rate`, at which mails went until `now`."""
        self._before = max(rate, _LEAST_BEFORE)
        self._rate = self._before / 2
        self._cut_at = self._risen_at = now
        self._has_spent = False
        self._next = now + 1.0 / self._rate

    def cut(self, now: float) -> bool:
        """Note that the host has said it again at `now`; return whether the rate is less now."""
        if now < self._cut_at + _CUT_EVERY_S:
            return False
        self._rate = max(self.rate(now) / 2, _SLOWEST)
        self._cut_at, self._has_spent = now, False
        self._next = max(self._next, now + 1.0 / self._rate)
        return True

    def rate(self, now: float) -> float:
        """Return the rate at `now`."""
        steps = int((now - self._risen_at) / _STEP_S) if self._has_spent else 0
        if steps > 0:
            self._rate = min(self._before, self._rate * _STEP ** min(steps, 1000))
            self._risen_at += steps * _STEP_S
        return self._rate

    def is_over(self, now: float) -> bool:
        """Return whether the rate is whole again."""
        return self.rate(now) >= self._before

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next mail may go; 0.0: now."""
        return max(0.0, self._next - now)

    def spend(self, now: float) -> None:
        """Note that a mail goes at `now`."""
        if not self._has_spent:
            self._has_spent, self._risen_at = True, now
        self._next = max(self._next, now - _LATE_S) + 1.0 / self.rate(now)


class Pulse:
    """How many mails a second a host had lately, from a count that is looked at now and then."""

    __slots__ = ("_before", "_last")

    def __init__(self, now: float) -> None:
        self._before = self._last = (now, 0)

    def note(self, now: float, count: int) -> None:
        """Look at the count; two looks are a second apart, at least."""
        if now >= self._last[0] + _LOOK_S:
            self._before, self._last = self._last, (now, count)

    def rate(self, now: float, count: int, *, since: float) -> float:
        """Return the rate of the last second or two, of which nothing was done before `since`."""
        at, before = self._before
        return (count - before) / max(now - max(at, since), _SHORTEST_S)
