"""The settler: a surprise in a flight, a Redis that refuses outcomes, and its rest."""

import gevent
import pytest
from hired import Place, mail, mails, until

from geomail import metrics
from geomail.queue import Record, Release, Slot
from geomail.sink import Sink
from geomail.worker import popper

pytest_plugins = ("worker_fixtures",)


def test_settling_goes_on_after_a_surprise(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.worker(sink)
    settle = worker.queues[0].settle
    flights: list[int] = []

    def surprising(records: list[Record]) -> list[Slot]:
        flights.append(len(records))
        if len(flights) == 1:
            raise RuntimeError("surprise")
        return settle(records)

    monkeypatch.setattr(worker.queues[0], "settle", surprising)
    place.push(*mails(5))
    until(lambda: flights)
    place.push(*mails(50))
    until(lambda: place.held() == 0)
    assert sink.count == 55
    assert place.counts().stats["delivered"] == 55
    assert worker.settler.is_idle


def test_a_surprise_when_a_flight_has_landed_sends_nothing_twice(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.worker(sink, delivery_log=place.folder.parent / "log")
    monkeypatch.setattr(worker.settler.delivery_log, "write", None)  # can't be called
    broken = metrics.snapshot().get("greenlets_broken", 0)
    place.push(*mails(5))
    until(lambda: metrics.snapshot().get("greenlets_broken", 0) > broken)
    monkeypatch.undo()
    place.push(*mails(5))
    until(lambda: place.held() == 0 and worker.settler.is_idle)
    assert sink.count == place.counts().stats["delivered"] == 10


def test_what_redis_refuses_to_settle_is_bounded(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popper, "_UNSETTLED", 200 / popper.TAKE_LIMIT)
    worker = place.worker(sink, concurrency=4)
    place.push(mail(0))
    until(lambda: place.counts().stats.get("delivered") == 1)
    place.redis.set("{queue:email}:dead", "another program's")
    place.push(b"junk")
    until(lambda: worker.settler.backlog == 1)
    place.desk.push(mails(1000))
    until(lambda: worker.settler.backlog > 200)
    until(lambda: worker.lanes.in_hand() == 0)
    assert worker.settler.backlog < 200 + popper.TAKE_LIMIT
    assert sink.count == worker.settler.backlog  # the mail before, without the junk
    place.redis.delete("{queue:email}:dead")
    until(lambda: place.counts().dead == 1 and place.held() == 1)
    assert sink.count == 1001


def test_waiting_for_its_rest_leaves_the_hub_to_the_others(place: Place, sink: Sink) -> None:
    worker = place.hire(sink)
    (queue,) = worker.queues
    queue.register()
    place.push(mail(0))
    (slot,) = queue.take(1).slots
    running = gevent.spawn(worker.settler.run)
    gevent.sleep(0.01)  # it has nothing to do, and rests
    worker.settler.add(queue, Release(slot, slot.state))
    assert worker.settler.wait_until_idle(1.0)
    assert place.counts().front == 1
    running.kill()
