"""Alarms of lanes: in order, one timer for all, and no lane kept for its own."""

import gc
import time

import gevent
from house import until

from geomail.delivery.alarms import Alarms


class Lane:
    """As much of a lane as rings."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_they_ring_in_order_and_never_early() -> None:
    rung: list[tuple[str, float]] = []
    alarms = Alarms(lambda lane: rung.append((lane.name, time.monotonic())))
    lanes = {name: Lane(name) for name in "cab"}
    began = time.monotonic()
    for name, delay_s in (("c", 0.3), ("a", 0.1), ("b", 0.2)):
        alarms.set(lanes[name], delay_s)  # type: ignore[arg-type]
        gevent.sleep(0)
    until(lambda: len(rung) == 3)
    assert [name for name, _ in rung] == ["a", "b", "c"]
    for (_, at), delay_s in zip(rung, (0.1, 0.2, 0.3), strict=True):
        assert at - began >= delay_s
    assert len(alarms) == 0
    alarms.set(lanes["a"], 0.0)  # type: ignore[arg-type]
    until(lambda: len(rung) == 4)


def test_a_lane_that_is_forgotten_is_gone_before_its_alarm() -> None:
    rung: list[str] = []
    alarms = Alarms(lambda lane: rung.append(lane.name))
    kept, forgotten = Lane("kept"), Lane("forgotten")
    alarms.set(forgotten, 0.05)  # type: ignore[arg-type]
    alarms.set(kept, 0.05)  # type: ignore[arg-type]
    del forgotten
    gc.collect()
    until(lambda: len(alarms) == 0)
    assert rung == ["kept"]


def test_a_fault_of_one_is_no_fault_of_the_next() -> None:
    rung: list[str] = []

    def ring(lane: object) -> None:
        assert isinstance(lane, Lane)
        rung.append(lane.name)
        if lane.name == "a":
            raise ValueError("a fault")

    alarms = Alarms(ring)
    lanes = [Lane("a"), Lane("b")]
    for lane in lanes:
        alarms.set(lane, 0.01)  # type: ignore[arg-type]
    until(lambda: rung == ["a", "b"])
