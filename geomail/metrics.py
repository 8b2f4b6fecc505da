"""Counters that know nobody: a name and a number, counted in this process since it started.

Any room may count; whoever shows numbers reads a snapshot. There is one hub and no thread, so a
plain dictionary is exact. Counters are for people: no decision in geomail depends on one.
"""

_counters: dict[str, int] = {}


def count(name: str, n: int = 1) -> int:
    """Add `n` to the counter `name` and return its new value."""
    _counters[name] = counted = _counters.get(name, 0) + n
    return counted


def snapshot() -> dict[str, int]:
    """Return a copy of all counters."""
    return dict(_counters)
