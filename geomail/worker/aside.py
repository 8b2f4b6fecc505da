"""What is put aside: held for a moment, so that one parking in Redis holds several of a route.

Where many hosts are closed or full, a take brings a mail or two for each of them. Parked at once,
each would cost Redis commands of its own; so what is met at a glance (shut.py) waits here until a
quarter of a second has passed, or it has become much, or there is use for it (`Settler.hurry`).

What waits here is still in its batch, and this worker's: nothing is lost with it. Routes that are
closed or full have no use for it so soon, and other workers hear of it later anyway, when the timer
of the route ends.
"""

from geomail.queue import Park, Queue

_HELD_S = 0.25
_MOST_SLOTS = 512
_MOST_BYTES = 2_000_000


class Aside:
    """What waits to be parked, by list and route."""

    def __init__(self) -> None:
        self.count = 0
        self._bytes = 0
        self._until = 0.0
        self._held: dict[tuple[Queue, str, str, int], Park] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, queue: Queue, record: Park, now: float) -> None:
        """Hold what is to be parked at `now`, the monotonic clock's."""
        if not self._held:
            self._until = now + _HELD_S
        slots = record.slots
        key = queue, slots[0].worker, record.route, id(record.state)
        if known := self._held.get(key):
            known.slots.extend(slots)
        else:
            self._held[key] = record
        self.count += len(slots)
        self._bytes += sum([len(slot.payload) or slot.size for slot in slots])

    @property
    def is_full(self) -> bool:
        """Whether what is held is too much to wait for more."""
        return self.count >= _MOST_SLOTS or self._bytes >= _MOST_BYTES

    def due_in_s(self, now: float) -> float | None:
        """Return the seconds until it is to be parked; None when nothing is held."""
        return max(0.0, self._until - now) if self._held else None

    def holds(self, queue: Queue, name: str) -> bool:
        """Whether something for the route `name` is held."""
        return any(each is queue and route == name for each, _, route, _ in self._held)

    def empty(self) -> list[tuple[Queue, Park]]:
        """Return all, and hold nothing any more."""
        held = [(key[0], record) for key, record in self._held.items()]
        self._held.clear()
        self.count = self._bytes = 0
        return held
