"""Keys that geomail does not know: counted each time, logged once each, otherwise ignored.

A typo in a key is the commonest mistake of a producer's author, and ignoring it silently the
unkindest answer. Each key is logged once in the life of the process, with the nearest name that is
known. Payloads choose the keys, so memory is bounded: after 256 different ones the rest is counted
as one.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from geomail import log, metrics

MAX_NOTED = 256
_MAX_KEY = 64
_noted: set[str] = set()


def note_unknown(key: object, known: Iterable[str]) -> None:
    """Count `key`, and log it the first time with the nearest of the `known` ones."""
    name = str(key)[:_MAX_KEY]
    if name not in _noted and len(_noted) >= MAX_NOTED:
        name = "(others)"
    metrics.count(f"unknown_key:{name}")
    if name not in _noted:
        _noted.add(name)
        log.warning("unknown_key", key=name, nearest=nearest(name, known))


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known name that `key` was most likely meant to be, if any."""
    close = get_close_matches(key.lower()[:_MAX_KEY], list(known), n=1, cutoff=0.6)
    return close[0] if close else None
