"""What the words of a call stand for: a task in Python or a program, by class and worker.

The words are looked up, nothing else. A program in [task.NAME] is found by `NAME` for calls that
name no class, or that of `default_class`; as `CLASS.NAME` ([task.CLASS.NAME]) for those of one
class. A task in Python is found by its class and worker; a function has no class.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from geomail import spelling
from geomail.config import Command, Settings
from geomail.errors import ConfigError
from geomail.job import CallTask

Name = tuple[str, str]  # class, worker


@dataclass(frozen=True, slots=True)
class Plan:
    """How a call is done: by the task `name`, or by a program; and its deadline in seconds."""

    name: Name
    timeout_s: float
    command: Command | None = None

    def request(self, task: CallTask, *, job_id: str, tries: int) -> bytes:
        """Return what the child is told, as JSON."""
        cls, worker = self.name
        job = {
            "id": job_id,
            "tries": tries,
            "worker": worker,
            "class": cls,
            "params": task.params,
        }
        if self.command is None:
            return msgspec.json.encode(job)
        named = job | {"worker": task.worker, "class": task.cls or cls}
        program = {
            "command": self.command.argv,
            "folder": self.command.folder,
            "stdin": msgspec.json.encode(named).decode(),
        }
        return msgspec.json.encode(program)


class Plans:
    """All that may be called."""

    def __init__(self, settings: Settings, tasks: Mapping[Name, float | None]) -> None:
        """Take the programs of the settings, and `tasks`: deadlines in seconds (None: task_s).

        Raises ConfigError where a program is missing, or stands under the name of a task.
        """
        self._default = settings.default_class or ""
        self._plans: dict[Name, Plan] = {
            name: Plan(name, timeout_s or settings.task_s) for name, timeout_s in tasks.items()
        }
        for shown, command in settings.commands.items():
            cls, _, worker = shown.rpartition(".")
            if (cls, worker) in self._plans:
                raise ConfigError(f"[task.{shown}] and a task in Python have one name: change it")
            _check_program(shown, command)
            timeout_s = command.timeout_s or settings.task_s
            self._plans[cls, worker] = Plan((cls, worker), timeout_s, command)
        folded = Counter(map(_folded, self._plans))
        self._as_php = {
            _folded(name): plan for name, plan in self._plans.items() if folded[_folded(name)] == 1
        }

    def find(self, task: CallTask) -> Plan | None:
        """Return how a call is done, or None when it names nothing that may be called."""
        for name in self._names(task):
            if plan := self._plans.get(name) or self._as_php.get(_folded(name)):
                return plan
        return None

    def shown(self) -> list[str]:
        """Return, for people, one line for each name that may be called."""
        return [
            f"{_shown(name)}: {' '.join(plan.command.argv) if plan.command else 'Python'}"
            for name, plan in sorted(self._plans.items())
        ]

    def reason_against(self, task: CallTask) -> str | None:
        """Return why a call can't be done, or None."""
        if self.find(task) is not None:
            return None
        if not self._plans:
            return "calls are off: name the modules with `tasks` in the settings, or a [task.NAME]"
        shown = _shown(next(self._names(task)))
        return f"no task is named {shown!r}{spelling.hint(shown, map(_shown, self._plans))}"

    def _names(self, task: CallTask) -> Iterator[Name]:
        cls = task.cls or self._default
        if cls:
            yield cls, task.worker
        if _folded((cls, "")) == _folded((self._default, "")):
            yield "", task.worker


def _shown(name: Name) -> str:
    return ".".join(filter(None, name))


def _folded(name: Name) -> Name:
    cls, worker = name
    return cls.removeprefix("\\").lower(), worker.lower()


def _check_program(shown: str, command: Command) -> None:
    """Raise ConfigError where a program isn't there now: later, it would be said of each job."""
    folder = Path(command.folder or ".")
    if not folder.is_dir():
        raise ConfigError(f"[task.{shown}]: the folder {folder} is not there")
    program = command.argv[0]
    if "/" in program:
        is_there = os.access(folder / program, os.X_OK)
    else:
        is_there = shutil.which(program) is not None
    if not is_there:
        raise ConfigError(f"[task.{shown}]: can't run {program}: no such program")
