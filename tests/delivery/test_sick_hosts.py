"""Hosts that take few connections, are dead, or say nothing: what they cost, and cost others."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent.event import Event
from house import House, MakeHouse, many, talk, until, url
from scripted import Host, Peer

from geomail.delivery import lane
from geomail.delivery.host.health import Trouble
from geomail.delivery.host.window import START
from geomail.delivery.outcome import Fate
from geomail.sink import Sink

pytest_plugins = ("delivery_fixtures",)


class Shelf:
    """Keeps ceilings in a dictionary."""

    def __init__(self, **known: int) -> None:
        self.known = known

    def recall(self, relay: str, _host: str) -> int | None:
        return self.known.get(relay)

    def keep(self, relay: str, _host: str, ceiling: int) -> None:
        self.known[relay] = ceiling


def on_shelf(house: House, shelf: Shelf) -> House:
    house.lanes.ceilings._shelf = shelf
    return house


@contextmanager
def full_host() -> Iterator[str]:
    """Give the address of a host whose backlog is full: connections to it time out."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(door.getsockname())
        try:
            yield f"smtp://127.0.0.1:{door.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


# ---- few connections


def test_a_host_that_takes_five_connections_is_given_five(make_house: MakeHouse) -> None:
    shelf = Shelf()
    with Sink(max_connections=5, delay_s=0.01) as sink:
        house = on_shelf(make_house(url(sink), concurrency="20"), shelf)
        house.put(0, *many(600))
        until(lambda: len(house.reports) == 600, within_s=30)
        assert house.fates() == {Fate.DELIVERED: 600}
        assert house.lane.health.window.ceiling == 5
        assert sink.connections_ever <= 5 + 7  # few are in vain
        assert house.lane.is_well
        assert house.stranded == []
        until(lambda: shelf.known == {"default": 5})


def test_mails_that_take_long_wait_for_no_more_connections_than_are_taken(
    make_house: MakeHouse,
) -> None:
    with Sink(max_connections=5, delay_s=0.4) as sink:
        house = make_house(url(sink), concurrency="20")
        house.put(0, *many(40))
        until(lambda: len(house.reports) == 40, within_s=60)
        assert house.fates() == {Fate.DELIVERED: 40}
        assert sink.connections_ever <= 5 + 3


def test_a_refusal_while_others_work_makes_no_place_for_more(make_house: MakeHouse) -> None:
    with Sink(delay_s=0.2) as sink:
        house = make_house(url(sink), concurrency="20")
        house.put(0, *many(40))
        until(lambda: house.lane.proved >= 2)
        house.lane.fail("421 too many", Trouble.REFUSAL, began=time.monotonic())
        assert house.lane.health.strikes == 1
        assert house.lane.has_window_full  # with those that there are
        house.lanes.stop()


def test_what_was_learnt_before_is_where_a_lane_stops(make_house: MakeHouse) -> None:
    with Sink(max_connections=5, delay_s=0.02) as sink:
        house = on_shelf(make_house(url(sink), concurrency="20"), Shelf(default=5))
        house.put(0, *many(300))
        until(lambda: len(house.reports) == 300, within_s=30)
        assert sink.connections_ever == 5


def test_a_host_that_counts_connections_at_mail(make_house: MakeHouse) -> None:
    inside: list[Peer] = []

    def play(peer: Peer) -> None:
        def reply(line: bytes) -> bytes:
            gevent.sleep(0.002)
            if line.startswith(b"MAIL") and peer not in inside:
                if len(inside) >= 3:
                    return b"421 4.7.0 Too many connections from you"
                inside.append(peer)
            return b"250 ok"

        try:
            talk(peer, reply=reply)
        finally:
            if peer in inside:
                inside.remove(peer)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="10")
        house.put(0, *many(200))
        until(lambda: len(house.reports) == 200, within_s=30)
        assert house.fates() == {Fate.DELIVERED: 200}
        assert house.lane.health.window.ceiling == 3


def test_who_is_to_wait_while_others_work_may_replace_them(make_house: MakeHouse) -> None:
    talks: list[Peer] = []

    def reply(_line: bytes) -> bytes:
        gevent.sleep(0.02)
        return b"250 ok"

    def play(peer: Peer) -> None:
        talks.append(peer)
        if len(talks) == 2:
            peer.say(b"421 4.7.0 Too many connections, try again in 300 seconds\r\n")
        else:
            talk(peer, reply=reply)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="5", idle_s="0.2")
        house.put(0, "first@example.org")
        until(lambda: len(house.reports) == 1)
        house.put(0, *many(10))
        until(lambda: len(house.reports) == 11)
        assert len(talks) == 2
        assert house.lane.health.window.size == 1
        until(lambda: not house.lane.senders)
        house.put(0, "late@example.org")
        until(lambda: len(house.reports) == 12)
        assert house.fates() == {Fate.DELIVERED: 12}


# ---- one of two


@pytest.mark.parametrize("kind", ["dead", "hanging", "refusing"])
def test_a_sick_host_holds_no_more_than_its_start(
    make_house: MakeHouse, sink: Sink, kind: str
) -> None:
    with full_host() as dead, Sink() as hanging, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = {
            "dead": dead,
            "hanging": url(hanging),
            "refusing": f"smtp://127.0.0.1:{held.getsockname()[1]}",
        }[kind]
        house = make_house(address, url(sink), concurrency="20", connect_s="20", final_s="30")
        sick, healthy = house.lanes.lanes
        house.put(0, *["never@x.org"] * 10)
        house.put(1, *many(900))
        until(lambda: len(house.reports) == 900)
        assert {host for _, _, host in house.reports} == {healthy.name}
        assert len(sick.senders) <= START
        assert house.lanes.share >= 20 - START or not sick.demand
        assert healthy.health.window.size >= 20 - START
        house.lanes.stop()
        for sender in tuple(sick.senders):
            sender.cut_off()
        until(lambda: not sick.senders)


def test_a_closed_lane_takes_nothing_for_a_connection_that_hangs(make_house: MakeHouse) -> None:
    is_hanging, may_end = Event(), Event()
    talks: list[Peer] = []

    def hang(line: bytes) -> bytes:
        if line == b".":
            is_hanging.set()
            may_end.wait(20)
            return b""
        return b"250 ok"

    def play(peer: Peer) -> None:
        talks.append(peer)
        if len(talks) == 1:
            talk(peer, reply=hang)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="3", backoff_base_s="60")
        house.put(0, "hangs@example.org")
        until(is_hanging.is_set)
        house.put(0, *many(3))
        until(lambda: len(house.stranded) == 3)
        assert house.lane.live == 1
        assert not house.lane.is_open(time.monotonic())
        assert house.lane.room(time.monotonic()) == 0
        may_end.set()


def test_a_host_that_falls_silent_is_tried_by_another_connection(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "_SILENCE_S", 0.5)
    talks: list[Peer] = []

    def play(peer: Peer) -> None:
        talks.append(peer)
        if len(talks) <= START:
            talk(peer, reply=lambda line: b"250 ok" if line != b"." else silence(peer))
        else:
            talk(peer)

    def silence(peer: Peer) -> bytes:
        peer.wait_for_end()
        return b""

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="10")
        house.put(0, *many(10))
        until(lambda: len(house.reports) == 1)
        assert house.fates() == {Fate.DELIVERED: 1}
        assert len(talks) == START + 1
        until(lambda: house.lane.is_well)


# ---- leaving


def test_one_that_leaves_does_so_for_one_that_was_asked_to(make_house: MakeHouse) -> None:
    with Sink(delay_s=0.02) as sink:
        house = make_house(url(sink), concurrency="2")
        house.put(0, *many(900))
        until(lambda: house.lane.proved == 2)
        one, other = house.lane.senders
        until(lambda: time.monotonic() > max(one.began, other.began) + 0.25)
        house.lane.leaving = 2
        for _ in range(3):  # asked so often on its way out
            assert one._must_leave()
        assert house.lane.leaving == 1
        until(lambda: one.ready() and other.ready())
        assert len(house.reports) < 900


def test_who_waits_for_an_answer_to_quit_is_not_silent(make_house: MakeHouse) -> None:
    with Host(lambda peer: talk(peer, then=lambda: peer.wait_for_end())) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", idle_s="0.1", quit_s="60")
        house.put(0, "a@x.org")
        until(lambda: bool(house.lanes.goodbyes))
        assert not house.lane.is_silent(time.monotonic() + 10 * lane._SILENCE_S)


def test_who_is_idle_leaves_when_the_host_is_closed(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), idle_s="60")
    house.put(0, "a@x.org")
    until(lambda: bool(house.lane.idle))
    house.lane.fail("no", Trouble.VERDICT, began=time.monotonic())
    until(lambda: not house.lane.senders)


def test_a_place_that_is_needed_waits_for_no_answer_to_quit(
    make_house: MakeHouse, sink: Sink
) -> None:
    with Host(lambda peer: talk(peer, then=lambda: peer.wait_for_end())) as host:
        house = make_house(
            f"smtp://127.0.0.1:{host.port}", url(sink), concurrency="1", idle_s="0.1", quit_s="60"
        )
        house.put(0, "a@x.org")
        until(lambda: bool(house.lanes.goodbyes))
        house.put(1, "b@x.org")
        until(lambda: len(house.reports) == 2, within_s=20)
        assert not house.lanes.goodbyes


def test_what_comes_back_to_a_relay_that_is_held_is_not_sent(make_house: MakeHouse) -> None:
    may_hang_up = Event()
    talks: list[Peer] = []

    def play(peer: Peer) -> None:
        talks.append(peer)
        peer.greet()
        peer.hear(b"\r\n")
        may_hang_up.wait(20)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        house.put(0, *many(3))
        until(lambda: len(talks) == 1 and len(house.lane.ready) < 3)
        left = house.lanes.routes["default"].hold(on=True)
        may_hang_up.set()
        until(lambda: house.lane.in_hand == 0)
        assert len(left) + len(house.stranded) == 3
        assert len(talks) == 1
