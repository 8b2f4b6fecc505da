"""Routes of tasks: when a host is left alone, and who gets how many places. Pure."""

from collections.abc import Callable
from typing import cast

import pytest

from geomail.carriers.carriers import Places
from geomail.carriers.routes import CALL, URL, TaskRoute
from geomail.carriers.task import Task
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.delivery.pace import Backoff
from geomail.job import HttpTask
from geomail.queue import FRESH, Queue, Slot

WELL = Outcome(Fate.DELIVERED, Blame.NOBODY, "url", "200 OK", 200)
REFUSED = Outcome(Fate.NEVER, Blame.MESSAGE, "url", "404 Not Found", 404)
AWAY = Outcome(Fate.LATER, Blame.HOST, "url", "connection refused")
SLOW = Outcome(Fate.LATER, Blame.MESSAGE, "url", "429 Too Many", 429)

Make = Callable[[str], TaskRoute]


@pytest.fixture
def places() -> Places:
    """Twenty places."""
    return Places(20, lambda _route: None)


@pytest.fixture
def make(places: Places) -> Make:
    """Return what makes a route of a name."""

    def route(name: str) -> TaskRoute:
        places.routes[name] = made = TaskRoute(name, places, Backoff(1.0, 300.0))
        return made

    return route


def task(number: int = 0) -> Task:
    """Return a task."""
    slot = Slot("w", 1, number, f"w.1.{number}", 0, 0, FRESH, b"{}")
    return Task(cast("Queue", None), slot, job=HttpTask("http://a/"), route="url/a:80")


def run(route: TaskRoute, count: int, now: float) -> int:
    """Start up to `count` tasks of a route; return how many got a place."""
    started = 0
    while started < count and route.places.take(route, now):
        route.active[task(started)] = now
        started += 1
    return started


def fail(
    route: TaskRoute, outcome: Outcome, *, began: float, asked_s: float | None = None
) -> float | None:
    """Note an outcome that comes half a second after its beginning."""
    return route.note(outcome, began=began, now=began + 0.5, chance=0.5, asked_s=asked_s)


def test_three_failures_in_a_row_close_it(make: Make) -> None:
    route = make("url/a:80")
    assert [fail(route, AWAY, began=began) for began in (0.0, 1.0, 2.0)] == [None, None, 1.0]
    assert route.room(3.0) == 0
    assert route.opens_in_s(3.0) == 0.5
    assert route.is_closed(3.0)
    assert route.room(3.6) == 1  # a probe
    assert route.last_error() == "connection refused"
    assert fail(route, AWAY, began=4.0) == 2.0


def test_failures_together_count_once(make: Make) -> None:
    route = make("url/a:80")
    assert [fail(route, AWAY, began=0.0) for _ in range(10)] == [None] * 10
    assert route.strikes == 1


@pytest.mark.parametrize("outcome", [WELL, REFUSED])
def test_any_answer_makes_good(make: Make, outcome: Outcome) -> None:
    route = make("url/a:80")
    for began in (0.0, 1.0, 2.0):
        fail(route, AWAY, began=began)
    fail(route, outcome, began=4.0)
    assert route.strikes == 0
    assert not route.is_closed(4.5)
    assert route.last_error() is None


def test_who_asks_for_time_gets_it(make: Make) -> None:
    route = make("url/a:80")
    pauses = [fail(route, SLOW, began=began, asked_s=90.0) for began in (0.0, 1.0, 2.0)]
    assert pauses == [None, None, 90.0]
    longest = [fail(route, SLOW, began=began, asked_s=1e9) for began in (100.0,)]
    assert longest == [3600.0]


def test_a_call_that_fails_is_no_trouble_of_the_machine(make: Make) -> None:
    route = make(CALL)
    failed = Outcome(Fate.LATER, Blame.MESSAGE, "call", "exit status 429", 429)
    assert [fail(route, failed, began=float(began)) for began in range(9)] == [None] * 9


def test_a_host_that_never_answered_gets_half_of_what_is_free(make: Make) -> None:
    make(URL)
    first, second, third = make("url/a:80"), make("url/b:80"), make("url/c:80")
    assert run(first, 20, 0.0) == 10
    assert run(second, 20, 0.0) == 5
    assert run(third, 20, 0.0) == 2


def test_one_that_answers_gets_what_others_leave(make: Make, places: Places) -> None:
    make(URL)
    hangs, well = make("url/a:80"), make("url/b:80")
    run(hangs, 20, 0.0)
    well.heard_at = 0.0
    well.ready.extend(map(task, range(50)))
    assert run(well, 20, 1.0) == 9  # one is kept for who has none
    assert places.free == 1
    assert run(make("url/c:80"), 5, 1.0) == 1
    assert places.free == 0


def test_places_that_become_free_go_round(make: Make, places: Places) -> None:
    make(URL)
    routes = [make(f"url/{name}:80") for name in "abc"]
    for route in routes:
        route.heard_at = 0.0
        route.ready.extend(map(task, range(50)))
    assert [run(route, 99, 0.0) for route in routes] == [6, 6, 6]
    run(make("url/d:80"), 1, 0.0)
    assert [places.take(route, 0.1) for route in routes] == [False] * 3
    assert places.next() is None
    routes[2].active.popitem()
    places.taken -= 1
    assert places.take(routes[2], 0.1)


def test_who_has_no_place_is_next(make: Make, places: Places) -> None:
    make(URL)
    first, second, third = (make(f"url/{name}:80") for name in "abc")
    first.heard_at = second.heard_at = 0.0
    first.ready.extend(map(task, range(50)))
    assert run(first, 99, 0.0) == 19
    assert run(second, 1, 0.0) == 1  # the one that is kept
    second.ready.extend(map(task, range(50)))
    third.ready.append(task())
    assert not places.take(second, 0.1)
    assert not places.take(third, 0.1)
    places.taken -= 2
    assert places.next() is third


def test_holding_all_holds_each(make: Make) -> None:
    whole, route = make(URL), make("url/a:80")
    whole.hold(on=True)
    assert route.is_held
    assert route.room(0.0) == 0
    assert not route.has_place(0.0)
    whole.hold(on=False)
    assert route.has_place(0.0)
