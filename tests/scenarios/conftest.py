"""What every scenario has: a stage with a Redis of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from geomail.queue import embedded
from scenarios.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Give a stage; what was started on it ends with the test."""
    scene = Stage(tmp_path, embedded.start_private(tmp_path / "redis"))
    try:
        yield scene
    finally:
        scene.close()
