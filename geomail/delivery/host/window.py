"""A window: how many connections one host may have at the moment, learnt from what it takes.

    slow start   from START, one more with each success while all are in use: twice as many each
                 time round, never far beyond those that are connected already
    the ceiling  a connection that is refused while others of the lane work shows how many the host
                 takes: as many as have carried a mail by then. The window is cut to it
    a trial      one connection more than the ceiling after a minute; each that is refused doubles
                 the time to the next, up to an hour; one that goes well raises the ceiling, and the
                 next trial, twice as large, follows at once
    a probe      after a failure of the host: one connection, then slow start up to the ceiling

A refusal below the ceiling lowers it only at the third time without a connection that went well in
between: a host may not have noticed yet that another one has ended. A ceiling is in doubt until a
mail goes through behind it, and one learnt a moment before the host failed altogether is forgotten:
whoever goes down refuses connections first.

A window that is not used does not grow: that is asked of whoever calls `grow()`.
"""

from math import inf

START = 2
_CAUTIOUS = 8  # connections up to which half as many more are tried at a time
_LARGE = 64  # from here on two more a success, for 10,000 within half a minute
_RETRY_S, _LONGEST_RETRY_S = 60.0, 3600.0
_TOO_OFTEN = 3
_LAST_WORDS_S = 10.0


class Window:
    """How many connections one host may have: `most`, or what it is known to take."""

    __slots__ = (
        "_before",
        "_cut_at",
        "_low",
        "_retry_at",
        "_retry_s",
        "_step",
        "_tried_from",
        "ceiling",
        "is_doubted",
        "most",
        "rests_until",
        "size",
    )

    def __init__(self, most: int) -> None:
        """`most`: connections that it may ever have."""
        self.most = most
        self.size = min(START, most)
        self.ceiling: int | None = None
        self.is_doubted = False
        self.rests_until = 0.0
        self._before: int | None = None  # the ceiling, when it was cut last
        self._cut_at = -inf
        self._low = 0  # refusals below the ceiling, one after the other
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self._step = 1
        self._tried_from = 0  # the ceiling that a trial began at; 0: there is none
        self._rest()

    def grow(self, now: float, live: int) -> bool:
        """Grow after a success with all in use; `live`: connections there are. Return if it did."""
        if now < self.rests_until:
            return False
        if self.ceiling is not None and self.size >= self.ceiling:
            has_grown = self._try(live)
        else:
            has_grown = self.size < live + (live if live >= _CAUTIOUS else max(1, live // 2))
            self.size += has_grown * (1 if live < _LARGE else 2)
        self._rest()
        return has_grown

    def refused(self, now: float, proved: int, *, began: float, asked_s: float = 0.0) -> None:
        """A connection begun at `began` was refused; `proved` others have carried mail, and do.

        `asked_s`: for so long the host has asked not to be tried with more.
        """
        taken = max(1, proved)
        is_same_burst = began < self._cut_at
        if self.ceiling is not None and taken < self.ceiling and not is_same_burst:
            self._low += 1
            if self._low < _TOO_OFTEN:
                return
        if not is_same_burst:
            self._before = self.ceiling
            has_gained_nothing = self._tried_from and taken <= self._tried_from
            self._retry_s = (
                min(2 * self._retry_s, _LONGEST_RETRY_S) if has_gained_nothing else _RETRY_S
            )
            self._retry_at = now + self._retry_s
            self._cut_at = now
        self._retry_at = max(self._retry_at, now + asked_s)
        self._low, self._tried_from, self._step = 0, 0, 1
        self.is_doubted = taken != self._before
        self.ceiling = self.size = taken
        self._rest()

    def prove(self, proved: int) -> None:
        """A connection has carried its first mail: so many have, and are there."""
        self._low = 0
        if self.ceiling is not None and proved > max(self.ceiling, self.size):
            self.ceiling = self.size = proved  # it was on its way when another one was refused
            self.is_doubted = True
            self._rest()

    def confirm(self) -> int | None:
        """A mail went through: return the ceiling where that is news, None where it is not."""
        is_news, self.is_doubted = self.is_doubted, False
        return self.ceiling if is_news else None

    def know(self, ceiling: int, now: float) -> None:
        """Take over what was learnt elsewhere, unless this window knows better."""
        if self.ceiling is None:
            self.ceiling = max(ceiling, self.size)
            self._retry_at = now + self._retry_s
            self._rest()

    def shrink(self, now: float) -> None:
        """After a failure of the host: one connection, the probe."""
        if self.is_doubted or now < self._cut_at + _LAST_WORDS_S:
            self.ceiling, self.is_doubted, self._cut_at = self._before, False, -inf
        self.size = 1
        self._tried_from, self._step = 0, 1
        self._rest()

    def _try(self, live: int) -> bool:
        if self.size == self.ceiling:
            self._tried_from = self._tried_from or self.ceiling
        elif live >= self.size:
            self.ceiling = self.size
            self._step *= 2
            self.is_doubted = True
            self._retry_s = _RETRY_S
        else:
            return False
        self.size += self._step
        return True

    def _rest(self) -> None:
        self.size = min(self.size, self.most)
        if self.size >= self.most:
            self.rests_until = inf
        elif self.size == self.ceiling:
            self.rests_until = self._retry_at
        else:
            self.rests_until = 0.0
