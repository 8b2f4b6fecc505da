"""A pytest plugin for the tests of doors: a gate into an empty Redis, and doors in front of it."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from callers import NewGate, OpenDoor

from geomail.config import Settings
from geomail.intake import listening
from geomail.intake.doors import Doors
from geomail.intake.gate import PATIENCE_S, Gate
from geomail.queue import Link, Queue, embedded


@pytest.fixture
def raw(redis_server: embedded.Server, redis_url: str) -> Iterator[Any]:
    """Give a plain client of the empty Redis."""
    with redis.Redis(port=redis_server.port) as client:
        yield client


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    """Give a registered worker's client of the empty queue."""
    made = Queue(Link(redis_url))
    made.register()
    yield made
    made.close()


@pytest.fixture
def new_gate(redis_url: str) -> Iterator[NewGate]:
    """Give a function that opens a gate with settings."""
    made: list[Gate] = []

    def make(*, patience_s: float = PATIENCE_S, url: str = redis_url, **settings: Any) -> Gate:
        link = Link(url, patience_s=patience_s, reply_timeout_s=patience_s)
        gate = Gate(link, Settings(**settings))
        gate.start()
        made.append(gate)
        return gate

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def open_door(redis_url: str) -> Iterator[OpenDoor]:
    """Give a function that opens a door with settings on a free port, and returns its address."""
    made: list[Doors] = []

    def open_it(
        name: str, *, patience_s: float = PATIENCE_S, url: str = redis_url, **settings: Any
    ) -> tuple[str, int]:
        link = Link(url, patience_s=patience_s, reply_timeout_s=patience_s)
        gate = Gate(link, Settings(**settings))
        listener = listening.bind(name, ("127.0.0.1", 0))
        address: tuple[str, int] = listener.getsockname()
        doors = Doors(gate, Settings(**settings), {name: listener})
        doors.start()
        made.append(doors)
        return address

    yield open_it
    for doors in made:
        doors.stop(2.0)
