"""The gauge: how full a queue is, and whether its producers are told to slow down.

`T:pressure` is `ok` or `high`, for producers that use Redis: a GET before a large run is all it
takes. Workers write it with their beat, doors once a second. It is `high` from `high_water` waiting
jobs on (the list, what doors pushed, what is parked or came back; not what is delayed or dead), and
`ok` again at nine tenths of it. Nothing depends on it: who ignores it is served all the same.
"""

from typing import Literal, cast

from geomail.queue.keys import Keys
from geomail.queue.link import Link, Script

Pressure = Literal["ok", "high"]

_GAUGE = Script("gauge")


class Gauge:
    """Reads one queue's, on a connection of its own."""

    def __init__(self, link: Link, name: str) -> None:
        """Prepare to read; nothing is sent yet."""
        self._keys = Keys(name)
        self._connection = link.open("gauge", self._keys.list)

    def read(
        self, high_water: int, *, timeout_s: float, tries: bool = False
    ) -> tuple[int, Pressure, str] | None:
        """Return how many jobs wait, what producers are told, and why nothing can be written, ""
        when it can, or was not tried (`tries`); None when Redis is away.

        Raises RedisUnusable.
        """
        keys = self._keys
        names = (keys.list, keys.arrive, keys.jobs, keys.delayed, keys.dead, keys.pressure)
        command = ("EVAL", _GAUGE.source, len(names), *names, high_water, int(tries))
        reply = self._connection.attempt(*command, timeout_s=timeout_s)
        if reply is None:
            return None
        return reply[0], cast("Pressure", reply[1].decode()), reply[2].decode()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
