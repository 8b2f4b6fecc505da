"""Dates as RFC 5322 section 3.3 writes them, always in UTC: `Fri, 20 Nov 2026 10:00:00 +0000`.

The moment is an argument; the locale has no say.
"""

from datetime import UTC, datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=1024)
def date(epoch_s: int) -> str:
    """Return the moment `epoch_s` (seconds since 1970) as a Date header has it."""
    at = datetime.fromtimestamp(epoch_s, UTC)
    month = _MONTHS[at.month - 1]
    return f"{_DAYS[at.weekday()]}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} +0000"
