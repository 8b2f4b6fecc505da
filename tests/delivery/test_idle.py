"""When hosts end connections by themselves: it costs nobody anything, and is learnt."""

import time

import gevent
import pytest
from house import MakeHouse, many, talk, until
from scripted import Host, Peer

from geomail.delivery.outcome import Fate

pytest_plugins = ("delivery_fixtures",)

LEARNT_S = 3600.0


def take_one(peer: Peer) -> None:
    """Take one mail."""
    peer.take_envelope()
    peer.hear(b"\r\n.\r\n")
    peer.say(b"250 ok\r\n")


@pytest.mark.parametrize("last_word", [b"", b"421 4.4.2 idle for too long\r\n"])
def test_a_connection_that_is_closed_while_idle_is_given_up_at_once(
    make_house: MakeHouse, last_word: bytes
) -> None:
    closed: list[float] = []

    def close_soon(peer: Peer) -> None:
        peer.greet()
        take_one(peer)
        gevent.sleep(0.05)
        peer.say(last_word)
        peer.sock.close()
        closed.append(time.monotonic())

    with Host(close_soon) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="60")
        house.put(0, "bo@x.org")
        until(lambda: bool(closed))
        until(lambda: not house.lane.senders, within_s=5)
        assert not house.lane.idle
        assert house.lane.live == 0
        assert house.lane.is_well
        assert house.fates() == {Fate.DELIVERED: 1}


def test_an_idle_life_is_learnt_and_respected(make_house: MakeHouse) -> None:
    ends: list[bytes] = []

    def close_after_a_while(peer: Peer) -> None:
        peer.greet()
        take_one(peer)
        peer.sock.settimeout(1.2)
        try:
            ends.append(peer.hear(b"\r\n"))
        except TimeoutError:
            ends.append(b"timeout")

    with Host(close_after_a_while) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="60")
        house.put(0, "bo@x.org")
        until(lambda: ends == [b"timeout"])
        until(lambda: not house.lane.senders)
        assert 1.0 < house.lane.ways.habits.idle_s(time.monotonic(), 60.0) < 1.2
        house.put(0, "bo@x.org")
        until(lambda: len(ends) == 2)
        assert ends[1] == b"QUIT"  # this time we were first
        assert house.lane.ways.habits.idle_s(time.monotonic() + LEARNT_S, 60.0) == 60.0


def test_a_mail_that_meets_the_hang_up_costs_nothing_but_a_reconnect(
    make_house: MakeHouse,
) -> None:
    """The connection has delivered nothing, and ends in answer to a MAIL: it was stale."""
    connections: list[Peer] = []

    def refuse_then_close(peer: Peer) -> None:
        connections.append(peer)
        peer.greet()
        if len(connections) > 1:
            take_one(peer)
            peer.wait_for_end()
            return
        peer.take_envelope(b"250 ok\r\n550 nobody\r\n503 no recipients\r\n")
        peer.hear(b"RSET\r\n")  # of the next one, that comes when it is too late

    with Host(refuse_then_close) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="60")
        house.put(0, "nobody@x.org")
        until(lambda: len(house.reports) == 1 and bool(house.lane.idle))
        house.put(0, "bo@x.org")
        until(lambda: len(house.reports) == 2)
        assert house.fates() == {Fate.NEVER: 1, Fate.DELIVERED: 1}
        assert house.lane.health.last_failure_at == 0.0


def test_a_new_connection_that_ends_at_mail_is_the_hosts_trouble(make_house: MakeHouse) -> None:
    def hang_up_at_mail(peer: Peer) -> None:
        peer.greet()
        peer.hear(b"DATA\r\n")

    with Host(hang_up_at_mail) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", backoff_base_s="60")
        house.put(0, "bo@x.org")
        until(lambda: len(house.stranded) == 1)
        assert house.lane.backoff.failures == 1


@pytest.mark.parametrize("last_word", [b"", b"421 4.7.0 bye"])
def test_the_messages_of_a_connection_are_learnt_from_two(
    make_house: MakeHouse, last_word: bytes
) -> None:
    talks: list[int] = []
    wasted: list[bytes] = []

    def three(peer: Peer) -> None:
        taken = 0

        def count(line: bytes) -> bytes:
            nonlocal taken
            if line.startswith(b"MAIL") and taken == 3:
                wasted.append(line)
                return last_word
            taken += line == b"."
            return b"250 ok"

        talk(peer, reply=count)
        talks.append(taken)

    with Host(three) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.3")
        house.put(0, *many(15))
        until(lambda: len(house.reports) == 15)
        until(lambda: not house.lane.senders)
        assert house.fates() == {Fate.DELIVERED: 15}
        assert talks == [3] * 5
        assert len(wasted) == 2  # then we were first
        assert house.lane.ways.habits.messages(time.monotonic()) == 3
        assert house.lane.ways.habits.messages(time.monotonic() + LEARNT_S) == 0


def test_a_host_that_says_that_a_connection_is_full_is_believed(make_house: MakeHouse) -> None:
    wasted: list[bytes] = []

    def two(peer: Peer) -> None:
        taken = 0

        def count(line: bytes) -> bytes:
            nonlocal taken
            taken += line == b"."
            if line.startswith(b"MAIL") and taken == 2:
                wasted.append(line)
                return b"421 4.7.0 Too many messages in this connection"
            return b"250 ok"

        talk(peer, reply=count)

    with Host(two) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.3")
        house.put(0, *many(8))
        until(lambda: len(house.reports) == 8)
        assert house.fates() == {Fate.DELIVERED: 8}
        assert len(wasted) == 1
        assert house.lane.is_well


def test_what_two_connections_have_taught_holds_for_those_that_are_open(
    make_house: MakeHouse,
) -> None:
    turns: list[list[int]] = []

    def three(peer: Peer) -> None:
        """Take three mails and hang up; the first connection waits for two others to do so."""
        mine = [0]
        turns.append(mine)
        is_first = len(turns) == 1
        peer.greet()
        while mine[0] < 3:
            if is_first and mine[0] == 1:
                until(lambda: len(turns) > 2 and turns[1][0] == turns[2][0] == 3)
                until(lambda: house.lane.ways.habits.messages(time.monotonic()) == 3)
            peer.take_envelope()
            peer.hear(b"\r\n.\r\n")
            mine[0] += 1
            peer.say(b"250 ok\r\n")
        if is_first:
            last_words.append(peer.hear(b"\r\n"))

    last_words: list[bytes] = []
    with Host(three) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="2", idle_s="0.5")
        house.put(0, *many(30))
        until(lambda: bool(last_words))
        assert last_words == [b"QUIT"]
