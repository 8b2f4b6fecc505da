"""What a door pushes in another process wakes an idle worker at once."""

import time
from functools import partial

import redis
from hired import Place, mail, until

from geomail.queue import Link, Queue
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)

_LOOK_S = 5.0  # a worker that nobody wakes looks as rarely


def _has_taken(sink: Sink, mails: int) -> bool:
    return sink.count == mails


def test_an_idle_worker_is_woken(place: Place, sink: Sink) -> None:
    worker = place.worker(sink)
    door = Queue(Link(place.server.url))
    try:
        began = time.monotonic()
        for number in range(20):
            until(lambda: len(worker.popper._waits) == 2, "a worker that waits for both")
            door.submit([mail(number)])
            until(partial(_has_taken, sink, number + 1), within_s=20)
        # Most of them; one nudge may be met by a look that was under way.
        assert time.monotonic() - began < 2 * _LOOK_S
    finally:
        door.close()


def test_what_one_worker_leaves_wakes_the_next(place: Place) -> None:
    with Sink(delay_s=0.2) as slow:
        workers = [place.worker(slow, concurrency=2) for _ in range(3)]
        until(lambda: all(len(one.popper._waits) == 2 for one in workers), "workers that wait")
        door = Queue(Link(place.server.url))
        try:
            began = time.monotonic()
            door.submit([mail(number) for number in range(100)])
            until(lambda: all(one.lane.in_hand for one in workers), within_s=20)
            assert time.monotonic() - began < _LOOK_S / 2
        finally:
            door.close()


def test_one_nudge_is_kept(place: Place) -> None:
    door = Queue(Link(place.server.url))
    with redis.Redis(port=place.server.port) as raw:
        for _ in range(3):
            door.submit([mail(1)])
        assert raw.lrange("{queue:email}:nudge", 0, -1) == [b""]
        assert door.wait_for_push(20)
        assert not door.wait_for_push(0.01)
        door.submit([mail(1)])
        assert door.wait_for_push(20)
    door.close()


def test_a_nudge_of_another_type_costs_no_push(place: Place) -> None:
    door = Queue(Link(place.server.url))
    with redis.Redis(port=place.server.port) as raw:
        raw.set("{queue:email}:nudge", "x")
        assert door.submit([mail(1)])
    door.close()


def test_a_worker_tells_producers_of_pressure(place: Place, sink: Sink) -> None:
    key = "{queue:email}:pressure"
    place.desk.hold("queue", "queue:email", on=True)
    place.worker(sink, high_water=10)
    until(lambda: place.redis.get(key) == b"ok", within_s=20)
    place.push(*[mail(1)] * 10)
    until(lambda: place.redis.get(key) == b"high", within_s=20)
    place.desk.hold("queue", "queue:email", on=False)
    until(lambda: sink.count == 10, within_s=20)
    until(lambda: place.redis.get(key) == b"ok", within_s=20)
