"""A worker's life: what a lapsed lease leaves, leaving in any trouble, SIGHUP, --max-messages."""

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from hired import Place, mail, mails, until, url

from geomail import metrics
from geomail.delivery import sender as senders
from geomail.errors import ConfigError, RedisUnusable
from geomail.queue import Park, Record, Slot
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)


def counted(name: str) -> int:
    return metrics.snapshot().get(name, 0)


def stop_the_world(for_s: float) -> None:
    """Do what SIGSTOP and SIGCONT would: nothing of the worker runs, and time goes on."""
    signal.sigtimedwait((), for_s)


def all_settled(place: Place) -> Callable[[], bool]:
    return lambda: place.held() == 0


# ---- a lease that lapsed, and that nobody fenced


def test_what_is_ready_after_a_sleep_longer_than_the_lease_is_delivered(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals: Counter[str] = Counter()
    with Sink(on_mail=lambda _, to, __: arrivals.update(to), delay_s=0.05) as slow:
        place.push(*mails(12))
        worker = place.worker(slow, concurrency=1, lease_s=1)
        until(lambda: slow.count >= 1 and worker.lane.in_hand > 2)
        before = counted("lease_lost")
        beat = worker.queues[0].beat

        def late(shown: bytes) -> bool:
            gevent.sleep(0.3)
            return beat(shown)

        monkeypatch.setattr(worker.queues[0], "beat", late)
        stop_the_world(1.2)
        until(all_settled(place), "an empty Redis")
        assert counted("lease_lost") > before
        assert len(arrivals) == 12
        assert place.counts().stats["delivered"] == 12


def test_what_is_ready_while_redis_is_away_longer_than_the_lease(place: Place) -> None:
    with Sink(delay_s=0.1) as slow:
        place.push(*mails(12))
        worker = place.worker(slow, concurrency=1)
        until(lambda: slow.count >= 1 and worker.lane.in_hand > 2)
        before = counted("lease_lost")
        with place.frozen():
            until(lambda: counted("lease_lost") > before)
        place.push(mail("later"))
        until(all_settled(place), "an empty Redis")
        assert worker.lanes.in_hand() == worker.lanes.bytes_in_hand == 0


def test_a_suspect_in_hand_when_the_lease_lapses(place: Place, sink: Sink) -> None:
    place.make_suspect(mail("s", to=["slow+0.8@x.org"]))
    worker = place.worker(sink, concurrency=1)
    until(lambda: worker.lane.in_hand == 1 and worker.lane.live == 1)
    before = counted("lease_lost")
    with place.frozen():
        until(lambda: counted("lease_lost") > before)
    place.push(*mails(5))
    until(all_settled(place), "an empty Redis")
    assert sink.count == 6


def test_a_lease_lapses_while_the_host_does_not_greet(place: Place, sink: Sink) -> None:
    with silent_port() as port:
        place.push(*mails(5))
        worker = place.worker(f"smtp://127.0.0.1:{port}", sink, greeting_s=0.9, concurrency=2)
        until(lambda: worker.lane.in_hand == 5)
        with place.frozen():
            until(lambda: worker.lane.in_hand == 0)
        until(all_settled(place), "an empty Redis")
        assert sink.count == 5


# ---- leaving whatever happens


def test_it_says_what_redis_has_not_got(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with Sink(delay_s=0.1) as slow:
        worker = place.worker(slow, grace_s=1)
        place.push(mail(1))
        until(lambda: worker.lanes.in_hand() == 1, within_s=20)
        with place.frozen():
            until(lambda: worker.settler.backlog == 1, within_s=20)
            worker.tell()
            assert worker.wait(20) == 0
    assert "left_unsettled jobs=1 " in caplog.text
    assert "left_in_hand" not in caplog.text


@contextmanager
def silent_port(*, is_full: bool = False) -> Iterator[int]:
    """Give a port that takes connections and says nothing, or takes none because it is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if is_full else 50)
        port: int = listener.getsockname()[1]
        for filling in (first, second) if is_full else ():
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", port))
        yield port


Trouble = Callable[[Place], AbstractContextManager[None]]
TROUBLES = pytest.mark.parametrize("trouble", [Place.frozen, Place.read_only])


@TROUBLES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("burst", ["no", "yes"])
def test_it_leaves_before_it_could_begin(
    place: Place, trouble: Trouble, number: int, burst: str
) -> None:
    worker = place.hire("smtp://127.0.0.1:1", grace_s=0.3, burst=burst)
    with trouble(place):
        worker.begin()
        worker.tell(number)
        worker.wait(1)


@TROUBLES
@pytest.mark.parametrize("burst", ["no", "yes"])
def test_it_leaves_within_its_grace_while_redis_is_no_use(
    place: Place, sink: Sink, trouble: Trouble, burst: str
) -> None:
    place.push(*mails(3), mail("x", to=["stall+9@x.org"]))
    worker = place.worker(sink, grace_s=0.4, burst=burst)
    until(lambda: sink.count == 4)
    with trouble(place):
        worker.tell()
        worker.wait(1.5)  # a burst asks for its counts at the end, and gives that up soon


@TROUBLES
def test_a_second_signal_leaves_at_once(place: Place, sink: Sink, trouble: Trouble) -> None:
    place.push(mail("x", to=["stall+9@x.org"]))
    worker = place.worker(sink, grace_s=30)
    until(lambda: sink.count == 1)
    with trouble(place):
        worker.tell()
        gevent.sleep(0.1)
        worker.tell()
        worker.wait(0.5)


@pytest.mark.parametrize("is_full", [False, True])
def test_connections_without_a_message_do_not_hold_up_the_drain(
    place: Place, is_full: bool
) -> None:
    with silent_port(is_full=is_full) as port:
        place.push(*mails(3))
        worker = place.worker(f"smtp://127.0.0.1:{port}", connect_s=60, greeting_s=60, grace_s=30)
        until(lambda: worker.lane.connecting > 0)
        worker.tell()
        assert worker.wait(2) == 0
    counts = place.counts()
    assert (counts.waiting, counts.in_flight) == (3, 0)


def test_a_take_that_is_answered_in_the_drain_is_released(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.worker(sink)
    taker = worker.queues[0]._taker
    run = taker.run

    def late(*words: Any, **more: Any) -> Any:
        reply = run(*words, **more)
        gevent.sleep(0.2)
        return reply

    monkeypatch.setattr(taker, "run", late)
    place.push(*mails(20))
    until(lambda: place.counts().in_flight > 0)
    worker.tell()
    assert worker.wait() == 0
    assert sink.count == 0
    assert (place.counts().waiting, place.counts().in_flight) == (20, 0)
    assert not place.counts().workers


def test_parts_that_arrive_in_the_drain_are_released(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.worker(sink)
    queue = worker.queues[0]
    settle = queue.settle

    def late(records: list[Record]) -> list[Slot]:
        slots = settle(records)
        if slots:
            worker.tell()
            gevent.sleep(0.1)
        return slots

    monkeypatch.setattr(queue, "settle", late)
    place.push(mail("x", to=[f"r{i}@x.org" for i in range(250)]))
    assert worker.wait() == 0
    assert sink.count == 0
    assert (place.counts().waiting, place.counts().in_flight) == (3, 0)
    monkeypatch.undo()
    assert place.worker(sink, burst="yes").wait() == 0
    assert sink.count == 3
    assert place.held() == 0


def test_the_hub_is_free_while_it_drains(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_mail(_: str, to: tuple[str, ...], __: bytes) -> None:
        gevent.sleep({"die": 0.3, "lat": 0.8}.get(to[0][:3], 0))
        if to[0].startswith("die"):
            raise OSError("gone")

    started: list[object] = []
    init = senders.Sender.__init__

    def note(self: senders.Sender, *words: Any) -> None:
        started.append(self)
        init(self, *words)

    monkeypatch.setattr(senders.Sender, "__init__", note)
    with Sink(on_mail=on_mail) as host:
        worker = place.worker(host, concurrency=2, backoff_base_s=30, backoff_cap_s=60)
        wire = [mail("d", to=["die@x.org"]), mail("l", to=["late@x.org"])]
        place.push(*wire, *mails(6))
        until(lambda: host.count == 2)
        worker.tell()
        known, stalls, last = len(started), [0.0], time.monotonic()
        while not worker.has_left:
            gevent.sleep(0.02)
            stalls.append(time.monotonic() - last)
            last = time.monotonic()
        assert worker.wait() == 0
    assert max(stalls) < 0.5
    assert len(started) - known < 5
    assert place.counts().in_flight == 0


# ---- --max-messages


def test_it_delivers_all_parts_of_the_last_message(place: Place, sink: Sink) -> None:
    place.push(mail("x", to=[f"r{i}@x.org" for i in range(250)]), *mails(5))
    assert place.worker(sink, max_messages=1).wait() == 0
    assert sink.count == 3
    assert (place.counts().waiting, place.counts().in_flight) == (5, 0)


def test_parked_messages_count_too(place: Place, sink: Sink) -> None:
    place.desk.register()
    place.push(*mails(40))
    slots = place.desk.take(40).slots
    place.desk.settle([Park([slot], "default", 1, slot.state) for slot in slots])
    place.desk.leave()
    place.push(*mails(40))
    worker = place.worker(sink, max_messages=7)
    assert worker.wait() == 0
    assert worker.popper.taken == sink.count == 7
    assert place.held() == 73
    assert place.counts().in_flight == 0


# ---- SIGHUP


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "geomail.toml"


def relays(file: Path, **urls: Sink | str) -> None:
    tables = [
        f'[relay.{name}]\nurl = "{url(host) if isinstance(host, Sink) else host}"\n'
        for name, host in urls.items()
    ]
    file.write_text("".join(tables))


def test_a_lane_that_is_not_named_any_more_is_no_room(place: Place, sink: Sink, file: Path) -> None:
    with Sink() as old:
        relays(file, default=old)
        worker = place.worker(file=file, concurrency=4)
        place.push(mail("x", to=["stall+9@x.org"]))  # it keeps the old lane
        until(lambda: old.count == 1)
        relays(file, default=sink)
        worker.hang_up()
        room = worker.lanes.room()
        assert room == worker.lanes.routes["default"].room(time.monotonic())
        before = counted("parked")
        place.push(*mails(500))
        until(lambda: sink.count == 500)
        assert counted("parked") == before
        assert old.count == 1


class SpoiltDoors:
    """Doors whose certificate can't be read any more."""

    def renew(self) -> None:
        raise ConfigError("door_cert: no certificate in it")


def test_a_certificate_that_is_none_changes_nothing(place: Place, sink: Sink, file: Path) -> None:
    relays(file, default=sink)
    worker = place.worker(file=file)
    worker._doors = SpoiltDoors()  # type: ignore[assignment]
    relays(file, other=sink)
    worker.hang_up()
    worker._doors = None
    place.push(*mails(5))
    until(lambda: place.held() == 0)
    assert sink.count == 5


@pytest.mark.parametrize("is_named", [True, False])
def test_ready_mails_of_a_lane_that_goes_away(
    place: Place, sink: Sink, file: Path, is_named: bool
) -> None:
    with silent_port() as port:
        relays(file, default=f"smtp://127.0.0.1:{port}", other=sink)
        worker = place.worker(file=file, greeting_s=0.5, concurrency=2)
        place.push(*mails(10))
        until(lambda: worker.lane.in_hand == 10)
        if is_named:
            relays(file, default=sink, other=sink)
        else:
            relays(file, other=sink)
        worker.hang_up()
        if is_named:
            until(all_settled(place), "an empty Redis")
            assert sink.count == 10
        else:
            until(lambda: place.counts().dead == 10)
            assert {letter.reason for letter in place.desk.dead_list(20)} == {
                "relay 'default' is not known; known: other"
            }
        until(lambda: len(worker.lanes.lanes) == 1 or worker.lanes.in_hand() == 0)


def test_what_is_parked_for_a_relay_that_goes_away_is_judged(
    place: Place, sink: Sink, file: Path
) -> None:
    relays(file, default=sink, b="smtp://127.0.0.1:1")
    worker = place.worker(file=file, backoff_base_s=5, backoff_cap_s=5)
    place.push(*[mail(i, relay="b") for i in range(5)])
    until(lambda: place.counts().parked == {"b": 5})
    relays(file, default=sink)
    worker.hang_up()
    until(lambda: place.counts().dead == 5, within_s=8)
    assert "relay 'b' is not known" in place.desk.dead_list(1)[0].reason


def test_a_reload_that_is_refused_late_changes_nothing(
    place: Place, sink: Sink, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relays(file, default=sink, b=sink)
    worker = place.worker(file=file)
    relays(file, default=sink, c=sink)

    def refuse(_settings: object) -> None:
        raise ConfigError("the relay mx needs a name server in /etc/resolv.conf")

    monkeypatch.setattr(worker.lanes, "configure", refuse)
    worker.hang_up()
    place.push(mail("x", relay="b"))
    until(lambda: sink.count == 1)
    until(all_settled(place))


def test_what_needs_a_restart_stays_in_force_until_then(
    place: Place, sink: Sink, file: Path
) -> None:
    relays(file, default=sink)
    worker = place.worker(file=file)
    file.write_text("concurrency = 4000\nretries = 3\n" + file.read_text())
    worker.hang_up()
    assert worker.settings.retries == 3
    assert worker.settings.concurrency == worker.lanes.settings.concurrency == 20


def test_a_relay_that_is_held_no_more_when_the_file_is_read(
    place: Place, sink: Sink, file: Path
) -> None:
    relays(file, default=sink)
    worker = place.worker(file=file, beat_s=0.3, lease_s=2)
    place.desk.hold("relay", "default", on=True)
    until(lambda: worker.lane.is_held)
    place.desk.hold("relay", "default", on=False)
    (queue,) = worker.queues
    queue.held = frozenset()  # the beat has told, and it is the other list's turn
    worker.hang_up()
    assert not worker.lane.is_held
    place.push(mail("x"))
    until(lambda: sink.count == 1)


def test_a_delivery_log_without_a_folder_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't write .*/none/log: No such file"):
        place.hire("smtp://127.0.0.1:1", delivery_log=tmp_path / "none" / "log")


def test_a_delivery_log_that_can_not_be_opened_again_is_said(
    place: Place, sink: Sink, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "log"
    worker = place.worker(sink, delivery_log=log)
    place.push(mail(0))
    until(lambda: log.exists() and log.read_text())
    rotated = folder.rename(tmp_path / "old") / "log"
    worker.hang_up()
    place.push(mail(1))
    until(lambda: rotated.read_text().count("\n") == 2)  # it goes on with the file that it has
    assert [json.loads(line)["label"] for line in rotated.read_text().splitlines()] == ["n0", "n1"]


def test_a_redis_that_forbids_waiting_ends_it(place: Place, sink: Sink) -> None:
    place.redis.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-blmove")
    try:
        login = place.server.url.replace("redis://", "redis://bob:pw@")
        with pytest.raises(RedisUnusable, match=r"(?i)blmove"):
            place.worker(sink, redis=login).wait(2)
    finally:
        place.redis.execute_command("ACL", "DELUSER", "bob")
