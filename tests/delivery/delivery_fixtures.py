"""A pytest plugin for the tests of lanes and senders: houses, and a host."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from house import House, MakeHouse

from geomail.sink import Sink


@pytest.fixture
def make_house(redis_url: str, tmp_path: Path) -> Iterator[MakeHouse]:
    """Give a function that opens a house for hosts; `keys` are more lines of its relay's table."""
    houses: list[House] = []

    def make(*relays: str, **more: str) -> House:
        houses.append(House(redis_url, tmp_path, *relays, **more))
        return houses[-1]

    yield make
    for house in houses:
        house.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running
