"""A pytest plugin for the tests of the HTTP door: doors with settings, closed at the end."""

from collections.abc import Iterator

import pytest
from http_house import House, Open, opening


@pytest.fixture
def opens(redis_url: str) -> Iterator[Open]:
    """Give a function that opens a door with settings."""
    with opening(redis_url) as open_one:
        yield open_one


@pytest.fixture
def house(opens: Open) -> House:
    """Give a door as it is without settings."""
    return opens()
