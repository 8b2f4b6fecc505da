"""What a worker tells of its lanes with its beat: seen while it works, gone when it has left."""

import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from hired import Hired, Place, mail, mails, until, url

from geomail import board, trace
from geomail.board import Board
from geomail.delivery import shown
from geomail.delivery.shown import HostShown
from geomail.queue import Link, Queue
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)
NOWHERE = "smtp://127.0.0.1:1"


def look(place: Place, *names: str) -> Board:
    return board.look(Link(place.server.url), names or ("queue:email",))


def host_of(place: Place, route: str) -> HostShown | None:
    return next((host for host in look(place).hosts if host.route == route), None)


def is_seen(place: Place, route: str, **facts: object) -> bool:
    host = host_of(place, route)
    return host is not None and all(getattr(host, name) == fact for name, fact in facts.items())


def relays(place: Place, **urls: str) -> Path:
    file = place.folder.parent / "geomail.toml"
    file.write_text("".join(f'[relay.{name}]\nurl = "{one}"\n' for name, one in urls.items()))
    return file


def raw_hosts(place: Place) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = place.redis.hgetall("{queue:email}:hosts")
    return found


def test_a_closed_host_is_told_with_reason_countdown_and_what_is_parked(place: Place) -> None:
    place.worker(NOWHERE, backoff_base_s=30, backoff_cap_s=30)
    place.push(*mails(7))
    until(lambda: is_seen(place, "default", state="closed", parked=4), within_s=20)
    host = host_of(place, "default")
    assert host is not None
    assert host.host == "127.0.0.1:1"
    assert "Connection refused" in (host.why or "")
    assert 0 < (host.again_in_s or 0) <= 40
    assert host.binding == "host"


def test_what_was_delivered_and_what_failed_is_counted(place: Place, sink: Sink) -> None:
    place.push(*mails(5), mail("no", to=["reply+550@example.org"]))
    place.worker(sink)
    until(lambda: is_seen(place, "default", delivered=5, failed=1, in_hand=0), within_s=20)


def test_two_workers_are_one_line(place: Place, sink: Sink) -> None:
    place.worker(sink)
    place.worker(sink)
    until(lambda: is_seen(place, "default", workers=2, state="open"), within_s=20)


def test_a_held_relay_says_so(place: Place, sink: Sink) -> None:
    place.worker(file=relays(place, default=url(sink), bulk=url(sink)))
    place.desk.hold("relay", "bulk", on=True)
    until(lambda: is_seen(place, "bulk", state="held"), within_s=20)
    place.push(mail(1, relay="bulk"))
    until(lambda: is_seen(place, "bulk", state="held", parked=1), within_s=20)
    assert "held (geomail resume --relay bulk)" in board.text(look(place))
    assert is_seen(place, "default", state="open")


def test_a_worker_that_leaves_is_seen_no_more(place: Place, sink: Sink) -> None:
    worker = place.worker(sink)
    until(lambda: raw_hosts(place), within_s=20)
    worker.tell()
    assert worker.wait() == 0
    assert raw_hosts(place) == {}
    assert look(place).workers == 0


def test_a_dead_worker_is_seen_until_its_lease_is_over_and_removed_when_it_is_reaped(
    place: Place, sink: Sink
) -> None:
    with closing(Queue(Link(place.server.url), lease_s=0.6, beat_s=0.1)) as victim:
        victim.register()
        assert victim.beat(b'{"lanes":[{"host":"old:25","relay":"old","route":"old"}]}')
        assert is_seen(place, "old")
        until(lambda: not is_seen(place, "old"), within_s=20)
        assert victim.worker.encode() in raw_hosts(place)
        place.worker(sink)
        until(lambda: victim.worker.encode() not in raw_hosts(place), within_s=20)


def test_a_worker_of_two_lists_tells_the_first_and_points_to_it_at_the_other(
    place: Place, sink: Sink
) -> None:
    place.worker(sink, queue=["one", "two"])

    def is_there(*names: str) -> bool:
        seen = look(place, *names)
        return not seen.silent and [host.workers for host in seen.hosts] == [1]

    until(lambda: is_there("one") and is_there("two") and is_there("one", "two"), within_s=20)


def test_a_fault_in_what_is_shown_costs_no_lease(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(shown, "snapshot", broken)
    worker = place.worker(sink)
    name = worker.queues[0].worker
    beats_go_on(place, sink, worker)
    assert worker.queues[0].worker == name


def test_a_key_in_the_way_costs_no_lease(place: Place, sink: Sink) -> None:
    place.redis.set("{queue:email}:hosts", "in the way")
    beats_go_on(place, sink, place.worker(sink))


def beats_go_on(place: Place, sink: Sink, worker: Hired) -> None:
    before = worker.queues[0]._lease.until_s
    until(lambda: worker.queues[0]._lease.until_s > before + 0.3, within_s=20)
    place.push(*mails(3))
    until(lambda: sink.count == 3, within_s=20)


def test_what_is_told_stays_small(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = place.hire(file=relays(place, **{f"r{i}": NOWHERE for i in range(300)}))
    for lane in worker.lanes.lanes:
        lane.fail("x" * 10_000, began=os.times().elapsed)
    json = shown.snapshot(worker.lanes, 0.0)
    assert len(json) < 50_000
    (told,) = shown.read({"w": json}).values()
    assert len(told.lanes) + told.left_out == 300


def test_why_tells_of_a_parked_mail_what_holds_it(place: Place) -> None:
    worker = place.worker(NOWHERE, backoff_base_s=30, backoff_cap_s=30)
    place.push(*mails(3))
    until(lambda: is_seen(place, "default", state="closed", parked=3), within_s=20)
    said = trace.why(Link(place.server.url), worker.settings, "n0")
    assert "(label n0)" in said
    assert "parked for route default, " in said
    assert "u0@example.org" in said
    assert "127.0.0.1:1: closed, again in " in said
    assert "limit: host" in said
    assert "Connection refused" in said
    assert "next try" in said


def test_why_follows_the_routes_of_the_settings(place: Place, sink: Sink) -> None:
    file = relays(place, default=url(sink), bulk=NOWHERE)
    file.write_text(file.read_text() + '[[route]]\nrecipient = "slow.example"\nrelay = "bulk"\n')
    settings = place.hire(file=file).settings
    place.push(mail("s", to=["a@slow.example"]), mail("b", to=["a@slow.example", "b@x.org"]))

    def routes(label: str) -> list[str]:
        said = trace.why(Link(place.server.url), settings, label)
        return re.findall(r"\n  route +(\w+)", said)

    assert routes("ns") == ["bulk"]
    assert routes("nb") == ["bulk", "default"]
