"""The times at which mails may go on a route: granted elsewhere, kept and spent here.

A grant is a start and a number of tokens, one each interval. A token is spent when its time has
come, and soon: later than a tenth of an interval (or _LATE_S) it is void, so that in no second go
more mails than 1.1 seconds' worth, whatever held the worker up. So much of the grants as is spent
decides how much is asked for: a worker whose hosts are slower than the rate leaves the rest to the
others. Pure arithmetic; times are seconds of a monotonic clock.
"""

import math
from collections import deque

_LATE_S = 0.07
_SLICE_S = 0.1
_WORTH_S = 2.0


class Tokens:
    """What was granted and not spent yet, in the order of its times."""

    __slots__ = ("_at", "_grants", "_late_s", "_slice", "_spent", "_worth", "interval_s", "unused")

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.unused = 0  # since somebody set it to 0
        self._late_s = max(_LATE_S, interval_s / 10)
        self._slice = self.most_at_once
        self._grants: deque[list[float]] = deque()  # [time of the next one, tokens left]
        self._spent = 0
        self._worth, self._at = 0.0, 0.0

    @property
    def most_at_once(self) -> int:
        """How many tokens are asked for at most: a tenth of a second's worth."""
        return max(1, math.ceil(_SLICE_S / self.interval_s))

    def add(self, start_s: float, n: int, now: float) -> None:
        """Keep a grant that was made at `now`."""
        self._grants.append([start_s, float(n)])
        self._worth = self.worth(now) + n
        self._at = now

    def spend(self, now: float) -> bool:
        """Spend a token whose time has come; return whether there was one."""
        self._void(now)
        if not self._grants or self._grants[0][0] > now:
            return False
        self._spent += 1
        self._step(1)
        return True

    def refund(self, now: float) -> None:
        """Take back a token that was spent a moment ago."""
        self._spent -= 1
        self._grants.appendleft([now, 1.0])

    def due(self, now: float) -> int:
        """Return how many may be spent at `now`."""
        self._void(now)
        found = 0
        for start, n in self._grants:
            if start > now:
                break
            found += min(int(n), int((now - start) / self.interval_s) + 1)
        return found

    def next_s(self, now: float) -> float:
        """Return when the first token that is not due at `now` will be; inf without one."""
        for start, n in self._grants:
            passed = int((now - start) / self.interval_s) + 1 if start <= now else 0
            if passed < n:
                return start + passed * self.interval_s
        return math.inf

    def held(self, now: float) -> int:
        """Return how many there are."""
        self._void(now)
        return sum(int(n) for _, n in self._grants)

    def last_s(self) -> float:
        """Return the time of the last token; -inf without one."""
        if not self._grants:
            return -math.inf
        start, n = self._grants[-1]
        return start + (n - 1) * self.interval_s

    def to_ask_for(self, now: float, mails: int) -> int:
        """Return how many more to ask for when `mails` wait: none as long as enough are ahead."""
        if self.last_s() >= now + _SLICE_S:
            return 0
        wanted = mails - self.held(now)
        if wanted <= 0:
            return 0
        self._learn()
        return min(wanted, self._slice)

    def worth(self, now: float) -> float:
        """Return about two seconds' worth of what was granted lately."""
        return self._worth * math.exp(min(0.0, self._at - now) / _WORTH_S)

    def _learn(self) -> None:
        """Ask for what was spent where tokens went void, else for more."""
        if self.unused:
            self._slice = max(1, self._spent)
        else:
            self._slice = min(self.most_at_once, self._slice * 2)
        self._spent = 0

    def _void(self, now: float) -> None:
        since = now - self._late_s
        while self._grants and self._grants[0][0] < since:
            start, n = self._grants[0]
            late = min(int(n), math.ceil((since - start) / self.interval_s))
            self.unused += late
            self._step(late)

    def _step(self, n: int) -> None:
        first = self._grants[0]
        first[0] += n * self.interval_s
        first[1] -= n
        if first[1] <= 0:
            self._grants.popleft()
