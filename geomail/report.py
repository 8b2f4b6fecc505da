"""What people are shown of a queue: small aligned tables, or JSON for programs.

What came from outside (replies, payloads, ids) is shown with its control characters escaped, so
that no dead letter can play with a terminal.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from geomail.queue import Counts, DeadLetter

_REASON_WIDTH = 100
_TOP_REASONS = 5
_TOP_TROUBLES = 10
_TOP_ROUTES = 8
_MOST_ROUTES = 1_000  # in JSON
# What a failed check says, at which kind of URL, and what a person can try then.
_ADVICE = (
    (
        "can't be verified: (self-signed|unable to get)",
        "smtp",
        'ca_file = "FILE" in [relay.NAME] of geomail.toml, with the certificate of who signed it',
    ),
    (
        "STARTTLS is not offered",
        "smtp",
        (
            "smtps:// on port 465; in a network that nobody else can read, smtp:// and, with a"
            " login, auth_in_clear = true in [relay.NAME] of geomail.toml"
        ),
    ),
    ("^greeting: timed out", r"smtp(\+starttls)?:", "smtps://, if that port begins with TLS"),
    (
        "no AUTH mechanism in common: none",
        "smtp",
        "another port, such as 465 or 587, or a URL without USER@: here nobody can log in",
    ),
)


def status(
    counts: Mapping[str, "Counts"],
    reasons: Mapping[str, Mapping[str, int]],
    troubles: Sequence[tuple[str, str]] = (),
) -> str:
    """Return how many jobs of each queue are where, for people.

    `reasons`: for each queue, why the newest dead letters died, most frequent first; `troubles`:
    hosts that take nothing now, and why.
    """
    parts = [
        f"{shown(name)}\n{_aligned(_status_rows(one, reasons[name]), indent=2)}"
        for name, one in counts.items()
    ]
    if troubles:
        lines = "\n".join(f"  {host}: {told}" for host, told in troubles[:_TOP_TROUBLES])
        more = len(troubles) - _TOP_TROUBLES
        rest = f"\n  and {more} more (geomail hosts)" if more > 0 else ""
        parts.append(f"hosts in trouble\n{lines}{rest}")
    return "\n\n".join(parts)


def status_as_json(
    counts: Mapping[str, "Counts"],
    reasons: Mapping[str, Mapping[str, int]],
    troubles: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the same for programs: one object by queue.

    With several queues each has the same hosts in trouble, for workers share them.
    """
    hosts = {"hosts_in_trouble": list(troubles)}
    return _json({name: hosts | _with_sums(one, reasons[name]) for name, one in counts.items()})


def dead_letters(letters: Sequence["DeadLetter"]) -> str:
    """Return a line for each dead letter."""
    if not letters:
        return "no dead letters"
    rows = [("id", "died", "tries", "bytes", "reason")]
    rows += [
        (
            shown(letter.id),
            _time(letter.died_at_ms),
            str(letter.state.tries),
            str(letter.size),
            shown(letter.reason)[:_REASON_WIDTH],
        )
        for letter in letters
    ]
    return _aligned(rows)


def dead_letters_as_json(letters: Iterable["DeadLetter"]) -> str:
    """Return an array with an object for each dead letter, without its payload."""
    return _json([_facts(letter) for letter in letters])


def dead_letter(letter: "DeadLetter") -> str:
    """Return all that is known of one dead letter, and its payload."""
    facts = _facts(letter)
    facts["died"], facts["first seen"] = facts.pop("died_at"), facts.pop("first_seen")
    rows = [(name, shown(str(value))) for name, value in facts.items() if value is not None]
    payload = (letter.payload or b"").decode("utf-8", "backslashreplace")
    return _aligned(rows) + "\n\n" + "\n".join(map(shown, payload.split("\n")))


def advice(url: str, failure: str) -> str | None:
    """Return what to try at a relay of `url` whose check said `failure`, None when it says that."""
    for said, kind, what in _ADVICE:
        if re.search(said, failure) and re.match(kind, url):
            return f"try: {what}"
    return None


def _facts(letter: "DeadLetter") -> dict[str, Any]:
    state = letter.state
    return {
        "id": letter.id,
        "reason": letter.reason,
        "last": state.last,
        "tries": state.tries,
        "route": state.route,
        "recipients": state.rcpt,
        "died_at": _time(letter.died_at_ms),
        "first_seen": _time(letter.first_seen_ms),
        "deaths": letter.deaths,
        "bytes": letter.size,
    }


def _status_rows(one: "Counts", reasons: Mapping[str, int]) -> Iterable[tuple[str, ...]]:
    sources = {"fresh": one.list + one.arrive + one.pushed, "back": one.front}
    yield "waiting", str(one.waiting), _listed(sources | {"suspects": one.suspects})
    yield from _movement(one)
    if one.pressure == "high":
        yield "pressure", "high", "producers are told to slow down (high_water)"
    for kind, name in one.held:
        yield "held", "", f"{kind} {shown(name)} (geomail resume --{kind} {shown(name)})"
    yield "in flight", str(one.in_flight), ""
    due_s = max(0, (one.next_due_ms or 0) - one.now_ms) / 1000
    yield "delayed", str(one.delayed), f"next in {due_s:.0f} s" if one.delayed else ""
    yield "parked", str(sum(one.parked.values())), _fullest(one.parked)
    yield "dead", str(one.dead), ""
    for reason, number in list(reasons.items())[:_TOP_REASONS]:
        yield "", str(number), shown(reason)[:_REASON_WIDTH]
    yield "workers", str(len(one.workers)), ""
    for name, held in one.workers.items():
        lease = "lost its lease" if held.fenced else f"lease {held.lease_left_ms / 1000:.0f} s"
        yield "", "", f"{shown(name)}: {lease}, holds {held.jobs}"
    yield "maybe twice", str(one.maybe_duplicates), ""
    yield "reconciled", str(one.stats.get("reconciled", 0)), ""
    if one.stats:
        yield "so far", "", _listed(one.stats)


def _movement(one: "Counts") -> Iterable[tuple[str, ...]]:
    """Yield what people ask first: does it drain, and when is it done?"""
    if one.not_empty_since_ms is not None:
        minutes = (one.now_ms - one.not_empty_since_ms) / 60_000
        yield "", "", f"the list has not been empty for {minutes:.1f} min"
    left = one.drained_in_minutes
    if one.waiting:
        done = "at the present rate never" if left is None else f"drained in {left:.1f} min"
        yield "", "", f"{done} ({one.delivered_per_minute:.0f} delivered a minute)"


def _with_sums(one: "Counts", reasons: Mapping[str, int]) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(one)
    sums = {
        "waiting": one.waiting,
        "in_flight": one.in_flight,
        "drained_in_minutes": one.drained_in_minutes,
        "maybe_duplicates": one.maybe_duplicates,
        "reconciled": one.stats.get("reconciled", 0),
        "dead_reasons": dict(list(reasons.items())[:_TOP_REASONS]),
        "parked_jobs": sum(one.parked.values()),
        "parked_routes": len(one.parked),
    }
    fullest = dict(Counter(one.parked).most_common(_MOST_ROUTES))
    return {**sums, **built, "parked": fullest}


def _fullest(parked: Mapping[str, int]) -> str:
    told = _listed(dict(Counter(parked).most_common(_TOP_ROUTES)))
    return f"{told}, and {more:,} more routes" if (more := len(parked) - _TOP_ROUTES) > 0 else told


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(name)} {number}" for name, number in numbers.items() if number)


def _aligned(rows: Iterable[Sequence[str]], *, indent: int = 0) -> str:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)
    return "\n".join(" " * indent + line for line in lines)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(text: str) -> str:
    """Return `text` as a terminal may have it: what is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True)
