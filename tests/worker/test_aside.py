"""What is put aside: held for a moment, parked together, and at once where there is use for it."""

import time
from collections.abc import Iterator

import gevent
import pytest
from hired import Place, mail, mails, until, url

from geomail.queue import JobState, Link, Park, Queue, Slot
from geomail.sink import Sink
from geomail.worker import aside as aside_module
from geomail.worker.aside import Aside

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 20.0
STATE, OTHER = JobState(route="r"), JobState(route="r", last="no")


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    made = Queue(Link(redis_url))
    made.register()
    yield made
    made.close()


def slots(queue: Queue, count: int) -> list[Slot]:
    queue.push([b"%d" % number for number in range(count)])
    return queue.take(count).slots


def test_those_of_a_route_become_one(queue: Queue) -> None:
    aside, ours = Aside(), slots(queue, 5)
    assert aside.due_in_s(1.0) is None
    aside.add(queue, Park(ours[:2], "a", 5, STATE), 1.0)
    aside.add(queue, Park([ours[2]], "b", 5, STATE), 1.1)
    aside.add(queue, Park([ours[3]], "a", 9, STATE), 1.2)
    aside.add(queue, Park([ours[4]], "a", 9, OTHER), 1.2)
    assert aside.due_in_s(1.2) == pytest.approx(0.05)
    assert aside.due_in_s(2.0) == 0.0
    assert aside.holds(queue, "b")
    assert not aside.holds(queue, "c")
    assert [(record.route, record.state, record.slots) for _, record in aside.empty()] == [
        ("a", STATE, [*ours[:2], ours[3]]),
        ("b", STATE, [ours[2]]),
        ("a", OTHER, [ours[4]]),
    ]
    assert aside.count == 0
    assert aside.empty() == []


def test_many_or_large_ones_are_enough(queue: Queue) -> None:
    aside, ours = Aside(), slots(queue, 512)
    aside.add(queue, Park(ours[:511], "a", 5, STATE), 1.0)
    seen = [aside.is_full]
    aside.add(queue, Park(ours[511:], "b", 5, STATE), 1.0)
    seen.append(aside.is_full)
    aside.empty()
    ours[0].size, ours[0].payload = 2_000_000, b""
    aside.add(queue, Park(ours[:1], "a", 5, STATE), 1.0)
    assert [*seen, aside.is_full] == [False, True, True]


def test_it_is_parked_when_its_time_is_over(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside_module, "_HELD_S", 0.2)
    worker = place.worker(sink)
    (queue,) = worker.queues
    place.desk.hold("queue", queue.name, on=True)
    until(lambda: queue.held, within_s=WITHIN_S)
    place.push(*mails(3))
    ours = queue.take(3).slots
    began = time.monotonic()
    for slot in ours:
        worker.settler.put_aside(queue, Park([slot], "elsewhere", 60_000, STATE))
    assert worker.settler.is_parking
    assert not worker.settler.is_idle
    until(lambda: worker.settler.is_idle, within_s=WITHIN_S)
    assert time.monotonic() - began > 0.15
    assert place.counts().parked == {"elsewhere": 3}


def test_it_is_parked_at_once_where_there_is_use_for_it(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside_module, "_HELD_S", 1000.0)
    worker = place.worker(sink)
    (queue,) = worker.queues
    place.desk.hold("queue", queue.name, on=True)
    until(lambda: queue.held, within_s=WITHIN_S)
    place.push(*mails(2))
    for slot, name in zip(queue.take(2).slots, ("one", "two"), strict=True):
        worker.settler.put_aside(queue, Park([slot], name, 60_000, STATE))
    worker.settler.hurry(queue, "three")
    gevent.sleep(0.01)
    assert not place.counts().parked
    worker.settler.hurry(queue, "two")
    until(lambda: worker.settler.is_idle, within_s=WITHIN_S)
    assert place.counts().parked == {"one": 1, "two": 1}


def test_who_leaves_holds_nothing(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside_module, "_HELD_S", 1000.0)
    file = place.folder.parent / "geomail.toml"
    sick = "[relay.sick]\nurl = 'smtp://127.0.0.1:1'\n"
    file.write_text(f"[relay.default]\nurl = '{url(sink)}'\n{sick}")
    place.desk.hold("relay", "sick", on=True)
    worker = place.worker(file=file)
    place.push(*(mail(number, relay="sick") for number in range(50)), mail("well"))
    until(lambda: sink.count == 1, within_s=WITHIN_S)
    assert worker.settler.is_parking
    assert place.counts().parked["sick"] < 50
    worker.tell()
    assert worker.wait(WITHIN_S) == 0
    assert place.counts().parked == {"sick": 50}
    assert place.counts().in_flight == 0
