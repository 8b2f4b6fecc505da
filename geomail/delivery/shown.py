"""What people are shown of the lanes: one snapshot a worker, and all workers' put together.

With each beat a worker writes its snapshot to Redis, as JSON (queue/beat.lua). It is made of what
lanes know anyway, so it costs nothing between two beats. In it are the lanes of the relays by name,
and those of `mx` with work or trouble; the worst come first, and what does not fit into 50 KB is
counted only. A worker of several lists tells the first, and leaves at the others where it did.

    closed    left alone after failures, until the back-off ends
    held      a person keeps it back
    probing   one connection with one message finds out whether the host is back
    waiting   for the next token of a rate, or for connections that others have
    full      as much is in hand as the host can use soon; what comes is parked
    open      takes deliveries

Promised: what a worker tells is not older than a beat, and not told any more when its lease is
over. Not promised: that it still holds, nor that workers agree; each meets a host for itself.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from geomail.delivery.lane import Lane
    from geomail.delivery.lanes import Lanes
    from geomail.delivery.route import Route

State: TypeAlias = Literal["closed", "held", "probing", "waiting", "full", "open"]
Binding: TypeAlias = Literal[
    "concurrency", "window", "ceiling", "connections", "rate", "memory", "host"
]

_MOST_LANES = 200
_MOST_BYTES = 48_000
_LONGEST_WHY = 200
_WORST_FIRST: tuple[State, ...] = ("closed", "held", "probing", "waiting", "full", "open")


class LaneShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """One lane of one worker at the time of a beat."""

    host: str
    relay: str
    route: str
    state: State = "open"
    why: str | None = None  # what the host said, or did, when it failed last
    again_in_s: float | None = None
    connections: int = 0
    window: int = 0
    ceiling: int | None = None  # the most that the host was found to accept
    ready: int = 0
    in_hand: int = 0
    rate: float | None = None  # a second
    binding: Binding | None = None  # what keeps ready deliveries waiting
    delivered: int = 0
    failed: int = 0


class HostShown(LaneShown, frozen=True, omit_defaults=True):
    """The lanes of all workers to one host: sums, the worst state with its reason, the next try."""

    workers: int = 1
    parked: int = 0  # jobs that wait for the route


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker tells with its beat: its lanes, or the list and the name of its that do."""

    lanes: list[LaneShown] = []
    left_out: int = 0
    told_at: tuple[str, str] | None = None  # list, worker


_decode = msgspec.json.Decoder(Snapshot).decode
_encode = msgspec.json.Encoder().encode


# ---- what a worker tells


def snapshot(house: "Lanes", now: float, tasks: Sequence[LaneShown] = ()) -> bytes:
    """Return the snapshot of a worker's lanes at `now` as JSON; empty when there is none to show.

    `now`: seconds of the monotonic clock. `tasks`: what is to be seen of where tasks go.
    """
    found = list(_shown_lanes(house))
    lanes = [*tasks]
    size = len(_encode(lanes))
    for route, lane in heapq.nsmallest(_MOST_LANES, found, key=_trouble):
        lanes.append(shown(route, lane, now))
        size += len(_encode(lanes[-1])) + 1
        if size > _MOST_BYTES:
            lanes.pop()
            break
    total = len(found) + len(tasks)
    return _encode(Snapshot(lanes, total - len(lanes))) if total else b""


def pointer(queue: str, worker: str) -> bytes:
    """Return what a worker tells at its other lists: where the first one is, and its name there."""
    return _encode(Snapshot(told_at=(queue, worker)))


def shown(route: "Route", lane: "Lane", now: float) -> LaneShown:
    """Return what is to be seen of one lane."""
    opens_in_s = lane.opens_at(now) - now
    return LaneShown(
        lane.name,
        route.relay,
        route.name,
        _state(route, lane, now),
        _why(lane, now),
        round(opens_in_s, 1) if opens_in_s > 0.0 else None,
        lane.live,
        lane.health.window.size,
        lane.health.window.ceiling,
        ready=len(lane.ready),
        in_hand=lane.in_hand,
        rate=_rate(lane, now),
        binding=_binding(lane, now),
        delivered=lane.delivered,
        failed=lane.failed,
    )


def _shown_lanes(house: "Lanes") -> "Iterator[tuple[Route, Lane]]":
    for route in house.routes.values():
        for lane in route.lanes:
            if lane.in_hand or lane.senders or route.is_whole or not lane.is_well:
                yield route, lane


def _trouble(pair: "tuple[Route, Lane]") -> tuple[int, int]:
    """Return a key that puts the worst first, for 1 us: there may be thousands."""
    route, lane = pair
    return -lane.backoff.failures if not route.is_held else -1, -lane.in_hand


def _state(route: "Route", lane: "Lane", now: float) -> State:
    if route.is_held:
        return "held"
    if not lane.is_open(now):
        return "closed" if lane.backoff.is_closed(now) else "waiting"
    if lane.health.is_probing:
        return "probing"
    return "open" if lane.has_place(now) else "full"


def _why(lane: "Lane", now: float) -> str | None:
    if lane.last_error and not lane.is_well:
        return lane.last_error[:_LONGEST_WHY]
    return lane.limits.why(now) if lane.limits is not None else None


def _rate(lane: "Lane", now: float) -> float | None:
    """Return how many mails a second the lane is kept to, or has been granted; None: it is not."""
    if lane.brake is not None:
        return round(lane.brake.slowing.rate(now), 1)
    if lane.limits is not None and lane.limits.has_rate:
        return round(lane.limits.rate(now), 1)
    return None


def _binding(lane: "Lane", now: float) -> Binding | None:
    house = lane.house
    if lane.backoff.is_closed(now):
        return "host"
    if lane.limits is not None and (limit := lane.limits.binding(now)):
        return limit
    if not lane.ready:
        return None  # nothing waits for anything
    if not house.bytes_to_take():
        return "memory"
    if lane.brake is not None:
        return "host"
    most = min(house.share, house.settings.concurrency)
    window = lane.health.window
    if lane.has_window_full and window.size < most:
        return "window" if window.ceiling is None or window.size < window.ceiling else "ceiling"
    if lane.has_window_full:
        return "concurrency"
    return "concurrency" if len(lane.senders) >= most else None


# ---- all workers together


def read(told: Mapping[str, bytes]) -> dict[str, Snapshot]:
    """Read what workers told, by worker's name; what can't be read is left out."""
    found = {}
    for worker, json in told.items():
        try:
            found[worker] = _decode(json)
        except msgspec.MsgspecError:  # of another release: one worker less is shown
            continue
    return found


def merged(snapshots: Iterable[tuple[float, Snapshot]]) -> list[HostShown]:
    """Put the lanes of all workers together by route and host, those in most trouble first.

    `snapshots`: each with its age in seconds, by which countdowns are shortened.
    """
    by_host: dict[tuple[str, str], list[LaneShown]] = {}
    for age_s, one in snapshots:
        for lane in one.lanes:
            by_host.setdefault((lane.route, lane.host), []).append(_aged(lane, age_s))
    return in_order(map(_together, by_host.values()))


def in_order(hosts: Iterable[HostShown]) -> list[HostShown]:
    """Return hosts by trouble: the worst state, then what waits most."""
    return sorted(
        hosts, key=lambda host: (rank(host), -host.parked - host.in_hand, host.route, host.host)
    )


def rank(lane: LaneShown) -> int:
    """Return how bad a lane's state is: 0 is the worst."""
    return _WORST_FIRST.index(lane.state)


def _aged(lane: LaneShown, age_s: float) -> LaneShown:
    if lane.again_in_s is None:
        return lane
    left_s = round(max(0.0, lane.again_in_s - age_s), 1)
    return msgspec.structs.replace(lane, again_in_s=left_s)


def _together(lanes: list[LaneShown]) -> HostShown:
    worst = min(lanes, key=rank)
    tries = [lane.again_in_s for lane in lanes if lane.again_in_s is not None]
    ceilings = [lane.ceiling for lane in lanes if lane.ceiling is not None]
    rates = [lane.rate for lane in lanes if lane.rate is not None]
    return HostShown(
        worst.host,
        worst.relay,
        worst.route,
        worst.state,
        worst.why or next((lane.why for lane in lanes if lane.why), None),
        min(tries, default=None),
        sum(lane.connections for lane in lanes),
        sum(lane.window for lane in lanes),
        sum(ceilings) if len(ceilings) == len(lanes) else None,
        sum(lane.ready for lane in lanes),
        sum(lane.in_hand for lane in lanes),
        sum(rates) if rates else None,
        worst.binding or next((lane.binding for lane in lanes if lane.binding), None),
        sum(lane.delivered for lane in lanes),
        sum(lane.failed for lane in lanes),
        workers=len(lanes),
    )
