"""A cache: values that end at a time of their own, and a bounded number of them.

What was least recently used goes when there are too many. Pure: the clock is an argument.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """At most `most` values by name."""

    __slots__ = ("_held", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[str, tuple[float, Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, name: str, now: float) -> Value | None:
        """Return what is held under `name`, unless it has ended by `now`."""
        held = self._held.get(name)
        if held is None:
            return None
        until, value = held
        if now >= until:
            del self._held[name]
            return None
        self._held.move_to_end(name)
        return value

    def put(self, name: str, value: Value, until: float) -> None:
        """Hold `value` until then, in place of what was there."""
        self._held[name] = (until, value)
        self._held.move_to_end(name)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def drop(self, name: str) -> None:
        """Hold nothing under `name` any more."""
        self._held.pop(name, None)
