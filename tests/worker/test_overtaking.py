"""Urgent mail behind bulk on one host: how soon it is taken, and how few go before it."""

import time

import gevent
import pytest
from hired import Hired, Place, mail, until, url
from test_popper import Order, fill

from geomail.queue import Link, Queue

pytest_plugins = ("worker_fixtures",)

LARGE = "A line that is repeated until the mail is large.\n" * 60_000  # 3 MB
BOTH = ["queue:bulk=1", "queue:urgent=8"]


def push(place: Place, name: str, *payloads: bytes) -> None:
    queue = Queue(Link(place.server.url), f"queue:{name}")
    queue.push(payloads)
    queue.close()


def gone_before(host: Order, place: Place, *, count: int = 1) -> int:
    """Push urgent mails; return how many of bulk the host takes until it has them all."""
    before = len(host.came)
    push(place, "urgent", *[mail(n, to=[f"u{n}@x.org"]) for n in range(count)])
    until(lambda: host.came.count("u") >= count, within_s=20)
    last = len(host.came) - 1 - host.came[::-1].index("u")
    return host.came[before:last].count("b")


def test_an_urgent_mail_waits_for_those_on_the_wire_only(place: Place) -> None:
    fill(place, "bulk", 1500)
    with Order(delay_s=0.1) as host:
        worker = place.worker(host, concurrency=5, queue=BOTH)
        until(lambda: len(host.came) > 20, within_s=20)
        until(lambda: len(worker.lane.ready) > 20, within_s=20)
        assert gone_before(host, place) <= 20  # 10 are on the wire, 30 were ready


def test_with_chunking_it_waits_for_the_windows_only(place: Place) -> None:
    fill(place, "bulk", 3000)
    with Order(delay_s=0.1) as host:
        file = place.folder.parent / "geomail.toml"
        file.write_text(f"[relay.default]\nurl = '{url(host)}'\nchunking = 'on'\nin_flight = 4\n")
        worker = place.worker(file=file, concurrency=5, queue=BOTH)
        until(lambda: len(worker.lane.ready) > 30, within_s=20)
        assert gone_before(host, place) <= 30  # 20 are on the wire


def test_many_urgent_mails_go_before_bulk_by_their_weight(place: Place) -> None:
    fill(place, "bulk", 3000)
    with Order(delay_s=0.02) as host:
        worker = place.worker(host, concurrency=5, queue=BOTH)
        until(lambda: len(worker.lane.ready) > 20, within_s=20)
        assert gone_before(host, place, count=160) <= 20 + 40


def test_bulk_goes_on_meanwhile(place: Place) -> None:
    fill(place, "bulk", 3000)
    fill(place, "urgent", 3000)
    with Order(delay_s=0.005) as host:
        place.worker(host, concurrency=5, queue=BOTH)
        until(lambda: len(host.came) > 400, within_s=20)
        assert host.shares(400) == pytest.approx({"u": 8 / 9, "b": 1 / 9}, rel=0.25)


def test_large_bulk_leaves_memory_to_others(place: Place) -> None:
    push(place, "bulk", *[mail(n, to=[f"b{n}@x.org"], text=LARGE) for n in range(12)])
    with Order(delay_s=5.0) as host:
        worker = place.worker(host, memory_mb=16, concurrency=5, queue=BOTH)
        until(lambda: worker.lanes.bytes_in_hand > 8_000_000, within_s=20)
        gevent.sleep(0.2)  # time for one more, which there should not be
        assert worker.lanes.bytes_in_hand < 12_000_000
        push(place, "urgent", mail("u"))
        until(lambda: worker.lanes.in_hand() == 4, within_s=4)


# ---- what is parked


def test_parked_mails_of_several_lists_share_by_weight(place: Place) -> None:
    for name in ("a", "b"):
        fill(place, name, 600, parked=True)
    with Order(delay_s=0.002) as host:
        place.worker(host, concurrency=2, queue=["queue:a=1", "queue:b=3"])
        until(lambda: len(host.came) >= 400, within_s=20)
        assert host.shares(400) == pytest.approx({"a": 1 / 4, "b": 3 / 4}, rel=0.15)


def test_urgent_mail_overtakes_what_is_parked(place: Place) -> None:
    fill(place, "bulk", 1500, parked=True)
    with Order(delay_s=0.1) as host:
        worker = place.worker(host, concurrency=5, queue=BOTH)
        until(lambda: len(worker.lane.ready) > 20, within_s=20)
        assert gone_before(host, place) <= 20


def test_urgent_mail_that_is_parked_overtakes_bulk(place: Place) -> None:
    fill(place, "bulk", 1500)
    fill(place, "urgent", 5, parked=True)
    with Order(delay_s=0.1) as host:
        place.worker(host, concurrency=5, queue=BOTH)
        until(lambda: host.came.count("u") == 5, within_s=20)
        assert host.came.count("b") < 100


# ---- whose share it is


def hire(place: Place, host: Order) -> Hired:
    worker = place.hire(host, queue=BOTH)
    for queue in worker.queues:
        queue.register()
    return worker


def test_a_probe_is_for_one_mail_of_any_list(place: Place) -> None:
    with Order() as host:
        lane = hire(place, host).lane
        lane.fail("for a test", began=time.monotonic())
        lane.backoff.end()
        now = time.monotonic()
        assert lane.room(now) == 1
        assert [lane.room_for(name, 0.5, now) for name in ("queue:bulk", "queue:urgent")] == [0, 0]


def test_a_list_that_is_held_has_no_share(place: Place) -> None:
    with Order() as host:
        worker = hire(place, host)
        bulk, urgent = worker.queues
        assert worker.popper._shares() == {urgent: 8 / 9, bulk: 1 / 9}
        bulk.held = frozenset({("queue", bulk.name)})
        assert worker.popper._shares() == {urgent: 1.0}


def test_a_list_that_was_empty_for_long_has_saved_nothing(place: Place) -> None:
    with Order() as host:
        worker = hire(place, host)
        bulk, urgent = worker.queues
        worker.popper._empty.add(urgent)
        worker.popper._charge(bulk, 1000)
        worker.popper._charge(bulk, 1)
        worker.popper._empty.clear()
        worker.popper._charge(urgent, 8)
        assert worker.popper._had[urgent] == 1001.0
