"""Large jobs: how many are in hand at once, and what is kept of their payloads meanwhile."""

from collections import Counter

import gevent
import pytest
from hired import Hired, Place, mail, until

from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)

LARGE = "A line that is repeated until the mail is large.\n" * 60_000  # 3 MB


def most_in_hand(worker: Hired, place: Place) -> int:
    """Wait until nothing is left; return the most bytes of payloads in hand until then."""
    most = 0
    while place.held():
        most = max(most, worker.lanes.bytes_in_hand)
        gevent.sleep(0.002)
    return most


@pytest.mark.parametrize("lists", [1, 3])
def test_no_more_is_in_hand_than_memory_mb_says(place: Place, lists: int) -> None:
    names = ["queue:email", "queue:b", "queue:c"][:lists]
    payload = mail("large", text=LARGE)
    for name in names:
        place.redis.lpush(name, *[payload] * (12 // lists))
    with Sink(delay_s=0.2) as host:
        worker = place.worker(host, memory_mb=16, queue=names)
        until(lambda: worker.lanes.bytes_in_hand > 8_000_000, within_s=20)
        most = most_in_hand(worker, place)
        until(lambda: host.count == 12, within_s=20)
    assert 12_000_000 < most <= 16_000_000


def test_a_take_brings_no_more_than_there_is_room_for(place: Place) -> None:
    place.push(*[mail(n, text=LARGE[:900_000]) for n in range(40)])
    with Sink(delay_s=0.2) as host:
        worker = place.worker(host, memory_mb=16, take_mb=512)
        until(lambda: worker.lanes.bytes_in_hand > 8_000_000, within_s=20)
        assert most_in_hand(worker, place) <= 16_000_000
        until(lambda: host.count == 40, within_s=20)


def test_small_jobs_are_not_held_up_by_a_small_memory(place: Place) -> None:
    place.push(*[mail(n, text="t" * 50_000) for n in range(100)])
    with Sink(delay_s=0.05) as host:
        worker = place.worker(host, memory_mb=16, concurrency=20)
        until(lambda: worker.lanes.in_hand() >= 40, within_s=20)
        until(lambda: host.count == 100, within_s=20)


def test_a_large_payload_is_let_go_of_and_counts_all_the_same(place: Place, sink: Sink) -> None:
    worker = place.hire(sink)
    place.push(mail("large", text=LARGE))
    queue = worker.queues[0]
    queue.register()
    slot = queue.take(1).slots[0]
    size = len(slot.payload)
    worker.admission.admit(queue, slot)
    assert (slot.payload, slot.weight, worker.lanes.bytes_in_hand) == (b"", size, size)
    until(lambda: not worker.lanes.in_hand(), within_s=20)
    assert worker.lanes.bytes_in_hand == 0


def test_a_large_job_is_tried_again_whole(place: Place) -> None:
    lengths: list[int] = []
    with Sink(on_mail=lambda _, __, content: lengths.append(len(content))) as host:
        place.worker(host)
        place.push(mail("large", text=LARGE, to=["greylist@x.org"]))
        until(lambda: not place.held(), within_s=20)
    assert place.counts().stats["retried"] == 1
    assert len(lengths) == 1
    assert lengths[0] > len(LARGE)


def test_a_large_job_of_many_recipients_is_split(place: Place) -> None:
    sizes: list[tuple[int, int]] = []
    everybody = [f"r{n}@x.org" for n in range(7)]
    with Sink(on_mail=lambda _, to, content: sizes.append((len(to), len(content)))) as host:
        place.worker(host, max_recipients=3)
        place.push(mail("large", text=LARGE, to=everybody))
        until(lambda: not place.held(), within_s=20)
    assert sorted(count for count, _ in sizes) == [1, 3, 3]
    assert all(size > len(LARGE) for _, size in sizes)


def test_the_parts_of_a_large_job_keep_to_memory_mb(place: Place) -> None:
    arrived: Counter[str] = Counter()
    everybody = [f"r{n}@x.org" for n in range(30)]
    with Sink(on_mail=lambda _, to, __: arrived.update(to), delay_s=0.1) as host:
        worker = place.worker(host, max_recipients=1, memory_mb=16)
        place.push(mail("large", text=LARGE, to=everybody))
        until(lambda: worker.lanes.bytes_in_hand > 8_000_000, within_s=20)
        assert most_in_hand(worker, place) <= 16_000_000
    assert arrived == dict.fromkeys(everybody, 1)
