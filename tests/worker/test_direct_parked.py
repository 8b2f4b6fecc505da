"""The relay mx: what waits in Redis for a site that is closed, held or forgotten."""

import time

import gevent
import pytest
from hired import Place, until
from town import WITHIN_S, Town, all_settled, mail, worker

from geomail import board, metrics
from geomail.delivery import direct
from geomail.queue import Link

pytest_plugins = ("worker_fixtures", "town_fixtures")


def shown_of(place: Place) -> list[tuple[str, str, int]]:
    seen = board.look(Link(place.server.url), ["queue:email"])
    return [(host.route, host.state, host.parked) for host in seen.hosts]


def test_mail_for_a_closed_site_waits_in_redis_under_its_name(town: Town, place: Place) -> None:
    gone = town.sinks["mx.a.example"]
    gone.stop()
    place.push(*[mail(f"u{i}@a.example") for i in range(20)], mail("y@b.example"))
    hired = worker(place, town, backoff_base_s=2, backoff_cap_s=2)
    name = "default/mx.a.example"
    until(lambda: place.counts().parked.get(name) == 20, within_s=WITHIN_S)
    until(lambda: town.sinks["mx.b.example"].count == 1, within_s=WITHIN_S)
    assert hired.lanes.routes[name].last_error()
    until(lambda: (name, "closed", 20) in shown_of(place), within_s=WITHIN_S)
    gone.start()
    all_settled(place)
    assert town.took("mx.a.example") == {f"u{i}@a.example": 1 for i in range(20)}


def test_another_worker_finds_what_one_has_parked(town: Town, place: Place) -> None:
    gone = town.sinks["mx.a.example"]
    gone.stop()
    place.push(mail("x@a.example"))
    first = worker(place, town)
    until(lambda: sum(place.counts().parked.values()) == 1, within_s=WITHIN_S)
    first.tell()
    assert first.wait(WITHIN_S) == 0
    gone.start()
    worker(place, town)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1}


def test_what_is_held_asks_nobody(town: Town, place: Place) -> None:
    place.desk.hold("relay", "default", on=True)
    place.push(mail("x@a.example"))
    hired = worker(place, town)
    until(lambda: hired.lanes.routes["default"].is_held, within_s=WITHIN_S)
    gevent.sleep(0.3)
    assert town.dns.asked == []
    assert place.held() == 1
    place.desk.hold("relay", "default", on=False)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1}


def test_a_site_is_held_with_its_relay(town: Town, place: Place) -> None:
    hired = worker(place, town)
    place.push(mail("x@a.example"))
    all_settled(place)
    place.desk.hold("relay", "default", on=True)
    until(lambda: hired.lanes.routes["default/mx.a.example"].is_held, within_s=WITHIN_S)
    place.push(mail("y@a.example"))
    gevent.sleep(0.3)
    assert place.held() == 1
    place.desk.hold("relay", "default", on=False)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1, "y@a.example": 1}


def test_what_many_domains_leave_behind_is_bounded(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 10)
    for i in range(300):
        town.dns.add(f"mx.d{i}.example 300 A 127.0.0.2")
        town.domain(f"d{i}.example", f"mx.d{i}.example")
    place.push(*[mail(f"x@d{i}.example") for i in range(300)])
    hired = worker(place, town, idle_s=0.2)
    all_settled(place)
    assert town.took("mx.a.example") == {f"x@d{i}.example": 1 for i in range(300)}
    until(lambda: len(hired.lanes.routes) <= 11 and not hired.lanes.lanes, within_s=WITHIN_S)
    assert hired.lanes.bytes_in_hand == 0


def test_many_silent_domains_keep_nobody_waiting_for_ever(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 10)
    for i in range(60):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    place.push(*[mail(f"x@d{i}.example") for i in range(60)])
    hired = worker(place, town)
    until(lambda: sum(place.counts().parked.values()) == 60, within_s=WITHIN_S)
    place.push(*[mail(f"u{i}@a.example") for i in range(20)])
    until(lambda: town.sinks["mx.a.example"].count == 20, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 11 + 20, within_s=WITHIN_S)
    assert place.counts().dead == 0


def test_a_forgotten_host_that_is_closed_is_left_alone_until_it_is_due(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 5)
    for i in range(40):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    place.push(*[mail(f"x@d{i}.example") for i in range(40)])
    hired = worker(place, town, backoff_base_s=60, backoff_cap_s=60)
    until(lambda: sum(place.counts().parked.values()) == 40, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 6, within_s=WITHIN_S)
    before = metrics.snapshot()["host_failures"]
    place.push(*[mail(f"u{i}@a.example") for i in range(20)])  # rounds of the popper
    until(lambda: town.sinks["mx.a.example"].count == 20, within_s=WITHIN_S)
    assert metrics.snapshot()["host_failures"] - before <= 5


def test_new_mail_for_a_forgotten_host_that_is_closed_waits_too(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 5)
    for i in range(20):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    hired = worker(place, town, backoff_base_s=60, backoff_cap_s=60)
    place.push(*[mail(f"x@d{i}.example") for i in range(20)])
    until(lambda: sum(place.counts().parked.values()) == 20, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 6, within_s=WITHIN_S)
    before = metrics.snapshot()["host_failures"]
    place.push(*[mail(f"y@d{i}.example") for i in range(20)])
    until(lambda: sum(place.counts().parked.values()) == 40, within_s=WITHIN_S)
    assert metrics.snapshot()["host_failures"] == before


def test_a_forgotten_host_is_tried_when_its_pause_is_over(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hired = worker(place, town, idle_s=0.1)
    place.push(mail("x@a.example"))
    all_settled(place)
    (known,) = hired.lanes.directs.values()
    (route,) = known.routes.values()
    monkeypatch.setattr(direct, "MOST_ROUTES", 0)
    for lane in route.lanes:
        lane.health.strikes, lane.health.connects_from = 1, time.monotonic() + 3.0
    until(lambda: not known.routes, within_s=WITHIN_S)
    place.push(mail("y@a.example"))
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1, "y@a.example": 1}
