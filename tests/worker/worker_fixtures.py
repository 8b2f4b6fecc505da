"""A pytest plugin for the tests of the worker: a place to work in, and a host."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hired import Place

from geomail.queue import embedded
from geomail.sink import Sink


@pytest.fixture
def place(redis_server: embedded.Server, redis_url: str, tmp_path: Path) -> Iterator[Place]:
    """Give an empty Redis and the workers that a test hires; they end with it."""
    made = Place(redis_server, tmp_path / "data")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Give a host that takes everything."""
    with Sink() as running:
        yield running
