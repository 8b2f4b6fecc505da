"""How fast a host may be approached: pure arithmetic, the clock and the chance are arguments.

Backoff   how long to leave a host alone after a failure: 1, 2, 4, 8 … seconds, capped, each with
          jitter so that many workers don't come back in one instant
Habits    after how long a pause, and after how many messages, a host ends a connection: learnt
          from where it did, kept for an hour, so that we leave first
fair_share   how many places each may have of those that all want, where nobody wants in vain
deliveries_for   how many deliveries so many connections keep in hand
retry_delay_s, is_too_old   when a message that was refused for now is tried again, and when never
"""

from collections.abc import Iterable

JITTER = 0.25
DEPTH = 8  # deliveries a connection, where there are few
LEARNT_S = 3600.0
_SHORTEST_PAUSE_S = 1.0
_A_LITTLE_BELOW = 0.9
_READY, _READY_OF = 600, 4  # ready for the next: a take's time, and a part of all


class Backoff:
    """The closing times of one host. Times are seconds of any monotonic clock."""

    __slots__ = ("base_s", "cap_s", "failures", "until")

    def __init__(self, base_s: float = 1.0, cap_s: float = 300.0) -> None:
        self.base_s = base_s
        self.cap_s = cap_s
        self.failures = 0
        self.until = 0.0

    def fail(self, now: float, chance: float, *, at_least_s: float = 0.0) -> float:
        """Note a failure at `now` and return how long to stay away, in seconds.

        `chance` in [0, 1) spreads it: the doubled delay, plus or minus a quarter. `at_least_s` is
        what the host has asked for: never less, and no cap holds for it.
        """
        delay = min(self.base_s * 2.0 ** min(self.failures, 60), self.cap_s)
        delay *= 1.0 + JITTER * (2.0 * chance - 1.0)
        delay = max(delay, at_least_s)
        self.failures += 1
        self.until = now + delay
        return delay

    def extend(self, until: float) -> bool:
        """Stay closed until `until` at least; return whether that is longer than so far."""
        if until <= self.until:
            return False
        self.until = until
        return True

    def end(self) -> None:
        """Let the host be tried at once; the failures still count."""
        self.until = 0.0

    def succeed(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.until = 0.0

    def is_closed(self, now: float) -> bool:
        """Return whether the host is to be left alone at `now`."""
        return now < self.until


class Habits:
    """When a host ends its connections by itself. Times are seconds of any monotonic clock."""

    __slots__ = (
        "_last_count",
        "_messages",
        "_messages_until",
        "_pause_s",
        "_pause_until",
        "_seen_at",
    )

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._pause_until = 0.0
        self._messages = 0
        self._messages_until = 0.0
        self._last_count = 0
        self._seen_at = 0.0  # that count, at first

    def note_idle_end(self, now: float, pause_s: float) -> None:
        """Note that the host ended a connection that had been idle for `pause_s`.

        An end at once is none of idleness: it comes of what was said before.
        """
        if pause_s >= _SHORTEST_PAUSE_S:
            self._pause_s = pause_s
            self._pause_until = now + LEARNT_S

    def note_end(self, now: float, messages: int, *, began: float, is_said: bool = False) -> bool:
        """Note that the host ended a connection after `messages`; return whether that is news.

        It is learnt from two ends in a row at the same number, where the second connection `began`
        behind the first one's end: a host that goes down ends all it has in one moment, and they
        may well have carried as many. Or from one where the host has said (`is_said`) that this was
        the reason.
        """
        if messages != self._last_count:
            self._last_count, self._seen_at = messages, now
            is_again = False
        else:
            is_again = began >= self._seen_at
        if messages == 0 or not (is_said or is_again):
            return False
        is_news = self.messages(now) != messages
        self._messages = messages
        self._messages_until = now + LEARNT_S
        return is_news

    def idle_s(self, now: float, setting_s: float) -> float:
        """Return how long a connection may be kept idle: as set, or less where it was learnt."""
        if now >= self._pause_until:
            return setting_s
        return min(setting_s, self._pause_s * _A_LITTLE_BELOW)

    def messages(self, now: float) -> int:
        """Return after how many messages to leave a connection; 0 where nothing is known."""
        return self._messages if now < self._messages_until else 0


def fair_share(wants: Iterable[int], places: int) -> int:
    """Return the most that one may have of `places`: who wants less leaves the rest to the others.

    At least 1; `places` where there are enough for all.
    """
    ordered = sorted(wants)
    left = places
    for at, want in enumerate(ordered):
        share = left // (len(ordered) - at)
        if want > share:
            return max(1, share)
        left -= want
    return max(1, places)


def deliveries_for(connections: int, *, depth: int = DEPTH, on_wire: int = 2) -> int:
    """Return how many deliveries keep so many connections busy.

    `on_wire` each are being sent, and some more are ready, for as long as it takes to get others:
    `depth` a connection in all where there are few, hardly more than `on_wire` for thousands.
    """
    ready = min((depth - on_wire) * connections, _READY + connections // _READY_OF)
    return on_wire * connections + ready


def retry_delay_s(
    tries: int, *, base_s: float, cap_s: float, chance: float, at_least_s: float = 0.0
) -> float:
    """Return the seconds until a message is tried again that has had `tries` (>= 1) tries.

    `base_s` doubling with each try up to `cap_s`; `chance` in [0, 1) takes up to a tenth off, so
    that mails refused in one instant don't return in one, and never later than said. What the
    host has asked for (`at_least_s`) is the least, and the same tenth is added to it.
    """
    delay = min(base_s * 2.0 ** min(tries - 1, 60), cap_s)
    return max(delay * (1.0 - 0.1 * chance), at_least_s * (1.0 + 0.1 * chance))


def is_too_old(first_seen_ms: int, now_ms: int, *, max_age_s: float) -> bool:
    """Return whether a message first seen at `first_seen_ms` has waited longer than `max_age_s`."""
    return now_ms - first_seen_ms > max_age_s * 1000.0
