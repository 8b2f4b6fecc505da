"""The trace of one mail: where it is, and what holds it, as `geomail why` tells it.

What Redis knows of the job (queue/whereabouts.py) is put beside what the workers see of its hosts
(board.py). A few lines a job; what could not be found out cheaply is said to be so.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from geomail import board
from geomail.board import Board
from geomail.carriers.routes import CALL, URL
from geomail.carriers.target import target_of
from geomail.carriers.task import describe
from geomail.config import Settings
from geomail.delivery.shown import HostShown
from geomail.errors import PayloadError
from geomail.job import CallTask, Email, HttpTask, Job, decode
from geomail.queue.link import Link
from geomail.queue.whereabouts import Search, Whereabouts, is_id
from geomail.report import shown as printable
from geomail.worker.signpost import DEFAULT_RELAY, Signpost

_MOST_HOSTS = 5
_MOST_RECIPIENTS = 5
_MOST_FOUND = 5
_MOST_ROUTES = 3
_AT_REST = ("ended", "split", "dead")
_NOTHING = "not known: delivered and forgotten, or never seen"


def why(link: Link, settings: Settings, name: str) -> str:
    """Return where the mail is that `name` means: its id, or the label that its producer gave it.

    The lists of `settings` are asked, one after the other, and the first that knows it answers.
    """
    lists = [one for one, _ in settings.queues]
    notes: list[str] = []
    for search in (Search(link, one) for one in lists):
        found, unseen = _find(search, name)
        if found:
            seen = board.look(link, lists)
            told = [_told(search, each, seen, settings) for each in found[:_MOST_FOUND]]
            if len(found) > _MOST_FOUND:
                told.append(f"and {len(found) - _MOST_FOUND} more of that name")
            return "\n\n".join(told)
        notes += [f"{printable(search.name)}: {note}" for note in unseen]
    kind = "id" if is_id(name) else "label"
    lines = [f"{printable(name)} on {', '.join(map(printable, lists))}: {_NOTHING}"]
    if kind == "label":
        lines[0] = f"no job of the label {lines[0]}"
    if notes:
        notes.append("by its id it would be found at once")
    return "\n".join([*lines, *(f"  {note}" for note in notes)])


def _find(search: Search, name: str) -> tuple[list[Whereabouts], list[str]]:
    known = search.find(name)
    if known is not None:
        return [known], []
    if is_id(name):
        return [], []
    return search.search(name, lambda payload: _label_of(payload) == name)


def _label_of(payload: bytes) -> str | None:
    try:
        return decode(payload).label
    except PayloadError:
        return None


def _told(search: Search, found: Whereabouts, seen: Board, settings: Settings) -> str:
    now_ms = search.now_ms()
    parts = {name: search.find(name) for name in found.parts}
    rows = [*_rows(search, found, now_ms), *_parts(search, found, parts, now_ms)]
    under_way = [one for one in (found, *parts.values()) if one and one.place not in _AT_REST]
    routes = {route: one for one in under_way for route in _routes(one, settings)}
    for route, one in islice(routes.items(), _MOST_ROUTES):
        rows += _hosts(one, route, seen)
    if under_way:
        rows += _obstacles(search, under_way[0], seen)
    widest = max(len(name) for name, _ in rows)
    job = _job(found)
    label = f" (label {printable(job.label)})" if job and job.label else ""
    head = f"{printable(found.id or 'not taken yet')}{label}"
    return "\n".join([head, *(f"  {name.ljust(widest)}  {text}" for name, text in rows)])


def _rows(search: Search, found: Whereabouts, now_ms: int) -> Iterator[tuple[str, str]]:
    job, state = _job(found), found.state
    email = job if isinstance(job, Email) else None
    yield "where", _where(search, found, now_ms)
    yield from (("", note) for note in found.notes)
    if found.first_seen_ms is not None:
        yield "first seen", f"{_span(now_ms - found.first_seen_ms)} ago"
    if isinstance(job, HttpTask | CallTask):
        kind = "call" if isinstance(job, CallTask) else "callback" if state.callback else "url"
        yield kind, printable(describe(job))
    recipients = state.rcpt or (email.recipients if email else [])
    if recipients and found.place != "split":  # who is left of them the parts say
        yield "recipients", _listed(recipients, email)
    if state.tries or state.unknown:
        unknown = f", {state.unknown} without an answer" if state.unknown else ""
        yield "tries", f"{state.tries}{unknown}"
    if state.last and not (state.reason or "").endswith(state.last):
        yield "last reply", printable(state.last)


def _routes(found: Whereabouts, settings: Settings) -> list[str]:
    """Return the routes that a mail goes by: as was decided, as it says, or by the settings."""
    job, decided = _job(found), found.state.route
    if isinstance(job, HttpTask | CallTask):
        return [decided or _route_of(job)]
    email = job
    if decided or email is None or email.relay:
        return [decided or (email.relay if email and email.relay else DEFAULT_RELAY)]
    return sorted(Signpost(settings).relays_of(email, found.state.rcpt or email.recipients))


def _where(search: Search, found: Whereabouts, now_ms: int) -> str:
    name, ahead = printable(search.name), _ahead(found)
    if found.place == "in hand":
        held = f"in the hand of worker {found.worker} for {_span(now_ms - (found.since_ms or 0))}"
        if (found.lease_until_ms or 0) < now_ms:
            held += "; its lease is over: another worker brings it back within a minute"
        return held
    return {
        "waiting": f"waiting on {name}{ahead}",
        "suspect": f"waiting on {name} to be tried alone, since two workers died with it{ahead}",
        "delayed": f"delayed until {_time(found.due_ms)}, in {_span((found.due_ms or 0) - now_ms)}",
        "parked": f"parked for route {printable(found.state.route or '?')}{ahead}",
        "dead": f"dead since {_time(found.died_ms)}: {printable(_reason(found))}",
        "split": f"split into parts, of which {found.parts_left} are left",
        "ended": _ended(found),
        "moving": "on its way from one place to another just now: ask again",
    }[found.place]


def _reason(found: Whereabouts) -> str:
    return found.state.reason or "workers died with it in hand"


def _ended(found: Whereabouts) -> str:
    outcome = found.outcome or {}
    at = f" at {_time(outcome['at_ms'])}" if "at_ms" in outcome else ""
    reason = f": {printable(outcome['reason'])}" if "reason" in outcome else ""
    return f"{outcome.get('outcome', 'ended')}{at}{reason}"


def _parts(
    search: Search, found: Whereabouts, parts: Mapping[str, Whereabouts | None], now_ms: int
) -> Iterator[tuple[str, str]]:
    for name, part in parts.items():
        number = name.removeprefix(found.id or "")
        if part is None:
            yield number, "gone just now"
            continue
        to = f"; to {_listed(part.state.rcpt, None, most=2)}" if part.state.rcpt else ""
        yield number, f"{_where(search, part, now_ms)}{to}"
    if found.parts_left > len(found.parts) and found.place == "split":
        yield "", f"and {found.parts_left - len(found.parts)} more (geomail why ID/NUMBER)"


def _hosts(found: Whereabouts, route: str, seen: Board) -> Iterator[tuple[str, str]]:
    """Yield what the workers see of a route's hosts, and when it is tried next."""
    hosts = [host for host in seen.hosts if host.workers and route in (host.route, host.relay)]
    yield "route", printable(route) + ("" if hosts else ": no worker tells of its hosts")
    for host in hosts[:_MOST_HOSTS]:
        yield "host", _host(host)
        if host.why:
            yield "", printable(host.why)
    if len(hosts) > _MOST_HOSTS:
        yield "", f"and {len(hosts) - _MOST_HOSTS} more hosts (geomail hosts)"
    if found.place == "parked" and hosts:
        yield "next try", _next_try(hosts)


def _host(host: HostShown) -> str:
    parts = [board.state_of(host), f"{host.connections} of {host.window} connections"]
    parts.append(f"{host.in_hand} in hand")
    if host.ceiling is not None:
        parts.append(f"takes {host.ceiling} as far as is known")
    if host.rate:
        parts.append(f"rate {board.rate_of(host.rate)}")
    if host.binding:
        parts.append(f"limit: {host.binding}")
    if host.workers > 1:
        parts.append(f"{host.workers} workers")
    return f"{printable(host.host)}: {', '.join(parts)}"


def _next_try(hosts: Sequence[HostShown]) -> str:
    if any(host.state == "held" for host in hosts):
        return "when it is held no more"
    tries = [host.again_in_s for host in hosts if host.again_in_s is not None]
    if len(tries) < len(hosts):
        return "when a host of its route has room"
    return board.soon(min(tries))


def _obstacles(search: Search, found: Whereabouts, seen: Board) -> Iterator[tuple[str, str]]:
    """Yield what keeps all of a list back: nobody works, or a person said so."""
    if ("queue", search.name) in seen.held and found.place in ("waiting", "parked", "suspect"):
        name = printable(search.name)
        yield "held", f"queue {name} is held (geomail resume --queue {name})"
    if not seen.workers:
        yield "workers", "none is at work (geomail run)"
    elif seen.silent:
        yield "workers", f"{seen.silent} of {seen.workers} have told nothing yet"


def _job(found: Whereabouts) -> Job | None:
    try:
        return decode(found.payload) if found.payload else None
    except PayloadError:
        return None


def _route_of(job: HttpTask | CallTask) -> str:
    if isinstance(job, CallTask):
        return CALL
    try:
        return f"{URL}/{target_of(job.url).key}"
    except PayloadError:
        return URL


def _ahead(found: Whereabouts) -> str:
    if found.in_front is None:
        return ""
    return f", {f'about {found.in_front:,}' if found.in_front else 'nothing'} in front of it"


def _listed(recipients: Sequence[str], email: Email | None, *, most: int = _MOST_RECIPIENTS) -> str:
    shown = ", ".join(map(printable, recipients[:most]))
    if len(recipients) > most:
        shown += f" and {len(recipients) - most} more"
    whole = len(email.recipients) if email else len(recipients)
    return shown if whole == len(recipients) else f"{shown} ({len(recipients)} of {whole} are left)"


def _time(ms: int | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((ms or 0) / 1000))


def _span(ms: int) -> str:
    seconds = max(0, ms) / 1000
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"
