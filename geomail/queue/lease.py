"""One registration of a worker: its name, its lease, and what it believes it holds.

A name is 64 random bits, new for every registration, so nothing of an earlier life can be mistaken
for it. What was confirmed by Redis is kept here, one character a slot, and compared with Redis's
own table at each beat: what Redis still calls live after it has told us that it is settled was lost
in a roll-back, and has to be said again. Of half a minute that may be 50,000 batches, most of
which have gone the same way: so those that have are kept together, as numbers. Pure bookkeeping:
`now` is an argument, in seconds of a monotonic clock.
"""

from array import array
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from geomail.queue.slots import LIVE_IN_REDIS

LIVE, DONE, MOVED = 46, 68, 77  # '.', 'D', 'M'
_REMEMBER_S = 30.0
_TOGETHER_S = 1.0

_Closed = dict[bytes, "array[int]"]  # what has become of their slots: batches

Leak = tuple[int, int, bool]
"""Slot (seq, index) that Redis calls live and we don't, and whether we know it is delivered."""


class Believed:
    """What a worker believed at one moment of its batches."""

    __slots__ = ("_closed", "_held")

    def __init__(self, held: Mapping[int, bytes], closed: Sequence[_Closed]) -> None:
        """`closed` does not change any more."""
        self._held = held
        self._closed = closed

    def of(self, seqs: Collection[int]) -> dict[int, bytes]:
        """Return one character a slot for each of these batches that was known then."""
        found = {seq: self._held[seq] for seq in seqs if seq in self._held}
        if others := set(seqs).difference(found):
            for same in self._closed:
                for fates, closed in same.items():
                    found.update(dict.fromkeys(others.intersection(closed), fates))
        return found


class Lease:
    """What a worker knows about its own name."""

    def __init__(self, worker: str) -> None:
        """Start a registration with nothing in hand and no lease yet."""
        self.worker = worker
        self.until_s = float("-inf")
        self.unbroken_since_s = float("inf")
        self._confirmed_s = float("-inf")
        self.next_seq = 1
        self.suspect_seq: int | None = None
        self._held: dict[int, bytearray] = {}
        self._closed: deque[tuple[float, _Closed]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in hand."""
        return not self._held

    def renew(self, *, sent_s: float, now_s: float, lease_s: float, longest_gap_s: float) -> None:
        """Count a beat that was first sent at `sent_s` and is confirmed now."""
        if now_s - self._confirmed_s > longest_gap_s:
            self.unbroken_since_s = now_s
        self._confirmed_s = now_s
        self.until_s = sent_s + lease_s

    def lose(self) -> None:
        """Remember that somebody fenced this name."""
        self.until_s = self.unbroken_since_s = float("-inf")

    def hold(self, seq: int, slots: int, *, suspect: bool) -> None:
        """A take gave us batch `seq`."""
        self._held[seq] = bytearray(b".") * slots
        self.next_seq = seq + 1
        if suspect:
            self.suspect_seq = seq

    def holds_suspect(self) -> bool:
        """Whether a suspect is in hand, which must stay alone."""
        return self.suspect_seq in self._held

    def mark(self, seq: int, indexes: list[int], fate: int) -> None:
        """Redis has confirmed that these slots are settled."""
        held = self._held.get(seq)
        if held is not None:
            for index in indexes:
                held[index] = fate

    def grow(self, seq: int, index: int) -> None:
        """A split appended a slot to a batch."""
        held = self._held.get(seq)
        if held is not None and len(held) <= index:
            held.extend(b"." * (index + 1 - len(held)))

    def close(self, seq: int, now_s: float) -> None:
        """Put a batch aside if its last slot is settled."""
        held = self._held.get(seq)
        if held is not None and LIVE not in held:
            del self._held[seq]
            if not self._closed or now_s > self._closed[-1][0] + _TOGETHER_S:
                self._closed.append((now_s, {}))
            self._closed[-1][1].setdefault(bytes(held), array("q")).append(seq)

    def snapshot(self, now_s: float) -> Believed:
        """Keep what is believed now, batches closed within the last half minute included."""
        while self._closed and self._closed[0][0] < now_s - _REMEMBER_S - _TOGETHER_S:
            self._closed.popleft()
        closed = [same for _, same in self._closed]
        self._closed.append((now_s, {}))  # what closes from now on was not known yet
        return Believed({seq: bytes(held) for seq, held in self._held.items()}, closed)


def find_leaks(
    table: Mapping[int, bytes], believed: Mapping[int, bytes], before_seq: int
) -> list[Leak]:
    """Compare Redis's open table with what was believed before it was asked for.

    `before_seq` was the next seq to take at that time: batches from there on may still be on their
    way.
    """
    leaks: list[Leak] = []
    for seq, characters in table.items():
        if seq >= before_seq and seq not in believed:
            continue
        ours = believed.get(seq, b"")
        if ours and ours.count(LIVE) == len(ours):
            continue
        ours = ours.ljust(len(characters), bytes([MOVED]) if not ours else b".")
        pairs = zip(characters, ours, strict=False)
        leaks += [
            (seq, index, fate == DONE)
            for index, (theirs, fate) in enumerate(pairs)
            if theirs in LIVE_IN_REDIS and fate != LIVE
        ]
    return leaks
