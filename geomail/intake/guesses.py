"""Who guesses: wrong tokens and passwords, counted by address, at all doors of a process together.

    guesses.wait_s(host, now)       0: what it shows may be looked at; else come back so much later
    guesses.was_wrong(host, now, shown)
    guesses.was_right(host, now)

An address may be wrong _MANY times at once, and once in _EVERY_S from then on; what it shows
meanwhile is not looked at, right or wrong: an answer would tell. Not so an address that has shown
the right secret within a day. A proxy, or a machine with one program that is set up wrongly, has
others behind it, and must not be shut for them; and who sends from there is no stranger. Nor is
the same wrong token once more another guess: that is a program that is set up wrongly. An IPv6 /64
counts as one address.

Promised: a few hundred bytes for each of 10,000 addresses at most; nothing at all where nobody was
wrong. Not promised: anything against somebody with many addresses. That is for the secret's length.
Nor a place for others at an address from which somebody guesses before any of them was right.
"""

from typing import TypeVar

from geomail.intake.limits import network

_MANY = 20
_EVERY_S = 6.0
_GOOD_FOR_S = 86_400.0
_MOST_ADDRESSES = 10_000

_Number = TypeVar("_Number", int, float)


class Guesses:
    """Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # when an address has made up for its wrong ones
        self._right: dict[str, float] = {}
        self._last: dict[str, int] = {}  # a hash of what it has shown last, if it was wrong

    def wait_s(self, host: str, now: float) -> float:
        """Return how many seconds `host` has to wait before it may show something."""
        if not self._until:
            return 0.0
        key = network(host)
        excess_s = self._until.get(key, 0.0) - now - (_MANY - 1) * _EVERY_S
        if excess_s <= 0 or self._is_good(key, now):
            return 0.0
        return excess_s

    def was_wrong(self, host: str, now: float, shown: bytes = b"") -> None:
        """Note that `host` has shown something wrong; `shown`, if that can be said."""
        key = network(host)
        if shown:
            before, mark = self._last.pop(key, None), hash(shown)
            _put(self._last, key, mark)
            if before == mark:
                return
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


def _put(where: dict[str, _Number], key: str, value: _Number) -> None:
    if len(where) >= _MOST_ADDRESSES:
        del where[next(iter(where))]  # whom nothing was heard of for longest
    where[key] = value
