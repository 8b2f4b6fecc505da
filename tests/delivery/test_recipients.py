"""More recipients than a host takes at a time: the rest goes at once, and nobody gets it twice."""

import time
from collections.abc import Callable, Sequence

import gevent
import pytest
from gevent.event import Event
from house import House, MakeHouse, talk, until
from scripted import Host, Peer

from geomail.delivery.outcome import Fate

pytest_plugins = ("delivery_fixtures",)


class Taker:
    """Answers RCPT by a rule of (how many of this transaction were accepted, the address)."""

    def __init__(self, rule: Callable[[int, str], bytes]) -> None:
        self.transactions: list[list[str]] = []
        self.delivered: list[str] = []
        self._rule = rule

    def __call__(self, line: bytes) -> bytes:
        if line.startswith(b"MAIL"):
            self.transactions.append([])
        elif line.startswith(b"RCPT"):
            accepted, address = self.transactions[-1], line[9:-1].decode()
            answer = self._rule(len(accepted), address)
            if answer.startswith(b"2"):
                accepted.append(address)
            return answer
        elif line == b".":
            self.delivered += self.transactions[-1]
        return b"250 ok"


def at_most(n: int, refusal: bytes = b"452 4.5.3 too many") -> Callable[[int, str], bytes]:
    return lambda accepted, _: b"250 ok" if accepted < n else refusal


def deliver(house: House, recipients: Sequence[str]) -> None:
    (delivery,) = house.deliveries(["x@x.org"])
    delivery.recipients = list(recipients)
    house.lane.put(delivery)


EIGHT = [f"r{n}@x.org" for n in range(8)]


@pytest.mark.parametrize("most", [1, 3, 7, 8])
@pytest.mark.parametrize(
    "refusal", [b"452 4.5.3 too many", b"452 later", b"451 4.5.3 later", b"552 too many"]
)
def test_the_rest_goes_at_once_on_the_same_connection(
    make_house: MakeHouse, most: int, refusal: bytes
) -> None:
    taker = Taker(at_most(most, refusal))
    talks: list[list[int]] = []
    with Host(lambda peer: talks.append(talk(peer, reply=taker))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="3", idle_s="0.1")
        deliver(house, EIGHT)
        until(lambda: len(house.reports) == 1)
        until(lambda: len(talks) == 1)
        transactions = -(-8 // most)
        assert len(taker.transactions) == transactions
        assert sorted(taker.delivered) == EIGHT
        assert set(house.reports[0][1]) == {Fate.DELIVERED}
        assert len(house.delivered_so_far) == most * (transactions - 1)
        assert house.lanes.in_hand() == 0


def test_what_is_refused_first_is_that_recipients_own(make_house: MakeHouse) -> None:
    taker = Taker(lambda _, to: b"452 4.2.2 full" if to.startswith("full") else b"250 ok")
    with Host(lambda peer: talk(peer, reply=taker)) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}")
        deliver(house, ["full@x.org", "a@x.org", "full2@x.org", "full3@x.org"])
        until(lambda: len(house.reports) == 1)
        # The two behind an accepted one had a transaction of their own, and there they came first.
        assert len(taker.transactions) == 2
        assert taker.delivered == ["a@x.org"]
        assert house.reports[0][1] == [Fate.LATER] * 3


def test_a_552_that_stays_is_the_recipients_end(make_house: MakeHouse) -> None:
    taker = Taker(lambda _, to: b"552 5.2.2 full" if to.startswith("full") else b"250 ok")
    with Host(lambda peer: talk(peer, reply=taker)) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}")
        deliver(house, ["a@x.org", "full@x.org"])
        until(lambda: len(house.reports) == 1)
        assert house.reports[0][1] == [Fate.NEVER]
        assert house.delivered_so_far == ["a@x.org"]


def test_those_who_were_refused_are_asked_once_and_kept_for_the_report(
    make_house: MakeHouse,
) -> None:
    def rule(accepted: int, to: str) -> bytes:
        if to.startswith("no"):
            return b"550 5.1.1 nobody"
        return b"250 ok" if accepted < 2 else b"452 4.5.3 too many"

    taker = Taker(rule)
    with Host(lambda peer: talk(peer, reply=taker)) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", idle_s="0.1")
        deliver(house, ["a@x.org", "no1@x.org", "b@x.org", "c@x.org", "no2@x.org", "d@x.org"])
        until(lambda: len(house.reports) == 1)
        assert sorted(taker.delivered) == ["a@x.org", "b@x.org", "c@x.org", "d@x.org"]
        assert sorted(fate.value for fate in house.reports[0][1]) == [
            "delivered",
            "delivered",
            "never",
            "never",
        ]


def test_who_is_left_is_remembered_wherever_the_rest_goes(make_house: MakeHouse) -> None:
    """The connection is lost with the second transaction: what was delivered is not sent again."""
    taker = Taker(at_most(3))

    def leave(line: bytes) -> bytes:
        if line.startswith(b"MAIL") and len(taker.transactions) == 1:
            return b"421 4.7.0 busy, try again in 5 minutes"
        return taker(line)

    with Host(lambda peer: talk(peer, reply=leave)) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        deliver(house, EIGHT)
        until(lambda: len(house.stranded) == 1)
        (delivery,) = house.stranded
        assert delivery.slot.state.rcpt == EIGHT[3:]
        assert list(delivery.recipients) == EIGHT[3:]
        assert delivery.slot.state.tries == 0
        assert house.reports == []
        assert house.delivered_so_far == EIGHT[:3]
        assert house.lane.backoff.is_closed(time.monotonic())


def test_the_rest_waits_for_no_connection_that_is_being_made(make_house: MakeHouse) -> None:
    taker = Taker(at_most(3))
    is_away = Event()

    def play(peer: Peer) -> None:
        if taker.delivered:
            is_away.set()
            peer.wait_for_end()  # and no greeting
        else:
            talk(peer, reply=lambda line: b"" if taker.delivered else taker(line))

    with Host(play) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        deliver(house, EIGHT)
        house.put(0, "bo@example.org", "cy@example.org")
        until(is_away.is_set)
        left = house.lanes.stop() + house.lanes.join(0.2, last_s=0.1)
        assert sorted(len(delivery.recipients) for delivery in left) == [1, 1, 5]
        assert house.lane.in_hand == 0


def test_a_drain_begins_no_further_transaction(make_house: MakeHouse) -> None:
    taker = Taker(at_most(3))
    houses: list[House] = []

    def drain(line: bytes) -> bytes:
        if line == b".":
            houses[0].lanes.stop()
        return taker(line)

    # The answer to QUIT takes its time, and the drain is over before.
    with Host(lambda peer: talk(peer, reply=drain, then=lambda: gevent.sleep(1))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        houses.append(house)
        deliver(house, EIGHT)
        until(lambda: bool(taker.delivered))
        (delivery,) = house.lanes.join(20.0, last_s=1.0)
        assert delivery.slot.state.rcpt == EIGHT[3:]
        assert len(taker.transactions) == 1
