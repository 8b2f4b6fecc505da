"""Several messages under way on one connection (BDAT): a window that slides, however it ends."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import gevent
import pytest
from chunk_host import Chunk, greet, take_all, take_chunk
from gevent.event import Event
from house import House, MakeHouse, many, talk, until, url
from scripted import Host, Peer

from geomail.delivery import sender as senders
from geomail.delivery.outcome import Fate
from geomail.letter import compose
from geomail.sink import Sink

pytest_plugins = ("delivery_fixtures",)

WINDOW = 8
CHUNKING = 'chunking = "on"'

Script = Callable[[Peer], object]


class Scripts:
    """Plays one script after the other, one a connection; the last one for all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.connections = 0
        self._scripts = scripts

    def __call__(self, peer: Peer) -> None:
        number = min(self.connections, len(self._scripts) - 1)
        self.connections += 1
        self._scripts[number](peer)


Open = Callable[..., House]


@pytest.fixture
def open_house(make_house: MakeHouse) -> Iterator[Open]:
    """Give a function that plays scripts on a host and opens a house for it."""
    hosts: list[Host] = []

    def open_(*scripts: Script, **more: str) -> House:
        host = Host(Scripts(*scripts))
        host.__enter__()
        hosts.append(host)
        settings = {"concurrency": "1", "idle_s": "0.2", "backoff_base_s": "0.05", **more}
        return make_house(f"smtp://127.0.0.1:{host.port}", keys=CHUNKING, **settings)

    yield open_
    for host in hosts:
        host.__exit__(None, None, None)


def take(peer: Peer, n: int = WINDOW) -> list[Chunk]:
    found = [chunk for chunk in (take_chunk(peer) for _ in range(n)) if chunk is not None]
    assert len(found) == n
    return found


def everything(peer: Peer) -> None:
    greet(peer)
    take_all(peer)


# ---- the window


def test_a_window_slides_with_every_answer(open_house: Open) -> None:
    taken: list[Chunk] = []

    def one_by_one(peer: Peer) -> None:
        greet(peer)
        waiting = take(peer)
        while waiting:
            peer.say(waiting[0].answer())
            taken.append(waiting.pop(0))
            # With seven unanswered another one has to come, before any of them is answered.
            if len(taken) + len(waiting) < 30:
                waiting += take(peer, 1)
        take_all(peer)

    house = open_house(one_by_one, idle_s="5")
    house.put(0, *many(30))
    until(lambda: len(house.reports) == 30)
    assert house.fates() == {Fate.DELIVERED: 30}
    assert sorted(chunk.recipients[0] for chunk in taken) == sorted(many(30))
    assert len({chunk.content for chunk in taken}) == 30


def test_a_whole_window_is_one_write(open_house: Open) -> None:
    windows: list[int] = []

    def count_what_comes_at_once(peer: Peer) -> None:
        greet(peer)
        for chunk in take(peer, 1):
            peer.say(chunk.answer())
        gevent.sleep(0.05)
        house.put(0, *many(WINDOW))
        peer.take_envelope()  # the first after an idle time asks before it says anything
        peer.hear(b"\r\n.\r\n")
        windows.append(peer.heard.count(b" LAST\r\n"))
        peer.say(b"250 taken\r\n")
        take_all(peer)

    house = open_house(count_what_comes_at_once, idle_s="5")
    house.put(0, "first@x.org")
    until(lambda: len(house.reports) == WINDOW + 1)
    assert windows == [WINDOW - 1]


def test_a_host_that_left_while_idle_was_sent_nothing(open_house: Open) -> None:
    """Its FIN was still on the way when the next message came: no content has left us."""
    heard: list[bytes] = []

    def leave_unheard(peer: Peer) -> None:
        greet(peer)
        for chunk in take(peer, 1):
            peer.say(chunk.answer())
        heard.append(peer.hear(b"DATA\r\n"))

    house = open_house(leave_unheard, everything, idle_s="5")
    house.put(0, "first@x.org")
    until(lambda: bool(house.lane.idle))
    house.put(0, "second@x.org", "third@x.org")
    until(lambda: len(house.reports) == 3)
    assert house.fates() == {Fate.DELIVERED: 3}
    assert heard[0].count(b"MAIL FROM") == 1
    assert house.lane.health.last_failure_at == 0.0


def test_a_refused_message_takes_no_other_with_it(open_house: Open) -> None:
    def refuse_the_third(peer: Peer) -> None:
        greet(peer)
        first, second, third, *others = take(peer)
        peer.say(first.answer() + second.answer() + third.answer(b"550 no\r\n"))
        for chunk in others:
            peer.say(chunk.answer())
        take_all(peer)

    house = open_house(refuse_the_third)
    house.put(0, *many(12))
    until(lambda: len(house.reports) == 12)
    assert house.fates() == {Fate.DELIVERED: 11, Fate.NEVER: 1}
    assert ("bo2@example.org", [Fate.NEVER]) in [report[:2] for report in house.reports]


def test_recipients_that_are_too_many_go_on_within_the_window(open_house: Open) -> None:
    delivered: list[str] = []

    def take_two(peer: Peer) -> None:
        greet(peer)
        while (chunk := take_chunk(peer)) is not None:
            commands = [line for line in chunk.commands if line.startswith((b"RSET", b"MAIL"))]
            refused = max(0, len(chunk.recipients) - 2)
            delivered.extend(chunk.recipients[:2])
            accepted = len(chunk.recipients) - refused
            peer.say(b"250 ok\r\n" * (len(commands) + accepted))
            peer.say(b"452 4.5.3 too many\r\n" * refused + b"250 taken\r\n")

    house = open_house(take_two, idle_s="5")
    big = house.deliveries(["x@x.org"])[0]
    big.recipients = many(7, "big")
    house.lane.put(big)
    house.put(0, *many(10))
    until(lambda: len(house.reports) == 11)
    assert sorted(delivered) == sorted([*many(7, "big"), *many(10)])
    assert set(house.fates()) == {Fate.DELIVERED}


# ---- how it may end


def test_a_cut_leaves_unknown_what_had_left_whole(open_house: Open) -> None:
    def answer_two_and_close(peer: Peer) -> None:
        greet(peer)
        first, second, *_ = take(peer)
        peer.say(first.answer() + second.answer())

    house = open_house(answer_two_and_close, everything)
    house.put(0, *many(20))
    until(lambda: len(house.reports) == 20)
    unknown = house.fates()[Fate.UNKNOWN]
    assert WINDOW - 2 <= unknown <= WINDOW
    assert house.fates() == {Fate.DELIVERED: 20 - unknown, Fate.UNKNOWN: unknown}
    assert house.lane.is_well  # it had delivered: used up, and nothing else


def test_a_421_says_of_all_behind_it_that_they_were_not_taken(open_house: Open) -> None:
    def answer_two_and_leave(peer: Peer) -> None:
        greet(peer)
        first, second, *_ = take(peer)
        peer.say(first.answer() + second.answer() + b"421 4.3.2 going down\r\n")

    house = open_house(answer_two_and_leave, everything)
    house.put(0, *many(20))
    until(lambda: len(house.reports) == 20)
    assert house.fates() == {Fate.DELIVERED: 20}
    assert house.lane.is_well


def test_a_time_out_leaves_all_unknown(open_house: Open) -> None:
    def keep_silent(peer: Peer) -> None:
        greet(peer)
        peer.wait_for_end()

    house = open_house(keep_silent, everything, mail_s="0.3")
    house.put(0, *many(10))
    until(lambda: len(house.reports) + len(house.stranded) == 10)
    assert house.fates()[Fate.UNKNOWN] == WINDOW
    assert house.lane.health.last_failure_at > 0.0


@pytest.mark.parametrize("code", [b"500", b"501", b"502", b"503", b"504"])
def test_a_host_that_does_not_know_bdat_is_sent_data(open_house: Open, code: bytes) -> None:
    def refuse_bdat(peer: Peer) -> None:
        greet(peer)
        for chunk in take(peer, 1):
            peer.say(chunk.answer(code + b" what?\r\n"))
        peer.wait_for_end()

    house = open_house(refuse_bdat, lambda peer: talk(peer))
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    assert house.fates() == {Fate.DELIVERED: 1}
    assert house.lane.is_well
    assert house.lane.ways.chunking(time.monotonic()) == "off"
    assert house.lane.ways.chunking(time.monotonic() + 3601) == "prove"


def test_what_is_behind_a_bdat_that_was_refused_may_have_been_taken(open_house: Open) -> None:
    def refuse_the_first(peer: Peer) -> None:
        greet(peer)
        first, *_ = take(peer, 3)
        peer.say(first.answer(b"503 what?\r\n"))
        peer.wait_for_end()

    house = open_house(refuse_the_first, lambda peer: talk(peer))
    house.put(0, *many(3))
    until(lambda: len(house.reports) == 3)
    assert house.fates() == {Fate.UNKNOWN: 2, Fate.DELIVERED: 1}


def test_a_host_that_hangs_up_at_its_first_bdat_is_sent_data(open_house: Open) -> None:
    def hang_up(peer: Peer) -> None:
        greet(peer)
        for chunk in take(peer, 1):
            peer.say(chunk.answer(b""))

    house = open_house(hang_up, lambda peer: talk(peer))
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    assert house.fates() == {Fate.UNKNOWN: 1}
    assert house.lane.ways.chunking(time.monotonic()) == "off"
    assert house.lane.is_well


# ---- the proof


def test_a_host_that_fails_the_proof_is_sent_data_on_the_same_connection(
    open_house: Open,
) -> None:
    def run_the_chunk(peer: Peer) -> None:
        greet(peer, proof=b"503 no\r\n500 XYZZY?\r\n250 ok\r\n")
        while b"MAIL" not in peer.hear(b"\r\n"):
            pass
        peer.say(b"250 ok\r\n250 ok\r\n354 go\r\n")
        peer.hear(b"\r\n.\r\n")
        peer.say(b"250 ok\r\n")
        peer.wait_for_end()

    house = open_house(run_the_chunk)
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    assert house.fates() == {Fate.DELIVERED: 1}
    assert house.lane.ways.chunking(time.monotonic()) == "off"


@pytest.mark.parametrize("last_word", [b"", b"421 4.7.0 enough\r\n"])
def test_a_host_that_hangs_up_at_the_proof_is_no_host_that_fails(
    open_house: Open, last_word: bytes
) -> None:
    house = open_house(lambda peer: greet(peer, proof=last_word), lambda peer: talk(peer))
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    assert house.fates() == {Fate.DELIVERED: 1}
    assert house.lane.health.last_failure_at == 0.0


def test_one_proof_lasts_for_an_hour(open_house: Open) -> None:
    proofs: list[bool] = []

    def look(peer: Peer) -> None:
        peer.greet(ehlo=b"250-mx\r\n250-PIPELINING\r\n250-LIMITS MAILMAX=3\r\n250 CHUNKING\r\n")
        peer.heard += peer.sock.recv(65536)
        proofs.append(b"XYZZY" in peer.heard)
        if proofs[-1]:
            peer.hear(b"XYZZY\r\nRSET\r\n")
            peer.say(b"503 no\r\n250 ok\r\n")
        take_all(peer)

    house = open_house(look)
    house.put(0, *many(9))
    until(lambda: len(house.reports) == 9)
    assert proofs == [True, False, False]
    assert house.lane.ways.chunking(time.monotonic()) == "on"
    assert house.lane.ways.chunking(time.monotonic() + 3601) == "prove"


def test_a_lane_with_windows_asks_for_enough_to_fill_them(open_house: Open) -> None:
    house = open_house(everything)
    now = time.monotonic()
    before = house.lane.room(now)
    house.put(0, "bo@x.org")
    until(lambda: len(house.reports) == 1)
    # At half of it the popper is asked for more: then there has to be a window in hand, and more.
    assert before == 2  # nobody knows yet that there is a host
    assert house.lane.room(now) == 3 * WINDOW


# ---- leaving


def test_the_most_mails_of_a_connection_bound_the_window(open_house: Open) -> None:
    taken: list[int] = []

    def take_three(peer: Peer) -> None:
        greet(peer, limits=b"MAILMAX=3")
        taken.append(len(take_all(peer)))

    house = open_house(take_three)
    house.put(0, *many(8))
    until(lambda: len(house.reports) == 8)
    until(lambda: len(taken) == 3)
    assert taken == [3, 3, 2]


class Waits:
    """A script that takes a window, and answers when it is told."""

    def __init__(self) -> None:
        self.has_window = Event()
        self.may_answer = Event()
        self.rest: list[Chunk] = []

    def __call__(self, peer: Peer) -> None:
        greet(peer)
        window = take(peer)
        self.has_window.set()
        assert self.may_answer.wait(20)
        for chunk in window:
            peer.say(chunk.answer())
        self.rest = take_all(peer)


def test_a_drain_finishes_the_window_and_begins_nothing(open_house: Open) -> None:
    script = Waits()
    house = open_house(script)
    house.put(0, *many(20))
    assert script.has_window.wait(20)
    unbegun = house.lanes.stop()
    script.may_answer.set()
    unbegun += house.lanes.join(20.0, last_s=1.0)
    assert house.fates() == {Fate.DELIVERED: WINDOW}
    assert len(unbegun) == 20 - WINDOW
    assert script.rest == []


def test_a_drain_that_is_over_cuts_the_window(open_house: Open) -> None:
    script = Waits()
    house = open_house(script)
    house.put(0, *many(20))
    assert script.has_window.wait(20)
    unbegun = house.lanes.stop() + house.lanes.join(0.2, last_s=0.1)
    until(lambda: house.fates() == {Fate.UNKNOWN: WINDOW})
    assert len(unbegun) == 20 - WINDOW
    script.may_answer.set()


def test_a_sender_that_is_dismissed_finishes_its_window(open_house: Open) -> None:
    script = Waits()
    house = open_house(script, everything)
    house.put(0, *many(20))
    assert script.has_window.wait(20)
    (sender,) = house.lane.senders
    sender.dismiss()
    script.may_answer.set()
    until(lambda: len(house.reports) == 20)
    assert house.fates() == {Fate.DELIVERED: 20}
    assert script.rest == []  # the others went over another connection


def test_nothing_more_is_begun_under_a_lost_lease(open_house: Open) -> None:
    script = Waits()
    house = open_house(script)
    house.put(0, *many(20))
    assert script.has_window.wait(20)
    house.queue.register()
    script.may_answer.set()
    until(lambda: len(house.reports) == WINDOW)
    assert house.fates() == {Fate.DELIVERED: WINDOW}
    assert len(house.stranded) == 20 - WINDOW
    assert house.lanes.in_hand() == 0
    assert script.rest == []


def test_a_fault_of_ours_loses_none_of_the_window(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(email: object, **more: object) -> object:
        if getattr(email, "recipients", [""])[0].startswith("poison"):
            raise RuntimeError("a bug of ours")
        return compose(email, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(senders, "compose", surprise)
    script = Waits()
    house = open_house(script, everything)
    house.put(0, *many(WINDOW), *many(1, "poison"), *many(3, "more"))
    assert script.has_window.wait(20)
    script.may_answer.set()
    until(lambda: len(house.reports) + len(house.stranded) == WINDOW + 4)
    fates = house.fates()
    # Those that were answered before the fault are delivered, those after it unknown.
    assert fates[Fate.DELIVERED] >= 1
    assert WINDOW <= fates[Fate.DELIVERED] + fates[Fate.UNKNOWN] <= WINDOW + 3
    assert fates[Fate.LATER] == 1
    assert house.lanes.in_hand() == 0


# ---- a whole host


def test_many_mails_go_by_chunks_each_once(make_house: MakeHouse) -> None:
    arrived: Counter[str] = Counter()
    with Sink(on_mail=lambda _, to, __: arrived.update(to)) as sink:
        house = make_house(url(sink), keys=CHUNKING, concurrency="3")
        house.put(0, *many(200), "reply+451@x.org", "reply+550@x.org", "data+552@x.org")
        until(lambda: len(house.reports) == 203)
        assert house.lane.ways.chunking(time.monotonic()) == "on"
    assert house.fates()[Fate.DELIVERED] >= 200
    assert {arrived[to] for to in many(200)} == {1}
    assert house.lane.is_well
    assert house.lanes.in_hand() == 0
