"""What people hold back: kept in Redis, told by each beat, seen in the counts."""

from typing import Any

from redis_servers import NewQueue

from geomail.queue import Queue

pytest_plugins = ("queue_fixtures",)
Raw = Any


def test_every_worker_hears_of_it_at_its_next_beat(queue: Queue, new_queue: NewQueue) -> None:
    other = new_queue()
    assert queue.hold("relay", "mx: größer", on=True)
    assert not queue.hold("relay", "mx: größer", on=True)
    assert queue.hold("queue", "queue:email", on=True)
    assert queue.held == other.held == frozenset()
    assert queue.beat()
    assert other.beat()
    assert queue.held == other.held == {("relay", "mx: größer"), ("queue", "queue:email")}
    assert new_queue().held == queue.held
    assert queue.hold("relay", "mx: größer", on=False)
    assert not queue.hold("relay", "mx: größer", on=False)
    assert other.beat()
    assert other.held == {("queue", "queue:email")}


def test_counts_tell_it(queue: Queue) -> None:
    assert queue.counts().held == ()
    queue.hold("relay", "b", on=True)
    queue.hold("queue", "a", on=True)
    assert queue.counts().held == (("queue", "a"), ("relay", "b"))


def test_keys_in_the_way_cost_no_lease(queue: Queue, raw: Raw) -> None:
    for key in ("held", "stats"):
        raw.set(f"{{queue:email}}:{key}", "in the way")
    raw.set("queue:email", "in the way")
    assert queue.beat()
    assert queue.held == frozenset()
