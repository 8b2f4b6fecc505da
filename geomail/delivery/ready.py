"""What is ready in a lane, and whose turn it is: lists with weights share a host fairly.

A worker of one list has a plain queue (`Fifo`). With several each list has a line of its own
(`Ready`), and they are served by start-time fair queueing (Goyal 1996), the kin of deficit round
robin whose round is one mail: a line's tag is the time at which its next mail may begin, it goes on
by cost / weight with each mail, and the line with the lowest tag is served. So

    while two lines are full, what they got differs from their weights by one mail each at most;
    what comes to an empty line is behind one mail of each other line at most, full as they are;
    a line that is empty saves nothing, and the others have its share;
    within a line the order is kept.

A mail costs 1, however small it is: what a host and a connection are kept busy with is its turns. A
large one keeps a connection as long as several, and counts for them: one more for each further
64 KiB, and for each further 16 recipients. Else a list of small mails would get one of them for
each of 10 MB that the other list sends.

`places` says how many mails of a list a lane wants ready, of those that it has room for, so that a
lane full of one list's mails takes the other's at once. Nothing here knows a clock or a network.
"""

import math
from collections import deque
from collections.abc import Mapping, Sized
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, Protocol, TypeAlias, TypeVar

_LARGE_BYTES = 65_536
_MANY_RECIPIENTS = 16
_LEAST_PART = 4
_FEW = 16  # at one connection's speed a take's round trip, and more, with any weights
_UNIT = 1 << 40  # whole numbers: what is given back takes off exactly what was put on


class List(Protocol):
    """As much as is asked of the list that a mail came from."""

    @property
    def name(self) -> str:
        """Return its name."""


class Slot(Protocol):
    """As much as is asked of where a mail is in Redis."""

    @property
    def weight(self) -> int:
        """Return the size of the payload."""


class Mail(Protocol):
    """As much as is asked of a delivery."""

    @property
    def queue(self) -> List:
        """Return the list that it came from."""

    @property
    def slot(self) -> Slot:
        """Return where it is in Redis."""

    @property
    def recipients(self) -> Sized:
        """Return to whom it goes."""


T = TypeVar("T", bound=Mail)


class Fifo(deque[T]):
    """The ready queue of one list. A deque as it is: 5 calls a mail would be 0.3 µs in Python."""

    __slots__ = ()

    def waiting(self, _name: str) -> int:
        """Return how many are ready."""
        return len(self)

    def share(self, _name: str) -> float:
        """Return the part of a list that has to share with all others."""
        return 1.0

    def drain(self) -> list[T]:
        """Return all, the next one first, and keep none."""
        taken = list(self)
        self.clear()
        return taken


class _Line(Generic[T]):
    """One list's ready mails; of equal tags the lowest rank is first: the heavier list's."""

    __slots__ = ("deliveries", "rank", "step", "tag")

    def __init__(self, name: str, weight: int) -> None:
        self.deliveries: deque[T] = deque()
        self.rank = (-weight, name)
        self.step = _UNIT // weight
        self.tag = 0


class Ready(Generic[T]):
    """The ready queue of several lists. It has a line of each that it was given something of."""

    __slots__ = ("_lines", "_now", "_size", "_turns", "_weights")

    def __init__(self, weights: Mapping[str, int]) -> None:
        """Serve the lists by `weights`; one that is not among them has the weight 1."""
        self._weights = weights
        self._lines: dict[str, _Line[T]] = {}
        self._turns: list[tuple[int, tuple[int, str], _Line[T]]] = []
        self._now = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, name: str) -> int:
        """Return how many of a list are ready."""
        line = self._lines.get(name)
        return len(line.deliveries) if line is not None else 0

    def share(self, name: str) -> float:
        """Return the part of a list that has to share with all others."""
        total = sum(self._weights.values())
        return self._weights[name] / total if name in self._weights else 1 / (total + 1)

    def append(self, delivery: T) -> None:
        """Put a delivery last in its line."""
        line = self._line_of(delivery)
        if not line.deliveries:
            self._enter(line)
        line.deliveries.append(delivery)
        self._size += 1

    def appendleft(self, delivery: T) -> None:
        """Put a delivery first in its line, as if it had never been taken."""
        line = self._line_of(delivery)
        line.tag -= cost_of(delivery) * line.step
        if line.deliveries:
            line.tag = max(line.tag, self._now)
            self._turns = [(other.tag, other.rank, other) for _, _, other in self._turns]
            heapify(self._turns)
        else:
            self._enter(line)
        line.deliveries.appendleft(delivery)
        self._size += 1

    def popleft(self) -> T:
        """Take the delivery whose turn it is. Raises IndexError when there is none."""
        turns = self._turns
        self._now, _, line = turns[0]
        delivery = line.deliveries.popleft()
        line.tag += cost_of(delivery) * line.step
        if line.deliveries:
            heapreplace(turns, (line.tag, line.rank, line))
        else:
            heappop(turns)
        self._size -= 1
        return delivery

    def drain(self) -> list[T]:
        """Return all in the order of their turns, and keep none; no list is charged for them."""
        now = self._now
        taken = [self.popleft() for _ in range(self._size)]
        self._now = now
        for line in self._lines.values():
            line.tag = now
        return taken

    def clear(self) -> None:
        """Keep none."""
        self.drain()

    def _line_of(self, delivery: T) -> _Line[T]:
        name = delivery.queue.name
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(name, self._weights.get(name, 1))
        return line

    def _enter(self, line: _Line[T]) -> None:
        line.tag = max(line.tag, self._now)
        heappush(self._turns, (line.tag, line.rank, line))


AnyReady: TypeAlias = Fifo[T] | Ready[T]


def ready_for(weights: Mapping[str, int]) -> AnyReady[T]:
    """Return an empty ready queue for lists with their weights, which it keeps hold of."""
    return Ready(weights) if len(weights) > 1 else Fifo()


def cost_of(delivery: Mail) -> int:
    """Return for how many mails a delivery counts."""
    weight, recipients = delivery.slot.weight, len(delivery.recipients)
    if weight < _LARGE_BYTES and recipients <= _MANY_RECIPIENTS:
        return 1
    return 1 + weight // _LARGE_BYTES + (recipients - 1) // _MANY_RECIPIENTS


def places(*, wanted: int, on_the_wire: int, share: float) -> int:
    """Return how many mails of one list a lane wants ready, whatever it has of others.

    `wanted` is what the lane wants in hand of all lists, of which so many are with its connections
    already; `share`, in 0 … 1, is the list's part. At least one, for a list that has none ready
    can't have its turn; and of a lane that wants few it is a part of some more, for who runs out
    before the next take loses turns.
    """
    free = max(wanted - on_the_wire, wanted // _LEAST_PART, min(_FEW, 2 * wanted))
    return max(1, math.ceil(share * free))
