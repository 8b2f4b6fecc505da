"""What an HTTP status means for a task, and when to come again.

    status                     fate         blame
    2xx                        DELIVERED    nobody
    408, 425, 429, 5xx         LATER        message
    3xx that is not followed   NEVER        message
    other 4xx, 304             NEVER        message

Retry-After (RFC 9110 section 10.2.3) is obeyed where the task is tried again: seconds or a date,
up to a day.
"""

from email.utils import parsedate_to_datetime

from geomail.delivery.outcome import Blame, Fate, Outcome

_LATER = frozenset((408, 425, 429))
_MOST_AGAIN_S = 86_400.0
_MOST_DIGITS = 9


def judge_status(status: int, reason: str) -> Outcome:
    """Return the outcome of a task that was answered with this status."""
    text = f"{status} {reason}".rstrip()
    if 200 <= status < 300:
        return Outcome(Fate.DELIVERED, Blame.NOBODY, "url", text, status)
    fate = Fate.LATER if status >= 500 or status in _LATER else Fate.NEVER
    return Outcome(fate, Blame.MESSAGE, "url", text, status)


def refused(reason: str, status: int | None = None) -> Outcome:
    """Return the outcome of a task that is not done, and never will be."""
    return Outcome(Fate.NEVER, Blame.MESSAGE, "url", reason, status)


def failed(reason: str, blame: Blame = Blame.HOST) -> Outcome:
    """Return the outcome of a try that got no answer."""
    return Outcome(Fate.LATER, blame, "url", reason)


def again_in_s(retry_after: str | None, *, now_s: float) -> float | None:
    """Return the seconds that a Retry-After asks for, None without a sound one."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:_MOST_DIGITS]), _MOST_AGAIN_S)
    try:
        at_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(0.0, at_s - now_s), _MOST_AGAIN_S)
