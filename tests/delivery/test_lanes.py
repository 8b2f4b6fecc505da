"""Lanes and senders against real hosts: a sink, or a port where nobody listens."""

import socket
import time

import gevent
import pytest
from house import MakeHouse, closed_port, many, talk, until, url
from scripted import Host, Peer

from geomail.delivery.outcome import Fate
from geomail.sink import Sink

pytest_plugins = ("delivery_fixtures",)


def test_each_delivery_is_reported_once(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), concurrency="4")
    house.put(0, *many(300))
    until(lambda: len(house.reports) == 300)
    assert sorted(to for to, _, _ in house.reports) == sorted(many(300))
    assert house.fates() == {Fate.DELIVERED: 300}
    assert sink.count == 300
    assert sink.connections_ever == 4
    assert house.lanes.in_hand() == 0


def test_a_row_of_mails_counts_for_its_lane_when_lanes_share(make_house: MakeHouse) -> None:
    urls = [f"smtp://127.0.0.1:{closed_port()}" for _ in range(3)]
    house = make_house(*urls, concurrency="5")
    rows = [house.deliveries(many(10)) for _ in urls]
    for lane, row in zip(house.lanes.lanes, rows, strict=True):
        lane.put_all(row)
    assert house.lanes.share == 1  # each wants two


def test_a_refusal_is_the_message_s_and_the_others_go_on(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink))
    house.put(0, "reply+451@x.org", "reply+550@x.org", "data+552@x.org", *many(50))
    until(lambda: len(house.reports) == 53)
    assert house.fates() == {Fate.DELIVERED: 50, Fate.LATER: 1, Fate.NEVER: 2}
    assert house.lanes.lanes[0].is_well


def test_a_host_that_refuses_keeps_nothing_and_is_probed_by_one(make_house: MakeHouse) -> None:
    house = make_house(f"smtp://127.0.0.1:{closed_port()}", backoff_base_s="0.1")
    lane = house.lanes.lanes[0]
    house.put(0, *many(30))
    until(lambda: len(house.stranded) == 30)
    assert lane.backoff.failures == 1
    assert not lane.is_open(time.monotonic())
    assert lane.in_hand == 0
    assert house.reports == []
    until(lambda: lane.is_open(time.monotonic()))
    assert lane.room(time.monotonic()) == 1
    house.put(0, *many(3))
    assert len(lane.senders) == 1
    until(lambda: lane.backoff.failures == 2)
    assert "Connection refused" in (lane.last_error or "")


def test_a_host_that_comes_back_gets_all_its_connections_again(make_house: MakeHouse) -> None:
    port = closed_port()
    house = make_house(f"smtp://127.0.0.1:{port}", backoff_base_s="0.05", concurrency="8")
    lane = house.lanes.lanes[0]
    house.put(0, *many(1))
    until(lambda: len(house.stranded) == 1)
    with Sink(("127.0.0.1", port)) as sink:
        until(lambda: lane.is_open(time.monotonic()))
        house.put(0, *many(200))
        until(lambda: len(house.reports) == 200)
        assert lane.is_well
        assert lane.health.window.size == 8
        assert sink.connections_ever > 1


@pytest.mark.parametrize("says_421", [False, True])
def test_used_up_connections_cost_nobody_anything(make_house: MakeHouse, says_421: bool) -> None:
    with Sink(mails_per_connection=3, says_421=says_421) as sink:
        house = make_house(url(sink), concurrency="2")
        house.put(0, *many(100))
        until(lambda: len(house.reports) >= 100)
        assert house.fates() == {Fate.DELIVERED: 100}
        assert sink.count == 100
        assert house.lanes.lanes[0].is_well


def test_an_unanswered_mail_is_unknown_and_the_rest_goes_on(
    make_house: MakeHouse, sink: Sink
) -> None:
    house = make_house(url(sink), final_s="0.4", backoff_base_s="0.05", concurrency="3")
    house.put(0, "never@x.org", *many(60))
    until(lambda: len(house.reports) == 61)
    assert house.fates() == {Fate.DELIVERED: 60, Fate.UNKNOWN: 1}


def test_a_hang_up_after_the_dot_is_unknown(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), backoff_base_s="0.05")
    house.put(0, "hangup@x.org")
    until(lambda: len(house.reports) == 1)
    assert house.reports[0][1] == [Fate.UNKNOWN]


def test_a_hanging_host_leaves_connections_for_another(make_house: MakeHouse, sink: Sink) -> None:
    with Sink() as hanging:
        house = make_house(url(hanging), url(sink), concurrency="10", final_s="30")
        house.put(0, *["never@x.org"] * 40)
        until(lambda: hanging.connections == 2)
        house.put(1, *many(100))
        until(lambda: len(house.reports) == 100)
        assert hanging.connections_ever == 2  # of ten: nothing has gone well there
        assert {host for _, _, host in house.reports} == {house.lanes.lanes[1].name}


def test_a_lane_above_its_share_gives_up_connections(make_house: MakeHouse, sink: Sink) -> None:
    with Sink(delay_s=0.02) as slow:
        house = make_house(url(slow), url(sink), concurrency="10")
        first, second = house.lanes.lanes
        house.put(0, *many(300))
        until(lambda: len(first.senders) == 9)
        house.put(1, *["slow+0.02@x.org"] * 300)
        until(lambda: len(second.senders) >= 4 and len(first.senders) <= 5)
        until(lambda: len(house.reports) == 600, within_s=20)
        assert house.fates() == {Fate.DELIVERED: 600}


def test_a_stale_idle_connection_is_replaced_silently(make_house: MakeHouse) -> None:
    port = closed_port()
    house = make_house(f"smtp://127.0.0.1:{port}")
    with Sink(("127.0.0.1", port)):
        house.put(0, "bo@x.org")
        until(lambda: len(house.reports) == 1)
    with Sink(("127.0.0.1", port)) as sink:
        house.put(0, "bo@x.org")
        until(lambda: len(house.reports) == 2)
        assert sink.count == 1
    assert house.fates() == {Fate.DELIVERED: 2}
    assert house.lanes.lanes[0].is_well


def test_idle_connections_are_closed(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), idle_s="0.1")
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    until(lambda: sink.connections == 0)
    until(lambda: not house.lanes.lanes[0].senders)


def test_nothing_is_sent_under_a_lost_lease(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), concurrency="1")
    taken = house.deliveries(many(5))
    house.queue.register()
    for delivery in taken:
        house.lanes.lanes[0].put(delivery)
    until(lambda: house.lanes.in_hand() == 0)
    assert sink.count == 0
    assert house.reports == []
    assert house.stranded == taken  # to be released: Redis knows whose they are


def test_a_drain_finishes_what_is_on_the_wire_and_returns_the_rest(make_house: MakeHouse) -> None:
    with Sink(delay_s=0.05) as sink:
        house = make_house(url(sink), concurrency="2")
        house.put(0, *many(50))
        until(lambda: sink.count >= 4)
        unbegun = house.lanes.stop()
        unbegun += house.lanes.join(5.0, last_s=1.0)
        assert len(unbegun) + len(house.reports) == 50
        assert house.fates() == {Fate.DELIVERED: sink.count}


def test_a_drain_cuts_off_what_hangs(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink), concurrency="2")
    house.put(0, "never@x.org")
    until(lambda: sink.count == 1)
    assert house.lanes.stop() == []
    assert house.lanes.join(0.4, last_s=0.2) == []
    assert house.fates() == {Fate.UNKNOWN: 1}


def test_a_letter_that_cannot_be_composed_is_dead(make_house: MakeHouse, sink: Sink) -> None:
    house = make_house(url(sink))
    # An SMTPUTF8 address, and a host without SMTPUTF8: refused here, no connection burnt.
    house.put(0, "bö@example.org", "bo@example.org")
    until(lambda: len(house.reports) == 2)
    assert sink.count in (1, 2)


def test_a_host_that_was_away_finds_no_stale_connections_in_its_way(make_house: MakeHouse) -> None:
    port = closed_port()
    house = make_house(f"smtp://127.0.0.1:{port}", backoff_base_s="0.1", concurrency="8")
    with Sink(("127.0.0.1", port)):
        house.put(0, *many(100))
        until(lambda: len(house.reports) == 100)
        until(lambda: len(house.lanes.lanes[0].idle) == len(house.lanes.lanes[0].senders) > 1)
    house.put(0, *many(3))
    until(lambda: not house.lanes.lanes[0].senders)
    with Sink(("127.0.0.1", port)) as sink:
        until(lambda: house.lanes.lanes[0].is_open(time.monotonic()))
        for delivery in house.stranded:
            house.lanes.lanes[0].put(delivery)
        until(lambda: sink.count == 3)


def test_a_probing_lane_gets_one_delivery(make_house: MakeHouse, sink: Sink) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        house = make_house(
            f"smtp://127.0.0.1:{silent.getsockname()[1]}",
            url(sink),
            greeting_s="0.3",
            backoff_base_s="0.05",
            backoff_cap_s="0.05",
        )
        probing, route = house.lanes.lanes[0], house.lanes.routes["default"]
        house.put(0, *many(1))
        until(lambda: probing.backoff.failures == 1)
        until(lambda: probing.is_open(time.monotonic()))
        assert probing.room(time.monotonic()) == 1
        for delivery in house.deliveries(many(15)):
            lane = route.choose(time.monotonic())
            assert lane is not None
            lane.put(delivery)
        assert probing.in_hand == 1
        until(lambda: house.fates() == {Fate.DELIVERED: 14})


def test_a_connection_that_says_quit_holds_up_nobody(make_house: MakeHouse) -> None:
    leaving: list[float] = []

    def bide() -> None:
        leaving.append(time.monotonic())
        gevent.sleep(2)

    with Host(lambda peer: talk(peer, then=bide)) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", idle_s="0.1", concurrency="3")
        house.put(0, "a@x.org")
        until(lambda: bool(leaving))
        house.put(0, "b@x.org")
        until(lambda: len(house.reports) == 2, within_s=1)
        assert house.fates() == {Fate.DELIVERED: 2}


def test_the_most_mails_of_a_connection_are_kept(make_house: MakeHouse) -> None:
    talks: list[list[int]] = []
    with Host(lambda peer: talks.append(talk(peer, limits="MAILMAX=3"))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.1")
        house.put(0, *many(7))
        until(lambda: len(house.reports) == 7)
        assert house.fates() == {Fate.DELIVERED: 7}
        assert house.lanes.lanes[0].is_well
        until(lambda: len(talks) == 3)
    assert talks == [[1, 1, 1], [1, 1, 1], [1]]


def test_the_most_recipients_of_a_mail_are_kept(make_house: MakeHouse) -> None:
    talks: list[list[int]] = []
    with Host(lambda peer: talks.append(talk(peer, limits="RCPTMAX=2"))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.1")
        one, five = house.deliveries(["a@x.org", "b@x.org"])
        five.recipients = many(5)
        house.lanes.lanes[0].put(five)
        house.lanes.lanes[0].put(one)
        until(lambda: len(talks) == 1)
        assert house.splits == [(five, 2)]
        assert house.fates() == {Fate.DELIVERED: 1}
        assert house.lanes.in_hand() == house.lanes.bytes_in_hand == 0
    assert talks == [[1]]


def test_pipelining_is_learnt_down_when_replies_get_out_of_step(make_house: MakeHouse) -> None:
    def answer_one_too_many(peer: Peer) -> None:
        peer.greet()
        while True:
            peer.hear(b"DATA\r\n")
            peer.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
            peer.hear(b"\r\n.\r\n")
            # Whoever has sent the next envelope already is answered out of step.
            gevent.sleep(0.02)
            peer.sock.setblocking(False)
            try:
                ahead = bool(peer.heard) or bool(peer.sock.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                ahead = False
            peer.sock.setblocking(True)
            peer.say(b"354 what?\r\n" if ahead else b"250 ok\r\n")

    with Host(answer_one_too_many) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        lane = house.lanes.lanes[0]
        house.put(0, *many(10))
        until(lambda: len(house.reports) == 10)
        assert lane.ways.pipeline(time.monotonic()) == "message"
        assert lane.is_well
        assert house.fates()[Fate.DELIVERED] >= 9  # the one in work may have been delivered
