"""Who guesses: wrong tokens and passwords, counted by address, at all doors of a process together.

    guesses.wait_s(host, now)       0: what it shows may be looked at; else come back so much later
    guesses.was_wrong(host, now)
    guesses.was_right(host, now)

An address may be wrong _MANY times at once, and once in _EVERY_S from then on; what it shows
meanwhile is not looked at, right or wrong: an answer would tell. Not so an address that has shown
the right secret within a day. A proxy, or a machine with one program that is set up wrongly, has
others behind it, and must not be shut for them; and who sends from there is no stranger. An IPv6
/64 counts as one address.

Promised: a few hundred bytes for each of 10,000 addresses at most; nothing at all where nobody was
wrong. Not promised: anything against somebody with many addresses. That is for the secret's length.
"""

from geomail.intake.limits import network

_MANY = 20
_EVERY_S = 6.0
_GOOD_FOR_S = 86_400.0
_MOST_ADDRESSES = 10_000


class Guesses:
    """Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # when an address has made up for its wrong ones
        self._right: dict[str, float] = {}

    def wait_s(self, host: str, now: float) -> float:
        """Return how many seconds `host` has to wait before it may show something."""
        if not self._until:
            return 0.0
        key = network(host)
        excess_s = self._until.get(key, 0.0) - now - (_MANY - 1) * _EVERY_S
        if excess_s <= 0 or self._is_good(key, now):
            return 0.0
        return excess_s

    def was_wrong(self, host: str, now: float) -> None:
        """Note that `host` has shown something wrong."""
        key = network(host)
        until = max(self._until.pop(key, 0.0), now) + _EVERY_S
        # No more than can be made up for in two minutes: of an address that has been right, any
        # number is looked at, and they must not shut it for weeks once that is a day ago.
        _put(self._until, key, min(until, now + _MANY * _EVERY_S))

    def was_right(self, host: str, now: float) -> None:
        """Note that `host` knows the secret."""
        key = network(host)
        self._right.pop(key, None)
        _put(self._right, key, now)

    def _is_good(self, key: str, now: float) -> bool:
        return now - self._right.get(key, float("-inf")) < _GOOD_FOR_S


def _put(where: dict[str, float], key: str, value: float) -> None:
    if len(where) >= _MOST_ADDRESSES:
        del where[next(iter(where))]  # whom nothing was heard of for longest
    where[key] = value
