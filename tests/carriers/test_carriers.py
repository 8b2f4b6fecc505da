"""The carriers: each task that was taken is reported once or given back, and then held no more."""

from typing import Any, cast

import gevent
import pytest
from gevent.event import Event

from geomail.carriers.carriers import Carriers
from geomail.carriers.task import Task
from geomail.config import Settings
from geomail.delivery.lanes import Lanes
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import HttpTask
from geomail.queue import FRESH, Slot

JOB = HttpTask("http://a.example/")


class House:
    """What the carriers know of the lanes."""

    def __init__(self) -> None:
        self.news = Event()
        self.tasks_in_hand = self.bytes_in_hand = 0
        self.bytes_of = {"list": 0}
        self.guests: dict[str, object] = {}
        self.routes: dict[str, object] = {}

    def want_more(self) -> None:
        """There is room again."""


class List:
    """A list whose lease is ours, or was."""

    def __init__(self, *, is_ours: bool) -> None:
        self.name = "list"
        self.is_ours = is_ours

    def owns(self, _slot: Slot) -> bool:
        """Return whether it is still ours."""
        return self.is_ours


class Decided(Carriers):
    """Carriers whose tasks all end in one way, by the doing of `host`."""

    outcome: Outcome
    host: str | None = None

    def _do(self, task: Task) -> tuple[Outcome, float | None, str | None]:
        return self.outcome, None, self.host


@pytest.mark.parametrize(
    ("fate", "is_ours", "end"),
    [
        (Fate.DELIVERED, True, "reported"),
        (Fate.LATER, True, "reported"),
        (Fate.NEVER, True, "reported"),
        (Fate.AGAIN, True, "given back"),
        (Fate.DELIVERED, False, "given back"),
    ],
)
def test_each_end(fate: Fate, is_ours: bool, end: str) -> None:
    house = House()
    ends: list[tuple[str, Task]] = []
    carriers = Decided(
        Settings(data="", url_hosts=("a.example",)),
        house=cast("Lanes", house),
        report=lambda task, *_: ends.append(("reported", task)),
        give_back=lambda tasks: ends.extend(("given back", task) for task in tasks),
    )
    carriers.outcome = Outcome(fate, Blame.MESSAGE, "url", "so be it")
    slot = Slot("w", 1, 0, "w.1.0", 0, 0, FRESH, b"{}")
    task = Task(cast("Any", List(is_ours=is_ours)), slot, job=JOB, route="url/a.example:80")
    assert carriers.put(task, carriers.route_of(JOB))
    assert (house.tasks_in_hand, house.bytes_in_hand, house.bytes_of) == (1, 2, {"list": 2})
    gevent.sleep(0)
    assert ends == [(end, task)]
    assert (house.tasks_in_hand, house.bytes_in_hand, house.bytes_of) == (0, 0, {"list": 0})
    assert carriers.join(0.0) == []


def test_a_redirect_that_fails_counts_against_where_it_led() -> None:
    house = House()
    carriers = Decided(
        Settings(data="", url_hosts=("*",)),
        house=cast("Lanes", house),
        report=lambda *_: None,
        give_back=lambda _: None,
    )
    carriers.outcome = Outcome(Fate.LATER, Blame.HOST, "url", "refused")
    carriers.host = "b.example:80"
    first = carriers.route_of(JOB)
    for n in range(3):
        slot = Slot("w", 1, n, f"w.1.{n}", 0, 0, FRESH, b"{}")
        assert carriers.put(Task(cast("Any", List(is_ours=True)), slot, job=JOB, route=""), first)
        gevent.sleep(0)
    second = carriers.route_of(HttpTask("http://b.example/"))
    assert (first.strikes, first.failed) == (0, 0)
    assert (second.strikes, second.failed) == (3, 3)
    assert carriers._pause_s("b.example:80") > 0 == carriers._pause_s("a.example:80")
    assert carriers._pause_s("c.example:80") == 0
