"""A host that goes down, hangs or asks for a day: what it costs once it is well again."""

import time

import pytest
from gevent.event import Event
from house import MakeHouse, many, talk, until
from scripted import Host, Peer

from geomail.delivery.outcome import Fate

pytest_plugins = ("delivery_fixtures",)


def test_a_host_that_goes_down_teaches_no_number_of_mails(make_house: MakeHouse) -> None:
    """All its connections end in one moment, each at its second mail."""
    talks: list[Peer] = []
    waiting: list[bytes] = []

    def go_down(line: bytes) -> bytes:
        if line.startswith(b"MAIL"):
            waiting.append(line)
            if len(waiting) > 4:
                until(lambda: len(waiting) == 8)
                return b""
        return b"250 ok"

    def play(peer: Peer) -> None:
        talks.append(peer)
        if len(talks) <= 4:
            talk(peer, reply=go_down)
        else:
            talk(peer)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="4")
        house.put(0, *many(40))
        until(lambda: len(house.reports) == 40)
        assert house.fates() == {Fate.DELIVERED: 40}
        assert len(talks) == 8


def test_a_connection_that_hangs_is_in_no_probes_way(make_house: MakeHouse) -> None:
    talks: list[Peer] = []
    is_hanging, may_go = Event(), Event()

    def hang(line: bytes) -> bytes:
        if line == b".":
            is_hanging.set()
            talks[0].wait_for_end()
            return b""
        return b"250 ok"

    def play(peer: Peer) -> None:
        talks.append(peer)
        if len(talks) == 1:
            talk(peer, reply=hang)
        elif len(talks) == 2:
            may_go.wait(20)
        else:
            talk(peer)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="2", backoff_base_s="0.05")
        house.put(0, "hangs@example.org")
        until(is_hanging.is_set)
        house.put(0, "bo@example.org")
        until(lambda: len(talks) == 2)
        may_go.set()
        until(lambda: len(house.reports) == 1)
        assert house.reports[0][:2] == ("bo@example.org", [Fate.DELIVERED])
        house.put(0, *many(20))
        until(lambda: len(house.reports) == 21)
        assert house.fates() == {Fate.DELIVERED: 21}


@pytest.mark.parametrize(
    ("asked", "closed_s"), [("in 5 minutes", 300), ("in 24 hours", 3600), ("after 30 days", 3600)]
)
def test_a_host_is_left_alone_for_an_hour_at_most(
    make_house: MakeHouse, asked: str, closed_s: int
) -> None:
    def play(peer: Peer) -> None:
        peer.say(f"421 4.7.0 too busy, try again {asked}\r\n".encode())

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", backoff_cap_s="60")
        house.put(0, "bo@example.org")
        until(lambda: len(house.stranded) == 1)
        now = time.monotonic()
        assert closed_s - 20 < house.lane.opens_at(now) - now <= closed_s


def test_a_host_that_backs_off_is_tried_at_once_after_a_reload(make_house: MakeHouse) -> None:
    greetings = [b"535 5.7.8 Who are you? Try again in 1 hour\r\n"]

    def play(peer: Peer) -> None:
        if greetings:
            peer.say(greetings.pop())
        else:
            talk(peer)

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}")
        house.put(0, "bo@example.org")
        until(lambda: len(house.stranded) == 1)
        assert not house.lane.is_open(time.monotonic())
        house.lanes.configure(house.lanes.settings)
        assert house.lanes.news.is_set()
        assert house.lane.room(time.monotonic()) == 1
        house.lane.put(house.stranded.pop())
        until(lambda: len(house.reports) == 1)
        assert house.fates() == {Fate.DELIVERED: 1}
