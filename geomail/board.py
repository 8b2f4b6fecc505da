"""The board: the hosts that all workers see, as `geomail hosts` and `geomail status` show them.

A table that fits its terminal: what is less needed leaves it, the reason of a trouble stands below
its line. Off a terminal nothing is cut, and nothing is coloured.
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from geomail.delivery import shown
from geomail.delivery.shown import HostShown, Snapshot
from geomail.queue.link import Link
from geomail.queue.lookout import Lookout, Told
from geomail.report import shown as printable

_MOST_ROWS = 100
_NOBODY = "no worker tells of a host of this route"
_COLOURS = {"closed": "31", "held": "33", "probing": "33", "waiting": "36", "full": "36"}
# In the order in which they stand; when a line is too long the last of `_LESS_NEEDED` goes first.
_COLUMNS = (
    "route", "host", "state", "conns", "rate", "ready", "in hand", "parked", "delivered", "failed",
    "limit",
)  # fmt: skip
_LESS_NEEDED = ("rate", "limit", "delivered", "ready", "failed")
_RARE = ("rate", "limit")  # not shown where no host has one
_LEFT = ("route", "host", "state", "limit")
_SHORT, _SHORTEST = 26, 14  # names are cut to that before columns go, and after


class Board(msgspec.Struct, frozen=True):
    """What all workers of some lists see."""

    hosts: list[HostShown]
    workers: int  # with a lease
    silent: int  # of them have told nothing yet
    left_out: int  # lanes that did not fit into what was told
    held: tuple[tuple[str, str], ...]
    unseen: int = 0  # routes for which mail is parked, beyond those that were looked at


def look(link: Link, names: Iterable[str]) -> Board:
    """Ask the lists `names` what their workers see."""
    lookouts = {name: Lookout(link, name) for name in names}
    told = {name: lookout.told() for name, lookout in lookouts.items()}
    snapshots = list(_snapshots(link, told))
    held = tuple(sorted({one for each in told.values() for one in each.held}))
    hosts = shown.merged(snapshots)
    waiting, unseen = Counter[str](), 0
    for lookout in lookouts.values():
        parked, more = lookout.parked(host.route for host in hosts)
        waiting.update(parked)
        unseen += more
    workers = sum(len(each.workers) for each in told.values())
    silent = workers - sum(len(each.says) for each in told.values())
    left_out = sum(one.left_out for _, one in snapshots)
    return Board(_with_parked(hosts, waiting, held), workers, silent, left_out, held, unseen)


def _snapshots(link: Link, told: Mapping[str, Told]) -> Iterator[tuple[float, Snapshot]]:
    """Yield each worker's snapshot once, with its age; where it points elsewhere that is read."""
    elsewhere: dict[str, set[str]] = {}
    for each in told.values():
        for worker, one in _read(each).items():
            if one.told_at is None:
                yield each.says[worker][0], one
            elif one.told_at[0] not in told:
                elsewhere.setdefault(one.told_at[0], set()).add(one.told_at[1])
    for name, workers in elsewhere.items():
        there = Lookout(link, name).told()
        for worker, one in _read(there).items():
            if worker in workers:
                yield there.says[worker][0], one


def _read(told: Told) -> dict[str, Snapshot]:
    return shown.read({worker: json for worker, (_, json) in told.says.items()})


def _with_parked(
    hosts: list[HostShown], waiting: Counter[str], held: Iterable[tuple[str, str]]
) -> list[HostShown]:
    """Add to each route's first host how many jobs wait for it, and the routes nobody tells of."""
    found = []
    for host in hosts:
        jobs = waiting.pop(host.route, 0)
        found.append(msgspec.structs.replace(host, parked=jobs) if jobs else host)
    for route, jobs in waiting.items():
        relay = route.partition("/")[0]
        state: shown.State = "held" if ("relay", relay) in held else "waiting"
        found.append(HostShown("", relay, route, state, why=_NOBODY, parked=jobs, workers=0))
    return shown.in_order(found)


# ---- for programs


def as_json(board: Board) -> str:
    """Return the board for programs: every field of every host, unset ones as null."""
    hosts = [_fields(host) for host in board.hosts]
    facts = {"workers": board.workers, "silent": board.silent, "left_out": board.left_out}
    return json.dumps({**facts, "unseen_routes": board.unseen, "hosts": hosts}, indent=2)


def troubles_as_json(board: Board) -> list[dict[str, Any]]:
    """Return the hosts that take nothing now, for programs."""
    return [_fields(host) for host in _in_trouble(board)]


def _fields(host: HostShown) -> dict[str, Any]:
    return {name: getattr(host, name) for name in host.__struct_fields__}


# ---- for people


def text(board: Board, *, width: int | None = None, is_coloured: bool = False) -> str:
    """Return the board for people, at most `width` columns wide (None: as wide as it takes)."""
    lines: list[str] = []
    rows = [_cells(host) for host in board.hosts[:_MOST_ROWS]]
    if rows:
        lines = _table(board.hosts, rows, width, is_coloured=is_coloured)
    if len(board.hosts) > _MOST_ROWS:
        lines.append(f"and {len(board.hosts) - _MOST_ROWS} more (--json shows all)")
    return "\n".join([*lines, *_remarks(board)])


def for_terminal(board: Board) -> str:
    """Return the board as standard output can have it."""
    if not sys.stdout.isatty():
        return text(board)
    width = max(60, shutil.get_terminal_size().columns)
    return text(board, width=width, is_coloured="NO_COLOR" not in os.environ)


def troubles(board: Board) -> list[tuple[str, str]]:
    """Return host and what is the matter with it, for those that take nothing now."""
    return [(name_of(host), told(host)) for host in _in_trouble(board)]


def name_of(host: HostShown) -> str:
    """Return how a host is called beside others: route and host."""
    return printable(f"{host.route} {host.host}".rstrip())


def told(host: HostShown) -> str:
    """Return in words what state a host is in, and why."""
    return f"{state_of(host)}: {printable(host.why)}" if host.why else state_of(host)


def state_of(host: HostShown) -> str:
    """Return in words what state a host is in, and until when."""
    words: str = host.state
    if host.state == "held":
        words += f" (geomail resume --relay {printable(host.relay)})"
    if host.again_in_s is not None:
        words += f", again {soon(host.again_in_s)}"
    return words


def _in_trouble(board: Board) -> list[HostShown]:
    return [host for host in board.hosts if host.state in ("closed", "probing", "waiting")]


def rate_of(per_s: float) -> str:
    """Return in words how many mails may go in what time."""
    return f"{per_s:.3g}/s" if per_s >= 0.1 else f"{per_s * 60:.3g}/min"


def soon(seconds: float) -> str:
    """Return in words when something is that is so many seconds ahead."""
    if seconds < 120:
        digits = 0 if seconds >= 10 else 1
        return f"in {seconds:.{digits}f} s" if seconds else "now"
    return f"in {seconds / 60:.0f} min" if seconds < 7200 else f"in {seconds / 3600:.1f} h"


def _cells(host: HostShown) -> dict[str, str]:
    return {
        "route": printable(host.route),
        "host": printable(host.host) or "-",
        "state": host.state,
        "conns": f"{host.connections}/{host.window}",
        "rate": rate_of(host.rate) if host.rate else "",
        "ready": str(host.ready),
        "in hand": str(host.in_hand),
        "parked": str(host.parked),
        "delivered": str(host.delivered),
        "failed": str(host.failed),
        "limit": host.binding or "",
    }


def _table(
    hosts: Sequence[HostShown],
    rows: Sequence[dict[str, str]],
    width: int | None,
    *,
    is_coloured: bool,
) -> list[str]:
    widths = _widths(rows, width)
    lines = [_line({name: name for name in widths}, widths).upper()]
    for host, row in zip(hosts, rows, strict=False):
        lines.append(_line(row, widths, colour=_COLOURS.get(host.state) if is_coloured else None))
        if host.why or host.again_in_s is not None or host.state == "held":
            reason = f"  {told(host)}"
            lines.append(reason if width is None else _cut(reason, width))
    return lines


def _widths(rows: Sequence[dict[str, str]], width: int | None) -> dict[str, int]:
    """Return the columns that fit, with their widths."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in _COLUMNS}
    for name in _RARE:
        if not any(row[name] for row in rows):
            del widths[name]
    if width is None:
        return widths

    _shorten_names(widths, width, least=_SHORT)
    for name in reversed(_LESS_NEEDED):
        if _excess(widths, width) > 0:
            widths.pop(name, None)
    _shorten_names(widths, width, least=_SHORTEST)
    return widths


def _shorten_names(widths: dict[str, int], width: int, *, least: int) -> None:
    for name in ("route", "host"):
        widths[name] -= max(0, min(_excess(widths, width), widths[name] - least))


def _excess(widths: Mapping[str, int], width: int) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1) - width


def _line(row: Mapping[str, str], widths: Mapping[str, int], *, colour: str | None = None) -> str:
    cells = []
    for name, wide in widths.items():
        cell = _cut(row[name], wide)
        cell = cell.ljust(wide) if name in _LEFT else cell.rjust(wide)
        is_coloured = colour is not None and name == "state"
        cells.append(f"\x1b[{colour}m{cell}\x1b[0m" if is_coloured else cell)
    return "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _remarks(board: Board) -> Iterator[str]:
    if not board.workers:
        yield "no worker is at work" + (" on these lists" if board.hosts else "")
    elif not board.hosts and board.silent < board.workers:
        yield "no host has work or trouble"
    if board.silent:
        many = "1 worker has" if board.silent == 1 else f"{board.silent} workers have"
        yield f"{many} told nothing yet: each does with its next beat"
    if board.left_out:
        yield f"{board.left_out} lanes with work or trouble were left out by their workers"
    if board.unseen:
        yield f"mail is parked for {board.unseen:,} more routes, which were not looked at"
    seen = {host.relay for host in board.hosts}
    for kind, name in board.held:
        if kind == "queue" or name not in seen:
            held = printable(name)
            yield f"{kind} {held} is held (geomail resume --{kind} {held})"
