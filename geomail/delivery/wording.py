"""What hosts say in words, where no code says it: when to come back, and when a connection is full.

RFC 5321 gives a 4yz no place for a time, so servers write one into the text: "greylisted, try again
in 5 minutes", "please come back in 00:04:58", "retry after 300 seconds". asked_wait_s() reads it.
A number counts only behind a word that asks for a wait: "500 messages in 60 minutes" is a limit,
and no request. What can't be read is no request either; guesses are worse than the schedule.

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


def _seconds(found: re.Match[str]) -> float:
    if found["hours"] is not None:
        return (int(found["hours"]) * 60 + int(found["minutes"])) * 60.0 + int(found["seconds"])
    word = found["number"].lower()
    number = _NUMBER_WORDS[word] if word in _NUMBER_WORDS else float(word)
    seconds = number * _UNITS_S[found["unit"][0].lower()]
    if found["more"] is not None:
        seconds += int(found["more"]) * _UNITS_S[found["finer"][0].lower()]
    return seconds
