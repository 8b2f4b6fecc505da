"""Calls, each in a process: how they end, and that they harm nobody."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from geomail import config
from geomail.carriers.calls import Calls
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.errors import ConfigError
from geomail.job import CallTask

_PATIENCE_S = 30.0

SHOP = """
import os, signal, sys, time
import geomail
from geomail import tasks

@geomail.task
def note(params):
    with open(params, "a") as file:
        file.write(f"{tasks.current().id} {tasks.current().tries} {os.getpid()}\\n")
    return object()

@geomail.task
def fail(params):
    raise ValueError(params)

@geomail.task
def give_up(params):
    raise geomail.GiveUp("no such customer")

@geomail.task
async def later(params):
    raise LookupError("awaited")

@geomail.task
def lazy(params):
    yield params

@geomail.task
async def lazier(params):
    yield params

@geomail.task
def leave(params):
    sys.exit(params)

@geomail.task
def interrupt(params):
    raise KeyboardInterrupt

@geomail.task
def drop(params):
    os._exit(params)

@geomail.task
def die(params):
    os.kill(os.getpid(), params)

@geomail.task(timeout_s=0.3)
def sleep(params):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

class NotMarked:
    def _task_mail(self, params): pass

class Base:
    def _task_inherited(self, params): pass

@geomail.task
class Task(Base):
    def _task_mail(self, params):
        if params != {"to": ["a@x.example"]}:
            raise AssertionError(params)
    def other(self, params): pass
"""

LAZY = "it has a yield in it, so that nothing of it was run: a task returns"

Make = Callable[..., Calls]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the module of tasks."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Give a function that starts Calls with given settings; all are stopped at the end."""
    made: list[Calls] = []

    def start(**settings: Any) -> Calls:
        made.append(Calls(settings_of(**settings)))
        return made[-1]

    yield start
    for calls in made:
        calls.stop(0)


def settings_of(**changed: Any) -> Settings:
    defaults = config.load({}, {}, places=())
    return dataclasses.replace(defaults, **({"tasks": ("shop",)} | changed))


def call(calls: Calls, worker: str, params: object = None, *, cls: str = "") -> Outcome:
    task = CallTask(worker=worker, cls=cls, params=params)
    return calls.call(task, job_id="j1", tries=2)


def test_a_task_runs_with_its_params_and_its_id(make: Make, folder: Path) -> None:
    calls = make()
    done = Outcome(Fate.DELIVERED, Blame.NOBODY, "call", "done")
    assert call(calls, "note", str(folder / "noted")) == done
    assert (folder / "noted").read_text().startswith("j1 2 ")
    assert call(calls, "mail", {"to": ["a@x.example"]}, cls="Task") == done
    assert call(calls, "inherited", cls="Task") == done


@pytest.mark.parametrize(
    ("worker", "params", "fate", "text"),
    [
        ("fail", "why\nso", Fate.LATER, "ValueError: why so"),
        ("fail", "\U0001f4e7" * 4000, Fate.LATER, "ValueError: " + "\U0001f4e7" * 1988),
        ("later", None, Fate.LATER, "LookupError: awaited"),
        ("give_up", None, Fate.NEVER, "no such customer"),
        ("lazy", None, Fate.NEVER, LAZY),
        ("lazier", None, Fate.NEVER, LAZY),
        ("interrupt", None, Fate.LATER, "KeyboardInterrupt"),
        ("leave", None, Fate.DELIVERED, "done"),
        ("leave", 0, Fate.DELIVERED, "done"),
        ("leave", 65, Fate.NEVER, "exit(65)"),
        ("leave", 3, Fate.LATER, "exit(3)"),
        ("leave", "because", Fate.LATER, "exit('because')"),
        ("drop", 0, Fate.DELIVERED, "done"),
        ("drop", 75, Fate.LATER, "exit status 75"),
        ("die", 9, Fate.LATER, "killed by SIGKILL"),
        ("die", 11, Fate.LATER, "killed by SIGSEGV"),
        ("sleep", None, Fate.LATER, "not over after 0.3 s: killed"),
    ],
)
def test_each_end_has_its_outcome(
    make: Make, worker: str, params: object, fate: Fate, text: str
) -> None:
    outcome = call(make(), worker, params)
    assert (outcome.fate, outcome.text) == (fate, text)


@pytest.mark.parametrize(
    ("worker", "cls"),
    [
        ("__class__", ""),
        ("__class__", "Task"),
        ("_task_mail", "Task"),
        ("other", "Task"),
        ("Task.mail", ""),
        ("mail", "shop.Task"),
        ("mail", "NotMarked"),
        ("note", "Task"),
        ("system", "os"),
        ("mail", ""),
    ],
)
def test_nothing_else_can_be_called(make: Make, worker: str, cls: str) -> None:
    calls = make()
    assert calls.reason_against(CallTask(worker=worker, cls=cls))
    outcome = call(calls, worker, cls=cls)
    assert outcome.fate is Fate.NEVER
    assert "no task is named" in outcome.text


def test_a_class_that_is_missing_is_the_default_one(make: Make) -> None:
    calls = make(default_class="Task")
    assert call(calls, "mail", {"to": ["a@x.example"]}).fate is Fate.DELIVERED
    assert call(calls, "give_up").fate is Fate.NEVER
    assert calls.reason_against(CallTask(worker="mial")) == (
        "no task is named 'Task.mial': did you mean Task.mail?"
    )


def test_calls_are_off_until_something_is_named(make: Make) -> None:
    calls = make(tasks=())
    assert "calls are off" in (calls.reason_against(CallTask(worker="mail")) or "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nothing_like_it\n", "can't import shop: ModuleNotFoundError: No module named"),
        ("raise SystemExit(0)\n", "can't import shop: SystemExit: 0"),
        ("def f(\n", "SyntaxError"),
        ("def f(): pass\n", "is marked with @geomail.task"),
        ("import os\nos._exit(4)\n", "exit status 4"),
        ("import geomail\n@geomail.task\nclass A: pass\n", "has no method named _task_"),
    ],
)
def test_what_cant_be_imported_is_said_at_the_start(
    make: Make, folder: Path, text: str, why: str
) -> None:
    (folder / "shop.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        make()
    assert why in str(caught.value)


def test_several_run_at_once(make: Make) -> None:
    calls = make()
    began = time.monotonic()
    both = [gevent.spawn(call, calls, "sleep") for _ in range(8)]
    gevent.joinall(both, timeout=_PATIENCE_S)
    assert [one.get(block=False).fate for one in both] == [Fate.LATER] * 8
    assert time.monotonic() - began < 8 * 0.3
