"""Counts of what is parked: all of it, whatever the number of routes, and the fullest shown."""

from typing import Any

import pytest
from redis_servers import RedisServer

from geomail import board, report
from geomail.queue import Link, Park, Queue, status

pytest_plugins = ("queue_fixtures",)
Raw = Any


def park(queue: Queue, jobs: int) -> None:
    """Park jobs for routes r0 (most) to r7."""
    queue.push([b"x"] * jobs)
    for number, slot in enumerate(queue.take(jobs).slots):
        queue.settle([Park([slot], f"r{number % 8 if number < 8 else 0}", 1000, slot.state)])


@pytest.mark.parametrize("a_call", [1, 2, 3, 4, 8, 1000])
def test_all_routes_are_counted_in_pieces(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, a_call: int
) -> None:
    monkeypatch.setattr(status, "ROUTES_A_CALL", a_call)
    park(queue, 12)
    assert queue.counts().parked == {"r0": 5, **{f"r{number}": 1 for number in range(1, 8)}}


def test_the_fullest_routes_are_shown(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_TOP_ROUTES", 2)
    park(queue, 12)
    counts = {"queue:email": queue.counts()}
    shown = report.status(counts, {"queue:email": {}})
    assert "parked       12  r0 5, r1 1, and 6 more routes\n" in shown


def test_a_board_says_how_many_routes_it_has_not_looked_at(
    queue: Queue, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomail.queue.lookout.ROUTES_A_CALL", 3)
    monkeypatch.setattr(status, "ROUTES_A_CALL", 3)
    park(queue, 8)
    seen = board.look(Link(server.url), ["queue:email"])
    assert (len(seen.hosts), seen.unseen) == (3, 5)
    assert {host.why for host in seen.hosts} == {"no worker tells of a host of this route"}
    assert "parked for 5 more routes, which were not looked at" in board.text(seen)


def test_pressure_is_shown_where_it_is_high(queue: Queue, server: RedisServer) -> None:
    park(queue, 4)
    queue.high_water = 6
    queue.push([b"x"])
    assert queue.beat()
    assert queue.counts().pressure == "ok"
    assert "pressure" not in report.status({"q": queue.counts()}, {"q": {}})
    queue.push([b"x"])
    assert queue.beat()
    counts = {"q": queue.counts()}
    assert "pressure     high  producers are told to slow down" in report.status(counts, {"q": {}})
    assert '"pressure": "high"' in report.status_as_json(counts, {"q": {}})
    server.raw.delete("{queue:email}:pressure")
    server.raw.lpush("{queue:email}:pressure", "of another type")
    assert queue.beat()
    assert queue.counts().pressure == "ok"
