"""Dead letters: look, put back, drop. Each call of the script is bounded; the loops are here.

Only what was dead when a loop began is looked at, so a job that dies again meanwhile does not keep
it going.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Script
from geomail.queue.records import DeadLetter, encode_state, parse_job

_DEAD = Script("dead")
_PAGE = 100
_EXPIRE_CALLS = 10
_VARIES = re.compile(r"<?[^\s<>:]+@[^\s<>,;]+>?|\b(?=\w*\d)\w{7,}\b")


class Choice(msgspec.Struct, frozen=True):
    """Which dead letters are meant: these ids, those whose reason contains a text, or every one."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    every: bool = False


def find(desk: Connection, keys: Keys, *, limit: int, reason: str | None) -> list[DeadLetter]:
    """Return up to `limit` dead letters, newest first."""
    found: list[DeadLetter] = []
    for letter in _letters(desk, keys, reason):
        if len(found) >= limit:
            break
        found.append(letter)
    return found


def show(desk: Connection, keys: Keys, job_id: str) -> DeadLetter | None:
    """Return one dead letter with its payload."""
    reply = _run(desk, keys, "show", job_id)
    if not reply:
        return None
    deaths, first_seen_ms, state, payload = parse_job(reply[1])
    if len(reply) > 2 and reply[2]:
        payload = reply[2].partition(b"\n")[2]
    died_at_ms = int(float(reply[0]))
    return DeadLetter(job_id, died_at_ms, first_seen_ms, deaths, state, len(payload), payload)


def retry(desk: Connection, keys: Keys, choice: Choice) -> int:
    """Put dead letters back in front with all their tries; their age counts from now."""
    moved = 0
    for page in _pages(desk, keys, choice):
        now_ms = _now_ms(desk)
        pairs = [(letter.id, encode_state(_revived(letter, now_ms))) for letter in page]
        while pairs:
            flat = [word for pair in pairs for word in pair]
            done, looked = _run(desk, keys, "retry", *flat)
            moved += done
            del pairs[:looked]
    return moved


def drop(desk: Connection, keys: Keys, choice: Choice) -> int:
    """Delete dead letters for ever."""
    dropped = 0
    for page in _pages(desk, keys, choice):
        ids = [letter.id for letter in page]
        while ids:
            done, looked = _run(desk, keys, "drop", *ids)
            dropped += done
            del ids[:looked]
    return dropped


def expire(desk: Connection, keys: Keys, *, age_ms: int) -> int:
    """Delete dead letters that died longer ago than `age_ms`, some of them; return how many."""
    dropped = 0
    for _ in range(_EXPIRE_CALLS):
        done, looked = _run(desk, keys, "expire", age_ms)
        dropped += done
        if not looked:
            break
    return dropped


def reasons(desk: Connection, keys: Keys, *, sample: int) -> dict[str, int]:
    """Count the newest `sample` dead letters by reason, most frequent first.

    Addresses and long numbers in a reason are left out, so that what is alike is counted together.
    """
    newest = islice(_letters(desk, keys, None), sample)
    counted = Counter(_VARIES.sub("…", letter.reason) for letter in newest)
    return dict(counted.most_common())


def _revived(letter: DeadLetter, now_ms: int) -> msgspec.Struct:
    return msgspec.structs.replace(
        letter.state,
        tries=0,
        unknown=0,
        last=None,
        reason=None,
        at_ms=None,
        retried_ms=now_ms,
        last_words=None,
    )


def _pages(desk: Connection, keys: Keys, choice: Choice) -> Iterator[list[DeadLetter]]:
    """Read the chosen letters to the end before the first page is given out: pages would shift."""
    if choice.ids:
        shown = (show(desk, keys, job_id) for job_id in choice.ids)
        letters = [msgspec.structs.replace(letter, payload=None) for letter in shown if letter]
    elif choice.reason is not None or choice.every:
        letters = list(_letters(desk, keys, choice.reason))
    else:
        letters = []
    for start in range(0, len(letters), _PAGE):
        yield letters[start : start + _PAGE]


def _letters(desk: Connection, keys: Keys, reason: str | None) -> Iterator[DeadLetter]:
    newest_ms, offset = _now_ms(desk), 0
    while True:
        looked, *rows = _run(desk, keys, "list", newest_ms, offset, _PAGE)
        for job_id, died_at_ms, header, size in rows:
            deaths, first_seen_ms, state, _ = parse_job(header)
            letter = DeadLetter(
                job_id.decode(), int(float(died_at_ms)), first_seen_ms, deaths, state, size
            )
            if reason is None or reason.lower() in letter.reason.lower():
                yield letter
        offset += looked
        if not looked:
            return


def _now_ms(desk: Connection) -> int:
    seconds, micros = desk.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def _run(desk: Connection, keys: Keys, *arguments: bytes | str | int) -> list[Any]:
    names = [keys.jobs, keys.dead, keys.delayed, keys.front, keys.stats]
    names += [*keys.seen, *keys.outcomes]
    reply: list[Any] = desk.run(_DEAD, names, arguments)
    return reply
