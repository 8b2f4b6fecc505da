"""What the queue's keys are called; the only place that knows.

L is the producers' list. All other keys are `{L}:<suffix>`, so that Redis's hash-tag rule puts them
into the slot of L; a name that has a tag already is kept as it is. A name for which the two slots
would differ is refused.
"""

import re

from geomail.errors import ConfigError


class Keys:
    """The key names of one queue."""

    def __init__(self, name: str) -> None:
        """Derive them from the producers' list; raises ConfigError when Redis Cluster would tear
        them apart.
        """
        self._prefix = name if _tag_of(name) != name else f"{{{name}}}"
        if not name or _tag_of(self._prefix) != _tag_of(name):
            raise ConfigError(
                f"queue name {name!r} can't be used: choose one without braces, or with one {{tag}}"
            )
        self.list = name.encode()
        self.arrive = self._named("arrive")
        self.pushed = self._named("pushed")
        self.front = self._named("front")
        self.jobs = self._named("jobs")
        self.delayed = self._named("delayed")
        self.dead = self._named("dead")
        self.routes = self._named("routes")
        self.suspects = self._named("suspects")
        self.workers = self._named("workers")
        self.stats = self._named("stats")
        self.held = self._named("held")
        self.hosts = self._named("hosts")
        self.pressure = self._named("pressure")
        self.nudge = self._named("nudge")
        self.seen = (self._named("seen:0"), self._named("seen:1"))
        self.outcomes = (self._named("outcomes:0"), self._named("outcomes:1"))

    def open(self, worker: str) -> bytes:
        """The open table of a worker."""
        return self._named(f"open:{worker}")

    def batch(self, worker: str, seq: int) -> bytes:
        """The list that one take filled."""
        return self._named(f"batch:{worker}:{seq}")

    def park(self, route: str) -> bytes:
        """The list of references that wait for a route."""
        return self._named(f"park:{route}")

    def _named(self, suffix: str) -> bytes:
        return f"{self._prefix}:{suffix}".encode()


def ceiling_key(relay: str) -> bytes:
    """The hash of what hosts of a relay take; no list has it, for all lists share the hosts."""
    return f"{{geomail:{relay}}}:ceiling".encode()


def connections_key(route: str) -> bytes:
    """The hash of who holds how many connections to a route."""
    return f"{{geomail:{route}}}:conns".encode()


def rate_key(route: str, rate: str) -> bytes:
    """The hash of which times one rate of a route has given away."""
    return f"{{geomail:{route}}}:rate:{rate}".encode()


def _tag_of(key: str) -> str:
    """Return the part of a key that Redis Cluster hashes."""
    found = re.match(r"[^{]*\{([^}]+)\}", key)
    return found[1] if found else key
