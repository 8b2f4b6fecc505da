"""A host that refuses everybody keeps nothing; one that refuses somebody lets others through."""

import time

import pytest
from gevent.event import Event
from house import House, MakeHouse, many, talk, until
from scripted import Host, Peer

from geomail.delivery.host.refusals import Refusals
from geomail.delivery.lane import Refused
from geomail.delivery.outcome import Fate

pytest_plugins = ("delivery_fixtures",)


class Mood:
    """What a host says to MAIL, by its sender; None: it accepts."""

    def __init__(self, **refused: bytes) -> None:
        self.refused = refused
        self.mails = 0

    def __call__(self, line: bytes) -> bytes:
        if not line.startswith(b"MAIL"):
            return b"250 ok"
        self.mails += 1
        name = line.partition(b"<")[2].partition(b"@")[0].decode()
        return self.refused.get(name, self.refused.get("everybody", b"250 ok"))


def open_house(make_house: MakeHouse, host: Host, *, hold_s: float = 60.0, **more: str) -> House:
    more.setdefault("backoff_base_s", "60")
    house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", **more)
    house.lane.refusals = Refusals[Refused](5, hold_s)
    return house


def put(house: House, *pairs: tuple[str, str]) -> None:
    for recipient, name in pairs:
        for delivery in house.deliveries([recipient], sender=f"{name}@example.com"):
            house.lane.put(delivery)


NO = b"550 5.7.1 Not from you"


def test_a_host_that_refuses_everybody_keeps_nothing(make_house: MakeHouse) -> None:
    mood = Mood(everybody=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, *[(to, "ab"[i % 2]) for i, to in enumerate(many(9))])
        until(lambda: len(house.stranded) == 9)
        assert mood.mails == 5
        assert house.reports == []
        assert not house.lane.is_open(time.monotonic())
        assert "Not from you" in (house.lane.last_error or "")


def test_a_host_that_says_the_same_to_its_probe_is_closed_again(make_house: MakeHouse) -> None:
    mood = Mood(everybody=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host, backoff_base_s="0.1")
        put(house, *[(to, "ab"[i % 2]) for i, to in enumerate(many(5))])
        until(lambda: len(house.stranded) == 5)
        until(lambda: house.lane.is_open(time.monotonic()))
        assert house.lane.room(time.monotonic()) == 1
        put(house, ("probe@x.org", "c"))
        until(lambda: len(house.stranded) == 6)
        assert house.lane.backoff.failures == 2
        until(lambda: house.lane.is_open(time.monotonic()))
        mood.refused.clear()
        put(house, ("probe@x.org", "c"))
        until(lambda: len(house.reports) == 1)
        assert house.fates() == {Fate.DELIVERED: 1}
        assert house.lane.is_well


def test_a_mail_that_is_accepted_makes_those_before_it_dead(make_house: MakeHouse) -> None:
    mood = Mood(bad=NO, worse=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        names = ["bad", "worse", "bad", "worse"]
        put(house, *zip(many(4), names, strict=True))
        until(lambda: mood.mails == 4)
        until(lambda: bool(house.lane.idle))
        assert house.reports == []  # nobody knows yet
        put(house, ("good@x.org", "good"))
        until(lambda: len(house.reports) == 5)
        assert house.fates() == {Fate.NEVER: 4, Fate.DELIVERED: 1}
        assert house.lane.is_well


def test_another_refusal_makes_those_before_it_dead(make_house: MakeHouse) -> None:
    mood = Mood(bad=NO, worse=b"553 5.1.8 No such domain")
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, ("1@x.org", "bad"), ("2@x.org", "bad"), ("3@x.org", "worse"))
        until(lambda: len(house.reports) == 2)
        assert [to for to, *_ in house.reports] == ["1@x.org", "2@x.org"]


def test_what_one_sender_is_told_is_its_own(make_house: MakeHouse) -> None:
    mood = Mood(bad=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, *[(to, "bad") for to in many(7)])
        until(lambda: len(house.reports) == 7)
        assert house.fates() == {Fate.NEVER: 7}
        assert house.lane.is_well


@pytest.mark.parametrize("code", [b"552", b"555"])
def test_a_refusal_of_this_mail_alone_waits_for_nothing(make_house: MakeHouse, code: bytes) -> None:
    mood = Mood(everybody=code + b" 5.3.4 Too large")
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, *[(to, "ab"[i % 2]) for i, to in enumerate(many(6))])
        until(lambda: len(house.reports) == 6)
        assert house.fates() == {Fate.NEVER: 6}
        assert house.lane.is_well


def test_nobody_waits_for_long_to_be_told(make_house: MakeHouse) -> None:
    mood = Mood(bad=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host, hold_s=0.2)
        put(house, ("1@x.org", "bad"))
        until(lambda: len(house.reports) == 1)
        assert house.fates() == {Fate.NEVER: 1}
        assert house.lanes.in_hand() == 0


def test_a_burst_waits_for_less(make_house: MakeHouse) -> None:
    with Host(lambda peer: talk(peer, reply=Mood(bad=NO))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", burst="true")
        put(house, ("1@x.org", "bad"))
        until(lambda: len(house.reports) == 1, within_s=8)
        assert house.fates() == {Fate.NEVER: 1}


def test_a_drain_settles_what_is_held_as_it_is(make_house: MakeHouse) -> None:
    mood = Mood(bad=NO, worse=NO)
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, ("1@x.org", "bad"), ("2@x.org", "worse"))
        until(lambda: mood.mails == 2 and bool(house.lane.idle))
        assert house.lanes.stop() == []
        assert house.fates() == {Fate.NEVER: 2}


@pytest.mark.parametrize("answer", [b"550 5.7.1 Not you", b"530 5.7.0 Log in first"])
def test_a_host_that_hangs_up_on_everybody_keeps_nothing(
    make_house: MakeHouse, answer: bytes
) -> None:
    mails: list[bytes] = []

    def refuse(peer: Peer) -> None:
        peer.greet()
        mails.append(peer.hear(b"DATA\r\n"))
        peer.say(answer + b"\r\n")

    with Host(refuse) as host:
        house = open_house(make_house, host, backoff_base_s="0.05", backoff_cap_s="0.05")
        waiting = [(to, "ab"[i % 2]) for i, to in enumerate(many(6))]
        while waiting:
            assert house.lane.room(time.monotonic()) >= 1  # those that are held take none
            assert house.lanes.routes["default"].choose(time.monotonic()) is house.lane
            put(house, waiting.pop(0))
            until(lambda: len(mails) == 6 - len(waiting) and not house.lane.senders)
            until(lambda: house.lane.is_open(time.monotonic()))
        assert house.reports == []
        until(lambda: len(house.stranded) == 6)
        assert len(mails) == 6


# ---- the login


@pytest.mark.parametrize("command", [b"MAIL", b"RCPT", b"."])
@pytest.mark.parametrize("code", [b"530", b"534", b"535"])
def test_a_wrong_login_closes_the_lane_and_keeps_the_mail(
    make_house: MakeHouse, command: bytes, code: bytes
) -> None:
    def demand(line: bytes) -> bytes:
        return code + b" 5.7.0 Log in first" if line.startswith(command) else b"250 ok"

    with Host(lambda peer: talk(peer, reply=demand)) as host:
        house = open_house(make_house, host)
        house.put(0, *many(4))
        until(lambda: len(house.stranded) == 4)
        assert house.reports == []
        assert not house.lane.is_open(time.monotonic())
        assert "Log in first" in (house.lane.last_error or "")
        assert "login" in (house.lane.last_error or "")


def test_a_login_that_is_demanded_for_some_recipients_leaves_them_for_later(
    make_house: MakeHouse,
) -> None:
    def demand(line: bytes) -> bytes:
        return b"530 5.7.0 Log in first" if line.startswith(b"RCPT TO:<far") else b"250 ok"

    with Host(lambda peer: talk(peer, reply=demand)) as host:
        house = open_house(make_house, host)
        (delivery,) = house.deliveries(["near@x.org"])
        delivery.recipients = ["near@x.org", "far@y.org"]
        house.lane.put(delivery)
        until(lambda: len(house.reports) == 1)
        assert house.reports[0][1] == [Fate.DELIVERED, Fate.LATER]
        assert house.lane.is_well  # it is about where that one goes to


# ---- what a host asks for


def test_a_host_is_left_alone_for_as_long_as_its_mail_reply_asks(make_house: MakeHouse) -> None:
    mood = Mood(everybody=b"450 4.7.1 Too fast, try again in 5 minutes")
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host, backoff_base_s="1")
        house.put(0, *many(3))
        until(lambda: len(house.stranded) == 2)
        assert house.fates() == {Fate.LATER: 1}
        assert 295 < house.lane.backoff.until - time.monotonic() <= 300


@pytest.mark.parametrize("greeting", [b"421 try again in 5 minutes", b"450 retry in 300 seconds"])
def test_a_greeting_that_asks_for_time_gets_it(make_house: MakeHouse, greeting: bytes) -> None:
    with Host(lambda peer: peer.say(greeting + b"\r\n")) as host:
        house = open_house(make_house, host, backoff_base_s="1")
        house.put(0, *many(3))
        until(lambda: len(house.stranded) == 3)
        assert 295 < house.lane.backoff.until - time.monotonic() <= 300


def test_a_421_that_asks_for_time_is_no_used_up_connection(make_house: MakeHouse) -> None:
    mood = Mood(second=b"421 4.7.0 enough for now, come back in 00:05:00")
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host, backoff_base_s="1")
        put(house, ("1@x.org", "first"), ("2@x.org", "second"))
        until(lambda: len(house.stranded) == 1)
        assert mood.mails == 2  # it is not tried on another connection first
        assert house.fates() == {Fate.DELIVERED: 1}
        assert 295 < house.lane.backoff.until - time.monotonic() <= 300


def test_a_plain_421_is_a_used_up_connection(make_house: MakeHouse) -> None:
    mood = Mood(second=b"421 4.7.0 enough")
    with Host(lambda peer: talk(peer, reply=mood)) as host:
        house = open_house(make_house, host)
        put(house, ("1@x.org", "first"), ("2@x.org", "second"))
        until(lambda: len(house.stranded) == 1)  # once for nothing, then the host's trouble
        assert house.lane.backoff.failures == 1


def test_a_host_that_asks_for_time_while_it_is_closed_gets_it_all(make_house: MakeHouse) -> None:
    words = [b"421 go away", b"421 retry in 5 minutes"]
    both = Event()

    def greet(peer: Peer) -> None:
        word = words.pop(0)
        if words:
            both.wait(20)
            peer.say(word + b"\r\n")
            peer.wait_for_end()
            failed.set()
            return
        both.set()
        failed.wait(20)
        peer.say(word + b"\r\n")

    failed = Event()
    with Host(greet) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="2", backoff_base_s="1")
        house.put(0, *many(2))
        until(lambda: len(house.stranded) == 2)
        assert house.lane.backoff.failures == 1
        assert 295 < house.lane.backoff.until - time.monotonic() <= 300
