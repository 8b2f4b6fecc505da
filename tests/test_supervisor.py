"""The parent of several workers: its pauses, and what it must not know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geomail import config
from geomail.errors import ConfigError
from geomail.supervisor import Place

PARENT = """
import sys
from geomail.__main__ import _is_parent
if not _is_parent(sys.argv[1:]):
    sys.exit("this is no parent")
import geomail.cli, geomail.supervisor
sys.exit(sorted({"gevent", "greenlet", "redis", "ssl", "msgspec"} & set(sys.modules)) or 0)
"""

READER = """
import sys
sys.argv[1:] = []
import geomail.config, geomail.usage
late = {"socket", "ssl", "select", "selectors", "signal", "subprocess", "threading", "queue"}
sys.exit(sorted(late & set(sys.modules)) or 0)
"""


def status_of(program: str, *argv: str, **environ: str) -> tuple[int, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
    command = [sys.executable, "-c", program, *argv]
    done = subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_parent_knows_no_gevent_and_no_redis() -> None:
    assert status_of(PARENT, "run", "--processes", "2") == (0, "")


def test_a_variable_or_the_file_makes_a_parent_too(clean_environment: Path) -> None:
    assert status_of(PARENT, "run", GEOMAIL_PROCESSES="2") == (0, "")
    (clean_environment / "geomail.toml").write_text("processes = 3\n")
    assert status_of(PARENT, "run") == (0, "")


@pytest.mark.parametrize(
    "argv",
    [
        ("run",),
        ("run", "--processes", "1"),
        ("run", "--processes", "none"),
        ("status", "--processes", "2"),
        ("dead", "show", "run"),
        (),
    ],
)
def test_nothing_else_is_a_parent(argv: tuple[str, ...]) -> None:
    assert status_of(PARENT, *argv) == (1, "this is no parent\n")


def test_what_is_read_before_the_patches_needs_nothing_that_they_change() -> None:
    assert status_of(READER) == (0, "")


def test_a_worker_is_told_its_place() -> None:
    settings = config.load({}, {"GEOMAIL_PROCESS": "2/4711", "GEOMAIL_PROCESSES": "3"}, places=())
    assert (settings.process, settings.parent) == (2, 4711)
    assert not settings.is_for_parent
    with pytest.raises(ConfigError, match="did you mean GEOMAIL_PROCESSES"):
        config.load({}, {"GEOMAIL_PROCESS": "3"}, places=())


def test_the_first_successor_starts_at_once_and_the_pauses_grow_to_five_seconds() -> None:
    place = Place(1)
    pauses = [place.vacate(lived_s=1) for _ in range(20)]
    assert pauses[:8] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5]
    assert set(pauses[8:]) == {5}


def test_a_long_life_ends_the_pauses() -> None:
    place = Place(1)
    for _ in range(5):
        place.vacate(lived_s=1)
    assert place.vacate(lived_s=30) == 0
    assert place.vacate(lived_s=1) == 0.1
