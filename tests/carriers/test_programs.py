"""Calls that are done by programs, as PHP scripts: [task.NAME]."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geomail import config
from geomail.carriers.calls import Calls
from geomail.config.commands import Command
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import CallTask

NeedsProgram = Callable[[str], str]
Run = Callable[..., Outcome]

TASK_PHP = """<?php
// The class of old, as it was; what may be called stands here, not in the job.
class Task {
    public function _task_mail($params) {
        file_put_contents("sent", json_encode($params, JSON_UNESCAPED_UNICODE));
    }
    public function _task_fail($params) {
        throw new RuntimeException("no " . $params["what"]);
    }
}
$job = json_decode(file_get_contents("php://stdin"), true);
if ($job["class"] !== "Task" || !method_exists("Task", "_task_" . $job["worker"])) {
    fwrite(STDERR, "no such task\\n");
    exit(65);
}
(new Task)->{"_task_" . $job["worker"]}($job["params"]);
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Give a function that runs one command as a task, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    made: list[Calls] = []

    def call(
        *argv: str, params: object = None, worker: str = "it", cls: str = "", **more: object
    ) -> Outcome:
        command = Command(argv, **more)  # type: ignore[arg-type]
        name = f"{cls}.{worker}" if cls else worker
        settings = dataclasses.replace(config.load({}, {}, places=()), commands={name: command})
        made.append(Calls(settings))
        task = CallTask(worker=worker, cls=cls, params=params)
        return made[-1].call(task, job_id="j7", tries=3)

    yield call
    for calls in made:
        calls.stop(0)


@pytest.mark.parametrize(
    ("script", "fate", "text"),
    [
        ("exit 0", Fate.DELIVERED, "done"),
        ("echo so; exit 1", Fate.LATER, "exit status 1: so"),
        ("printf 'no\\n\\nline end' >&2; exit 75", Fate.LATER, "exit status 75: line end"),
        ("exit 65", Fate.NEVER, "exit status 65"),
        ("kill -11 $$", Fate.LATER, "killed by SIGSEGV"),
        ("nothing-like-it", Fate.LATER, "exit status 127"),
    ],
)
def test_the_exit_status_says_how_it_went(run: Run, script: str, fate: Fate, text: str) -> None:
    outcome = run("sh", "-c", script)
    assert outcome.fate is fate
    assert outcome.text.startswith(text)


@pytest.mark.parametrize("source", ["/dev/stdin", "-"])
def test_the_job_is_on_standard_input(run: Run, tmp_path: Path, source: str) -> None:
    params = {"text": "é" * 500_000}
    command = ("sh", "-c", f"cat {source} > job")
    assert run(*command, params=params, cls="Task", worker="mail").fate is Fate.DELIVERED
    job = json.loads((tmp_path / "job").read_text())
    assert job == {"id": "j7", "tries": 3, "worker": "mail", "class": "Task", "params": params}


def test_who_does_not_read_it_has_done_it_too(run: Run) -> None:
    assert run("true", params="x" * 1_000_000).fate is Fate.DELIVERED


def test_it_runs_in_its_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert run("sh", "-c", "pwd > here", folder="shop").fate is Fate.DELIVERED
    assert (tmp_path / "shop/here").read_text().strip() == str(tmp_path / "shop")


def test_it_inherits_nothing_but_its_three_files(run: Run, tmp_path: Path) -> None:
    assert run("sh", "-c", "ls -l /proc/self/fd > files; trap > traps").fate is Fate.DELIVERED
    files = (tmp_path / "files").read_text()
    assert "socket:" not in files
    assert files.count("pipe:") == 1  # stdout is the list itself; stderr is read by us
    assert (tmp_path / "traps").read_text() == ""


def test_it_has_its_own_deadline(run: Run) -> None:
    began = time.monotonic()
    outcome = run("sh", "-c", "trap '' TERM; sleep 600 & sleep 600", timeout_s=0.3)
    assert (outcome.fate, outcome.text) == (Fate.LATER, "not over after 0.3 s: killed")
    assert time.monotonic() - began < 30


def test_what_cant_be_run_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "task").write_text("#!/no/such/interpreter\n")
    (tmp_path / "task").chmod(0o755)
    outcome = run("./task")
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.MESSAGE)
    assert outcome.text == f"can't run ./task: {os.strerror(2)}"


def test_php(run: Run, tmp_path: Path, needs_program: NeedsProgram) -> None:
    command = (needs_program("php"), "task.php")
    (tmp_path / "task.php").write_text(TASK_PHP)
    params = {"to": ["é@x.example"], "n": 1}
    assert run(*command, cls="Task", worker="mail", params=params).fate is Fate.DELIVERED
    assert json.loads((tmp_path / "sent").read_text()) == params
    outcome = run(*command, cls="Task", worker="fail", params={"what": "paper"})
    assert (outcome.fate, outcome.code) == (Fate.LATER, 255)
    outcome = run(*command, cls="Task", worker="__construct")
    assert (outcome.fate, outcome.text) == (Fate.NEVER, "exit status 65: no such task")
