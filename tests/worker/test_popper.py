"""The popper: shares by weight, what is parked, suspects that wait, and the end of a burst."""

import socket
from collections import Counter

import gevent
import pytest
from hired import Place, mail, until

from geomail.queue import Link, Park, Queue
from geomail.sink import Sink
from geomail.worker import popper

pytest_plugins = ("worker_fixtures",)


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def fill(place: Place, name: str, count: int, *, parked: bool = False) -> None:
    """Put mails to <first letter of the list's name>… on a list, or park them all."""
    queue = Queue(Link(place.server.url), f"queue:{name}")
    queue.push([mail(i, to=[f"{name[0]}{i}@x.org"]) for i in range(count)])
    if parked:
        queue.register()
        while slots := queue.take(500).slots:
            queue.settle([Park([slot], "default", 1, slot.state) for slot in slots])
        queue.leave()
    queue.close()


class Order(Sink):
    """A host that notes whose mail came when, by the first letter of the recipient."""

    def __init__(self, *, port: int = 0, delay_s: float = 0.0) -> None:
        self.came: list[str] = []
        super().__init__(("127.0.0.1", port), on_mail=self._note, delay_s=delay_s)

    def _note(self, _from: str, to: tuple[str, ...], _content: bytes) -> None:
        self.came.append(to[0][0])

    def shares(self, first: int) -> dict[str, float]:
        """Return each list's share of the first so many mails."""
        return {name: n / first for name, n in Counter(self.came[:first]).items()}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (("a=1", "b=1"), {"a": 1 / 2, "b": 1 / 2}),
        (("a=1", "b=3"), {"a": 1 / 4, "b": 3 / 4}),
        (("a=1", "b=1", "c=2"), {"a": 1 / 4, "b": 1 / 4, "c": 1 / 2}),
        (("a=8", "b=4", "c=1"), {"a": 8 / 13, "b": 4 / 13, "c": 1 / 13}),
    ],
)
def test_lists_get_what_their_weights_say(
    place: Place, weights: tuple[str, ...], shares: dict[str, float]
) -> None:
    for name in shares:
        fill(place, name, 1000)
    with Order() as host:
        place.worker(host, queue=[f"queue:{weight}" for weight in weights])
        until(lambda: len(host.came) >= 1000)
        assert host.shares(1000) == pytest.approx(shares, rel=0.1)


def test_lists_get_their_shares_where_a_round_brings_little(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "TAKE_LIMIT", 26)
    for name in "abc":
        fill(place, name, 100)
    with Order(delay_s=5.0) as host:
        worker = place.hire(host, queue=["queue:a=8", "queue:b=4", "queue:c=1"])
        for queue in worker.queues:
            queue.register()
        monkeypatch.setattr(worker.lanes, "room_for", lambda _name, share: round(130 * share))
        assert worker.popper._take_owed() == 26
        assert list(worker.popper._taken_of.values()) == [16, 8, 2]


def test_small_rooms_are_shared_by_weight_too(place: Place) -> None:
    for name in ("a", "b"):
        fill(place, name, 150)
    with Order() as host:
        place.worker(host, concurrency=1, queue=["queue:a=1", "queue:b=3"])
        until(lambda: len(host.came) >= 150)
        assert host.shares(150) == pytest.approx({"a": 1 / 4, "b": 3 / 4}, rel=0.1)


def test_the_share_of_an_empty_list_goes_to_the_others(place: Place) -> None:
    fill(place, "b", 500)
    with Order(delay_s=5.0) as host:  # so that nothing is delivered between the two takes
        worker = place.hire(host, queue=["queue:a=9", "queue:b=1"])
        for queue in worker.queues:
            queue.register()
        room = worker.popper._room()
        assert worker.popper._take_round(room) == room == worker.lanes.in_hand()


def test_parked_mail_leaves_room_for_fresh_lists(place: Place) -> None:
    port = closed_port()
    fill(place, "bulk", 1500, parked=True)
    with Order(port=port, delay_s=0.002) as host:
        worker = place.worker(
            f"smtp://127.0.0.1:{port}", concurrency=5, queue=["queue:bulk", "queue:urgent=3"]
        )
        until(lambda: len(host.came) > 100)
        fill(place, "urgent", 10)
        before, in_hand = len(host.came), worker.lanes.in_hand()
        until(lambda: host.came.count("u") == 10)
        last = len(host.came) - host.came[::-1].index("u")
        assert last - before < in_hand + 150


def test_parked_mail_gets_its_turn_beside_a_full_list(place: Place) -> None:
    fill(place, "parked", 20, parked=True)
    fill(place, "fresh", 2000)
    with Order() as host:
        place.worker(host, concurrency=5, queue=["queue:parked", "queue:fresh=9"])
        until(lambda: host.came.count("p") == 20)
        assert host.came.count("f") < 1000


# ---- suspects


def test_a_waiting_suspect_stops_the_others_for_a_moment_only(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_MAKE_WAY_S", 0.2)
    monkeypatch.setattr(popper, "_MAKE_WAY_EVERY_S", 1.0)
    die = place.almost_suspect(mail("s"))
    place.push(mail("h", to=["stall+9@x.org"]))
    worker = place.worker(sink)
    until(lambda: sink.count == 1)  # from here on the worker is never empty-handed
    die()
    for number in range(28):  # over 1.4 seconds, of which at most 2 x 0.2 s are held back
        place.push(mail(number))
        gevent.sleep(0.05)
        assert worker.lanes.in_hand() >= 1
        assert sink.count >= number + 1 - 5
    until(lambda: sink.count == 29, within_s=0.5)
    assert place.counts().suspects == 1


def test_a_suspect_is_taken_alone_when_nothing_is_in_hand(place: Place, sink: Sink) -> None:
    place.make_suspect(mail("s", to=["slow+0.2@x.org"]))
    worker = place.worker(sink)
    until(lambda: worker.lanes.in_hand() == 1)
    place.push(*[mail(number) for number in range(20)])
    gevent.sleep(0.1)
    assert worker.lanes.in_hand() == 1
    until(lambda: sink.count == 21)


def test_suspects_of_two_lists_are_not_taken_beside_each_other(place: Place, sink: Sink) -> None:
    make_suspect(place, "queue:a", mail("s", to=["slow+0.4@s.org"]))
    make_suspect(place, "queue:b", mail("t", to=["slow+0.4@t.org"]))
    worker = place.worker(sink, queue=["queue:a=8", "queue:b=1"])
    at_once = Counter[int]()
    until(lambda: at_once.update([worker.lanes.in_hand()]) or sink.count == 2, within_s=20)
    assert max(at_once) == 1


def test_nothing_of_another_list_is_taken_beside_a_suspect(place: Place, sink: Sink) -> None:
    make_suspect(place, "queue:b", mail("t", to=["slow+0.4@t.org"]))
    worker = place.worker(sink, queue=["queue:a=8", "queue:b=1"])
    until(lambda: worker.lanes.in_hand() == 1)
    other = Queue(Link(place.server.url), "queue:a")
    other.push([mail(number) for number in range(5)])
    other.close()
    at_once = Counter[int]()
    until(lambda: at_once.update([worker.lanes.in_hand()]) or sink.count >= 1, within_s=20)
    assert max(at_once) == 1
    until(lambda: sink.count == 6, within_s=20)


def test_a_suspect_has_its_turn_though_another_list_has_work(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_MAKE_WAY_EVERY_S", 0.5)
    make_suspect(place, "queue:b", mail("t"))
    fill(place, "a", 4_000)
    place.worker(sink, queue=["queue:a=8", "queue:b=1"], concurrency=2)
    desk = Queue(Link(place.server.url), "queue:b")
    until(lambda: desk.counts().suspects == 0, within_s=20)
    desk.close()


def make_suspect(place: Place, name: str, payload: bytes) -> None:
    """Let two workers die with a job of a list in hand."""
    desk = Queue(Link(place.server.url), name)
    desk.register()
    desk.push([payload])
    for _ in range(2):
        victim = Queue(Link(place.server.url), name)
        victim.register()
        assert len(victim.take(1).slots) == 1
        desk.reap([victim.worker])
        victim.close()
    assert desk.counts().suspects == 1
    desk.leave()
    desk.close()


# ---- the end of a burst


def test_a_burst_waits_for_a_host_that_comes_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_CLOSED_S", 3.0)
    port = closed_port()
    place.push(*[mail(number) for number in range(300)])
    worker = place.worker(f"smtp://127.0.0.1:{port}", burst="yes", concurrency=2)
    until(lambda: worker.lane.backoff.failures >= 3)
    with Sink(("127.0.0.1", port)) as host:
        assert worker.wait() == 0
        assert host.count == 300
    assert place.held() == 0


def test_a_burst_gives_up_a_host_that_stays_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_CLOSED_S", 0.6)
    place.push(*[mail(number) for number in range(300)])
    worker = place.worker(f"smtp://127.0.0.1:{closed_port()}", burst="yes")
    gevent.sleep(0.4)
    assert not worker.has_left
    assert worker.wait() == 1
    assert place.held() == 300
    assert place.counts().in_flight == 0


def test_a_burst_leaves_nothing_on_the_list_while_its_host_hangs_up(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_CLOSED_S", 3.0)
    place.push(*[mail(i, to=[f"hangup+{i}@x.org"]) for i in range(12)])
    hold = {"unknown": "hold", "backoff_base_s": 0.1, "backoff_cap_s": 0.1}
    place.worker(sink, burst="yes", concurrency=1, **hold).wait(20)
    assert sink.count == 12
    assert (place.counts().dead, place.held()) == (12, 12)
