"""One relay with several hosts: shares by weight, overflow, and a spare that waits for the rest."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hired import Hired, Place, mails, until, url

from geomail.queue import Link, Queue
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 30.0


class Hosts:
    """Hosts that count their mails; `spoil` makes one refuse every connection."""

    def __init__(self) -> None:
        self.took: list[int] = []
        self.sinks: list[Sink] = []
        self._stack = ExitStack()

    def add(self, **faults: float) -> Sink:
        """Start one more."""
        number = len(self.took)
        self.took.append(0)

        def note(*_mail: object) -> None:
            self.took[number] += 1

        self.sinks.append(self._stack.enter_context(Sink(on_mail=note, **faults)))  # type: ignore[arg-type]
        return self.sinks[-1]

    def close(self) -> None:
        """Stop them all."""
        self._stack.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Give no hosts yet; a test asks for them first, so that its worker ends first."""
    made = Hosts()
    yield made
    made.close()


def worker(place: Place, hosts: Hosts, weights: list[int], **more: object) -> Hired:
    file = place.folder.parent / "geomail.toml"
    urls = [url(sink) for sink in hosts.sinks]
    file.write_text(f"[relay.default]\nurl = {urls}\nweights = {weights}\n")
    return place.worker(file=file, **more)


def test_hosts_share_by_weight(hosts: Hosts, place: Place) -> None:
    hosts.add(), hosts.add(), hosts.add()
    worker(place, hosts, [3, 1, 0])
    place.push(*mails(2000))
    until(lambda: sum(hosts.took) >= 2000, within_s=WITHIN_S)
    assert hosts.took == pytest.approx([1500, 500, 0], rel=0.1)


def test_hosts_share_by_weight_also_among_lists(hosts: Hosts, place: Place) -> None:
    hosts.add(), hosts.add()
    for name in ("queue:a", "queue:b"):
        queue = Queue(Link(place.server.url), name)
        queue.push(mails(1000))
        queue.close()
    worker(place, hosts, [3, 1], queue=["queue:a=1", "queue:b=3"])
    until(lambda: sum(hosts.took) >= 2000, within_s=WITHIN_S)
    assert hosts.took == pytest.approx([1500, 500], rel=0.1)


def test_a_trickle_is_shared_too(hosts: Hosts, place: Place) -> None:
    hosts.add(), hosts.add()
    worker(place, hosts, [3, 1])
    for number, payload in enumerate(mails(20)):
        place.push(payload)
        until(lambda number=number: sum(hosts.took) > number, within_s=WITHIN_S)  # type: ignore[misc]
    assert hosts.took == [15, 5]


def test_a_host_that_is_full_leaves_its_share_to_the_others(hosts: Hosts, place: Place) -> None:
    hosts.add(delay_s=0.5), hosts.add()
    worker(place, hosts, [9, 1], concurrency=4)
    place.push(*mails(1000))
    until(lambda: hosts.took[1] >= 900, within_s=WITHIN_S)
    assert hosts.took[0] < 100


def test_the_spare_serves_only_when_no_other_is_open(hosts: Hosts, place: Place) -> None:
    first, _ = hosts.add(), hosts.add()
    hired = worker(place, hosts, [1, 0], backoff_base_s="2", backoff_cap_s="2")
    place.push(*mails(500))
    until(lambda: hosts.took == [500, 0], within_s=WITHIN_S)
    first.stop()
    place.push(*mails(300))
    until(lambda: hosts.took[1] >= 300, within_s=WITHIN_S)
    assert not hired.lanes.lanes[0].is_open(time.monotonic())


def test_one_that_was_away_gets_its_share_and_no_more(hosts: Hosts, place: Place) -> None:
    hosts.add(), hosts.add()
    hired = worker(place, hosts, [1, 1])
    away = hired.lanes.lanes[0]
    away.fail("gone for a while", began=time.monotonic(), at_least_s=3600.0)
    place.push(*mails(400))
    until(lambda: hosts.took == [0, 400], within_s=WITHIN_S)
    away.health.forgive()
    place.push(*mails(400))
    until(lambda: sum(hosts.took) == 800, within_s=WITHIN_S)
    assert 50 < hosts.took[0] < 220  # a probe comes first
