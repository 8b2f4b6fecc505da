"""What is parked: looked at in turn, asleep while its route is closed, and found by everybody."""

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from hired import Place, mail, mails, until, url

from geomail.queue import Link, Park, Queue
from geomail.sink import Sink
from geomail.worker import parked as parked_module
from geomail.worker.parked import Meetings, Parked

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 20.0


class Route:
    """As much of a route as is asked about here."""

    def __init__(self) -> None:
        self.is_held = False
        self.closed_s = 0.0
        self.asked = 0

    def opens_in_s(self, _now: float) -> float:
        self.asked += 1
        return self.closed_s


class House:
    """Routes by name, and relays mx."""

    def __init__(self, *names: str) -> None:
        self.routes: dict[str, Any] = {name: Route() for name in names}
        self.directs: dict[str, Any] = {}


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    made = Queue(Link(redis_url))
    made.register()
    yield made
    made.close()


def test_all_routes_get_their_turn_some_at_a_time(queue: Queue) -> None:
    names = [f"r{i}" for i in range(1000)]
    parked = Parked(House(*names))  # type: ignore[arg-type]
    for name in names:
        parked.add(queue, name)
        parked.add(queue, name)
    turns = [parked.turn(queue) for _ in range(16)]
    assert max(map(len, turns)) <= 64
    assert sorted({name for turn in turns for name in turn}) == sorted(names)


def test_a_closed_route_is_not_looked_at_until_it_opens(queue: Queue) -> None:
    house = House("a", "b")
    house.routes["a"].closed_s = 0.2
    parked = Parked(house)  # type: ignore[arg-type]
    parked.add(queue, "a")
    parked.add(queue, "b")
    assert parked.turn(queue) == ["b"]
    for _ in range(100):
        parked.add(queue, "a")
        parked.note_due(queue, ["a"])
        assert parked.turn(queue) == ["b"]
    assert house.routes["a"].asked == 1
    house.routes["a"].closed_s = 0.0
    until(lambda: "a" in parked.turn(queue), within_s=WITHIN_S)


def test_a_held_route_is_looked_at_when_something_has_changed(queue: Queue) -> None:
    house = House("a")
    house.routes["a"].is_held = True
    parked = Parked(house)  # type: ignore[arg-type]
    parked.add(queue, "a")
    assert parked.turn(queue) == []
    assert parked.lists() == [queue]
    house.routes["a"].is_held = False
    parked.wake()
    assert parked.turn(queue) == ["a"]
    parked.forget(queue, "a")
    assert parked.turn(queue) == []
    assert not parked
    assert parked.lists() == []


def test_a_relay_that_nobody_names_any_more_is_looked_at(queue: Queue) -> None:
    parked = Parked(House())  # type: ignore[arg-type]
    parked.add(queue, "gone")
    assert parked.turn(queue) == ["gone"]


def test_so_many_are_met_in_vain_and_four_for_each_of_use() -> None:
    meetings = Meetings()
    assert meetings.left(1.0, 0) == 500
    meetings.in_vain += 300
    assert meetings.left(1.05, 300) == 200
    assert meetings.left(1.05, 350) == 400
    meetings.in_vain += 400
    assert meetings.left(1.09, 750) == 0
    assert meetings.again_in_s(1.09) == pytest.approx(0.01)
    assert meetings.left(1.1, 750) == 500


def test_more_are_taken_where_many_were_met_in_vain() -> None:
    meetings = Meetings()
    assert meetings.widened(10) == 10
    for taken, in_vain, widened in (
        (100, 50, 20),
        (0, 0, 20),
        (40, 10, 13),
        (5, 5, 30),
        (9, 0, 10),
    ):
        meetings.note(taken, in_vain)
        assert meetings.widened(10) == widened


# ---- in Redis


def park(queue: Queue, *routes: str) -> None:
    """Park a mail for each route, to be tried at once."""
    queue.push([mail(route, relay=route) for route in routes])
    slots = []
    while batch := queue.take(1000).slots:
        slots += batch
    pairs = zip(slots, routes, strict=True)
    queue.settle([Park([slot], name, 0, slot.state) for slot, name in pairs])


def test_routes_that_are_due_hide_no_others(queue: Queue) -> None:
    names = [f"r{i}" for i in range(100)]
    park(queue, *names)
    told: set[str] = set()
    deadline = time.monotonic() + WITHIN_S
    while told != set(names):
        told.update(queue.take(1).routes_due)
        gevent.sleep(0.001)
        assert time.monotonic() < deadline, f"only {len(told)} were told"


def test_what_is_parked_for_an_open_relay_is_found_behind_many_closed_ones(
    place: Place, sink: Sink, queue: Queue
) -> None:
    park(queue, *(f"closed{i}" for i in range(200)), "default")
    queue.leave()
    file = place.folder.parent / "geomail.toml"
    tables = [f"[relay.closed{i}]\nurl = 'smtp://127.0.0.1:1'\n" for i in range(200)]
    file.write_text(f"[relay.default]\nurl = '{url(sink)}'\n{''.join(tables)}")
    place.worker(file=file)
    until(lambda: place.counts().stats.get("delivered") == 1, within_s=WITHIN_S)


def test_a_parked_relay_comes_back_with_its_host(place: Place, sink: Sink) -> None:
    port = sink.address[1]
    sink.stop()
    worker = place.worker(f"smtp://127.0.0.1:{port}")
    place.push(*mails(50))
    until(lambda: place.counts().parked == {"default": 50}, within_s=WITHIN_S)
    assert worker.admission.parked.names() == {"default"}
    with Sink(("127.0.0.1", port)):
        until(lambda: place.held() == 0, within_s=WITHIN_S)
        until(lambda: not worker.admission.parked, within_s=WITHIN_S)


def test_mails_for_a_closed_relay_are_parked_at_a_bounded_rate(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_module, "_MOST_MET", 10)
    monkeypatch.setattr(parked_module, "_FOR_ONE_OF_USE", 0)
    file = place.folder.parent / "geomail.toml"
    closed = "[relay.closed]\nurl = 'smtp://127.0.0.1:1'\n"
    file.write_text(f"[relay.default]\nurl = '{url(sink)}'\n{closed}")
    place.worker(file=file, backoff_base_s="60", backoff_cap_s="60")
    began = time.monotonic()
    place.push(*(mail(i, relay="closed") for i in range(200)), mail("last"))
    until(lambda: place.counts().stats.get("delivered") == 1, within_s=WITHIN_S)
    assert time.monotonic() - began > 1.0
    until(lambda: place.counts().parked == {"closed": 200}, within_s=WITHIN_S)
