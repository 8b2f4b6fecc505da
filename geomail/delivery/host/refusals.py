"""Refusals at MAIL that may be the host's: held until it is known whose they are.

A host whose sending policy is broken says the same 5yz to whoever comes, and would bury the whole
queue in a minute. So a message whose MAIL was refused for good is held, unsettled, while its text
stays the same:

    a MAIL is accepted                      the refusals were the messages' own: they die
    another text is the next refusal        the same, and a new run begins with it
    MOST in a row, from two senders         the host's trouble: all are given back
    MOST in a row, from one sender          that sender's trouble: they die
    HOLD_S without any of these             they die of their own refusal

The number goes on behind a decision, until a MAIL is accepted: a host that was condemned and says
the same to its probe is condemned again by that one. Nothing is promised for servers that write
the sender or an id into their text: those refusals are taken one by one.
"""

from enum import Enum
from typing import Generic, TypeVar

MOST = 5
HOLD_S = 10.0

T = TypeVar("T")


class Ruling(Enum):
    """Whose refusals those in hand are."""

    UNDECIDED = "undecided"
    MESSAGES = "the messages'"
    HOST = "the host's"


class Refusals(Generic[T]):
    """One host's run of equal refusals, and what is held for it. Seconds of a monotonic clock."""

    __slots__ = ("_held", "_hold_s", "_most", "_senders", "_text", "held", "run")

    def __init__(self, most: int = MOST, hold_s: float = HOLD_S) -> None:
        self._most = most
        self._hold_s = hold_s
        self._text: str | None = None
        self.run = 0  # refusals since a MAIL was accepted
        self._senders: set[str] = set()
        self._held: list[tuple[float, T]] = []
        self.held = 0  # how many wait for a ruling; a field, for it is asked with each mail

    def refuse(self, what: T, *, sender: str, text: str, now: float) -> tuple[Ruling, list[T]]:
        """Hold `what`; return the ruling, and those that it releases.

        A run that `text` ends is released by `end()`, which comes first.
        """
        self._text = text
        self.run += 1
        if len(self._senders) < 2:
            self._senders.add(sender)
        self._held.append((now, what))
        self.held += 1
        if self.run < self._most:
            return Ruling.UNDECIDED, []
        return (Ruling.HOST if len(self._senders) > 1 else Ruling.MESSAGES), self.release()

    def ends_with(self, text: str) -> bool:
        """Return whether a refusal with `text` is another run's."""
        return self._text is not None and text != self._text

    def end(self) -> list[T]:
        """End the run: a MAIL was accepted, or refused otherwise. Return what was held."""
        self._text = None
        self.run = 0
        self._senders.clear()
        return self.release()

    def overdue(self, now: float) -> list[T]:
        """Return, and hold no longer, what has waited for as long as anything may."""
        since = now - self._hold_s
        found = [what for at, what in self._held if at <= since]
        if found:
            self._held = [(at, what) for at, what in self._held if at > since]
            self.held = len(self._held)
        return found

    def release(self) -> list[T]:
        """Return all that is held, and hold nothing; the run goes on."""
        released = [what for _, what in self._held]
        self._held.clear()
        self.held = 0
        return released
