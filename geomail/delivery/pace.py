"""How fast a host may be approached: pure arithmetic, the clock and the chance are arguments.

Backoff   how long to leave a host alone after a failure: 1, 2, 4, 8 … seconds, capped, each with
          jitter so that many workers don't come back in one instant
Window    how many connections a host gets at the moment: all it may have while it is well, one
          as a probe after a failure, then twice as many with every success
retry_delay_s, is_too_old   when a message that was refused for now is tried again, and when never
"""

JITTER = 0.25


class Backoff:
    """The closing times of one host. Times are seconds of any monotonic clock."""

    __slots__ = ("base_s", "cap_s", "failures", "until")

    def __init__(self, base_s: float = 1.0, cap_s: float = 300.0) -> None:
        self.base_s = base_s
        self.cap_s = cap_s
        self.failures = 0
        self.until = 0.0

    def fail(self, now: float, chance: float) -> float:
        """Note a failure at `now` and return how long to stay away, in seconds.

        `chance` in [0, 1) spreads it: the doubled delay, plus or minus a quarter.
        """
        delay = min(self.base_s * 2.0 ** min(self.failures, 60), self.cap_s)
        delay *= 1.0 + JITTER * (2.0 * chance - 1.0)
        self.failures += 1
        self.until = now + delay
        return delay

    def succeed(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.until = 0.0

    def is_closed(self, now: float) -> bool:
        """Return whether the host is to be left alone at `now`."""
        return now < self.until


class Window:
    """How many connections one host may have: `most`, or less while it recovers."""

    __slots__ = ("most", "size")

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = most

    def shrink(self) -> None:
        """After a failure of the host: one connection, the probe."""
        self.size = 1

    def grow(self) -> bool:
        """After a message went through: twice as many, up to `most`. Return whether it grew."""
        if self.size >= self.most:
            return False
        self.size = min(self.size * 2, self.most)
        return True


def retry_delay_s(tries: int, *, base_s: float, cap_s: float, chance: float) -> float:
    """Return the seconds until a message is tried again that has had `tries` (>= 1) tries.

    `base_s` doubling with each try up to `cap_s`; `chance` in [0, 1) takes up to a tenth off, so
    that mails refused in one instant don't return in one, and never later than said.
    """
    delay = min(base_s * 2.0 ** min(tries - 1, 60), cap_s)
    return delay * (1.0 - 0.1 * chance)


def is_too_old(first_seen_ms: int, now_ms: int, *, max_age_s: float) -> bool:
    """Return whether a message first seen at `first_seen_ms` has waited longer than `max_age_s`."""
    return now_ms - first_seen_ms > max_age_s * 1000.0
