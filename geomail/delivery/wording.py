"""What hosts say in words, where no code says it: to come back later, to leave, to slow down.

RFC 5321 gives a 4yz no place for a time, so servers write one into the text: "greylisted, try again
in 5 minutes", "please come back in 00:04:58", "retry after 300 seconds". asked_wait_s() reads it.
A number counts only behind a word that asks for a wait: "500 messages in 60 minutes" is a limit,
and no request. What can't be read is no request either; guesses are worse than the schedule.

is_full() knows a connection that has carried what it may, is_too_fast() a sender that is too quick:
Gmail's "unusual rate", Exchange Online's "Server busy" and "rate limited", Yahoo's [TS…], Postfix's
"too much mail from", what Exim's ratelimit and hosting panels say. A recipient who gets too much is
no reason to slow down for the others, nor are too many connections.

Pure functions of a text, in English, which is what these programs write.
"""

import re

MOST_S = 86_400.0

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER_WORDS = {"a": 1.0, "an": 1.0, "one": 1.0, "half an": 0.5}
_REQUEST = r"""
    \b(?: (?:try|retry|retries|retrying|resend|send|attempt|come|call|check|connect|reconnect)
            (?:\s+ (?:it|this|again|back|sending|connecting|message|mail|your|the|later)){0,4}
        | wait(?:ing)? | again | back | later
        | (?:gr[ae]ylist(?:ed|ing)?|deferred|delayed|blocked|throttled|suspended)
            (?:\s+ (?:you|temporarily|active|in \s action)){0,2}
        | (?:retry|wait|delay)[ _-]?(?:after|time|period|in)? \s* [:=]
    )"""
_PREPOSITION = r"""
    [\s,:;(]* (?:(?:in|after|for|at \s least|another|about|approximately|approx\.?|~)[\s~]*){0,3}"""
_WAIT = re.compile(
    _REQUEST
    + _PREPOSITION
    + r"""(?: (?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)\b
        | (?P<number>\d{1,7}(?:\.\d{1,3})?|half\ an|an?\b|one\b)
          [\s-]* (?P<unit>seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)
            (?:\(s\))? (?![A-Za-z0-9])
          (?: (?:,|\s|and)* (?P<more>\d{1,4}) \s*
            (?P<finer>seconds?|secs?|s|minutes?|mins?|m)(?![A-Za-z0-9]) )?
      )""",
    re.IGNORECASE | re.VERBOSE,
)
# One behind the other: as one pattern with gaps they are half a second of backtracking for 1 KB.
_FULL = [
    re.compile(words, re.IGNORECASE)
    for words in (
        r"too\smany|max|limit",
        r"\b(?:messages?|mails?|e-mails?|transactions?|deliveries)\b",
        r"\b(?:connection|session)\b",
    )
]
_TOO_FAST = re.compile(
    r"""rate[\s-]*limit | \brate\s+(?:is\s+)?(?:over|exceed|too) | \brate\b.{0,40}\bexceed
    | exceed\w*.{0,40}\brate\b | unusual\s+rate | \b4\.7\.28\b
    | throttl | slow\s*down | \btoo\s+(?:fast|quickly|frequent)
    | \btoo\s+(?:much|many)\s+(?:e-?mails?|mails?|messages?)\b
    | \[TSS?\d\d\] | (?:unexpected|unusual|excessive)\s+volume
    | \b(?:server|system|host)\s+(?:is\s+)?(?:too\s+)?busy
    | \b(?:max\w*|limit)\b.{0,20}\b(?:e-?mails|mails|messages)\b.{0,20}\b(?:per|an|a|each)\s+
      (?:second|minute|hour|day)
    | \b(?:sending|message|hourly|daily)\s+(?:rate|limit|quota)\b.{0,20}\b(?:exceeded|reached)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_TOO_FAST = re.compile(
    r"trying\s+to\s+contact | receiving\s+mail | (?:concurrent|simultaneous|many)\s+connections",
    re.IGNORECASE | re.VERBOSE,
)


def asked_wait_s(text: str) -> float | None:
    """Return the seconds that a reply asks to wait before the next try, a day at most, or None."""
    longest = max((_seconds(found) for found in _WAIT.finditer(text[:1000])), default=0.0)
    return min(longest, MOST_S) if longest > 0 else None


def is_full(text: str) -> bool:
    """Return whether a reply says that this connection has carried as many messages as it may."""
    at, text = 0, text[:1000]
    for words in _FULL:
        found = words.search(text, at)
        if found is None:
            return False
        at = found.end()
    return True


def is_too_fast(text: str) -> bool:
    """Return whether a 4yz says that mails come faster than the host takes them from us."""
    text = text[:1000]
    if _TOO_FAST.search(text) is None:
        return False
    return _NOT_TOO_FAST.search(text) is None and not is_full(text)


def _seconds(found: re.Match[str]) -> float:
    if found["hours"] is not None:
        return (int(found["hours"]) * 60 + int(found["minutes"])) * 60.0 + int(found["seconds"])
    word = found["number"].lower()
    number = _NUMBER_WORDS[word] if word in _NUMBER_WORDS else float(word)
    seconds = number * _UNITS_S[found["unit"][0].lower()]
    if found["more"] is not None:
        seconds += int(found["more"]) * _UNITS_S[found["finer"][0].lower()]
    return seconds
