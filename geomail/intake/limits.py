"""What all doors of a process share out among clients: bytes on their way in, and jobs a second.

Room    the bytes that may be held of documents that have not been pushed yet, over all connections;
        who would hold more waits a while for the others, and is then refused. One of those who hold
        something already has the right of way: it may go on, by one document at most, until it
        gives back. Else many that have half a document each would all wait for each other
Rates   how many jobs a second one address may bring (`door_rate`): a bucket of one second's worth;
        who takes more is in debt, and told for how long. An IPv6 /64 counts as one address

A process has its own: of several workers each allows as much. Not promised: fairness among clients
that want the same room.
"""

import time
from ipaddress import IPv6Address

from gevent.event import Event

from geomail.config import Settings

_MOST_ADDRESSES = 10_000
_BURST_S = 1.0
_MB = 1024 * 1024


class Room:
    """So many bytes for all; `held` by those that hold a `Share`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._first: Share | None = None  # who has the right of way
        self._freed = Event()

    def share(self) -> "Share":
        """Return a share of it that holds nothing yet."""
        return Share(self)


class Share:
    """What one connection holds. Give it back with `hold(0)`."""

    __slots__ = ("_room", "bytes")

    def __init__(self, room: Room) -> None:
        self.bytes = 0
        self._room = room

    def hold(self, size: int, *, patience_s: float = 0.0) -> bool:
        """Hold `size` bytes from now on; False: there is no room for them, within `patience_s`.

        Less than before always works.
        """
        room = self._room
        deadline = time.monotonic() + patience_s
        while room.held - self.bytes + size > room.limit and size > self.bytes:
            if self._goes_first():
                break
            left_s = deadline - time.monotonic()
            room._freed.clear()
            if left_s <= 0 or not room._freed.wait(left_s):
                return False
        if size < self.bytes:
            self._make_way()
        room.held += size - self.bytes
        self.bytes = size
        return True

    def _goes_first(self) -> bool:
        room = self._room
        if room._first is None and self.bytes:
            room._first = self
        return room._first is self

    def _make_way(self) -> None:
        room = self._room
        if room._first is self:
            room._first = None
        room._freed.set()


class Rates:
    """Jobs a second for each address; 0: any number. Times are seconds of a monotonic clock."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._until: dict[str, float] = {}  # when an address has paid for what it brought

    def spend(self, host: str, jobs: int, now: float) -> float:
        """Note that `host` brings so many jobs; return how many seconds it has to wait."""
        if not self._rate:
            return 0.0
        until = self._until
        key = network(host)
        paid = max(until.pop(key, 0.0), now - _BURST_S) + jobs / self._rate
        if len(until) >= _MOST_ADDRESSES:
            del until[next(iter(until))]  # who brought something least recently
        until[key] = paid
        return max(0.0, paid - now)

    def debt_s(self, host: str, now: float) -> float:
        """Return how long `host` has to wait before it may bring one more."""
        paid = self._until.get(network(host)) if self._rate else None
        return max(0.0, paid + 1 / self._rate - now) if paid is not None else 0.0


def network(host: str) -> str:
    """Return what counts as one address."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))


def room_of(settings: Settings) -> Room:
    """Return the room that doors have: a quarter of `memory_mb`, two documents at least.

    A document that is being pushed is there up to four times: read, decoded, packed, on the wire.
    """
    return Room(_MB * max(settings.memory_mb // 4, 2 * settings.door_max_mb))


def most_bytes(settings: Settings) -> int:
    """Return how large one job may be, in bytes."""
    return _MB * settings.door_max_mb
