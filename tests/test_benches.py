"""Every bench can be asked what it does, and refuses what it does not know before it measures.

One is run, with few mails: the one that drives the most rooms of geomail by itself.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import NeedsProgram

BENCH = Path(__file__).parents[1] / "bench"
# Parts of others, or programs that others start: told apart by having no parser of flags.
BENCHES = sorted(path for path in BENCH.glob("*.py") if "stand.parser(" in path.read_text())
TIMEOUT_S = 60


def ask(path: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(path), *flags],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def refusals() -> Iterator[dict[str, "subprocess.CompletedProcess[str]"]]:
    # Each takes half a second, which is the imports: two at a time.
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda path: ask(path, "--no-such-flag"), BENCHES)
        yield {path.name: answer for path, answer in zip(BENCHES, answers, strict=True)}


@pytest.mark.parametrize("name", [path.name for path in BENCHES])
def test_a_bench_refuses_an_unknown_flag(
    refusals: dict[str, "subprocess.CompletedProcess[str]"], name: str
) -> None:
    refused = refusals[name]
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.startswith(f"usage: {name}"), refused.stderr
    assert refused.stdout == ""


def test_the_readme_names_every_bench() -> None:
    told = (BENCH / "README.md").read_text().split("`")
    names = {word.split()[1] for word in told if word.startswith("python bench/")}
    assert names == {f"bench/{path.name}" for path in BENCHES}


def test_the_help_is_the_head_of_the_file() -> None:
    told = ask(BENCH / "throughput.py", "--help")
    assert told.returncode == 0
    assert "Mails a second through one worker" in told.stdout
    assert "--against-nothing" in told.stdout


def test_without_what_it_needs_a_bench_says_what_to_install() -> None:
    # Neither the environment's packages (-S) nor the checkout, which is no place to import from.
    command = [sys.executable, "-S", "-E", str(BENCH / "throughput.py")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert told.returncode == 1
    assert "gevent" in told.stderr
    assert "scripts/bench" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_steps_of_a_mail_can_be_measured(needs_program: NeedsProgram) -> None:
    needs_program("smtp-sink")
    told = ask(BENCH / "where.py", "--part", "steps", "--count", "400", "--runs", "1")
    assert told.returncode == 0, told.stderr
    rows = [line.split(" | ") for line in told.stdout.splitlines() if line.startswith("| ")]
    measured = {row[0].removeprefix("| "): row[2] for row in rows[1:]}
    assert len(measured) == 8
    assert float(measured["compose"]) > 0
    assert float(measured["decode + route"]) > 0
