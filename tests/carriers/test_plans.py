"""What the words of a call stand for."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from geomail import config
from geomail.carriers.plans import Plan, Plans
from geomail.config.commands import Command, read_commands
from geomail.errors import ConfigError
from geomail.job import CallTask

TRUE = Command(("true",))


def plans(
    commands: dict[str, Command],
    *names: tuple[str, str],
    default_class: str | None = None,
) -> Plans:
    settings = dataclasses.replace(
        config.load({}, {}, places=()), commands=commands, default_class=default_class, task_s=9
    )
    return Plans(settings, dict.fromkeys(names))


def found(known: Plans, worker: str, cls: str = "") -> Plan | None:
    return known.find(CallTask(worker=worker, cls=cls))


def test_a_program_is_found_by_its_class() -> None:
    known = plans({"mail": TRUE, "Task.sms": TRUE, r"App\Task.fax": TRUE})
    assert found(known, "mail") == Plan(("", "mail"), 9, TRUE)
    assert found(known, "mail", "Task") is None
    assert found(known, "sms") is None
    assert found(known, "sms", "Task") == Plan(("Task", "sms"), 9, TRUE)
    assert found(known, "fax", r"App\Task") == Plan((r"App\Task", "fax"), 9, TRUE)


def test_with_a_default_class_its_tasks_come_before_those_without() -> None:
    known = plans({"mail": TRUE}, ("Task", "mail"), ("Task", "sms"), default_class="Task")
    assert found(known, "mail") == Plan(("Task", "mail"), 9)
    assert found(known, "sms", "Task") == Plan(("Task", "sms"), 9)
    known = plans({"mail": TRUE}, ("Task", "sms"), default_class="Task")
    assert found(known, "mail") == found(known, "mail", "Task") == Plan(("", "mail"), 9, TRUE)
    assert found(known, "mail", "Other") is None


def test_dots_find_nothing() -> None:
    known = plans({}, ("Task", "mail"), ("A.B", "c"))
    assert found(known, "Task.mail") is None
    assert found(known, "B.c", "A") is None
    assert found(known, "c", "A.B") == Plan(("A.B", "c"), 9)


def test_capitals_make_no_difference_as_in_php() -> None:
    known = plans({}, ("Task", "sendMail"), (r"App\Task", "sms"), ("", "note"), ("", "Note"))
    assert found(known, "sendmail", "task") == found(known, "sendMail", "Task")
    assert found(known, "SMS", r"\app\task") == Plan((r"App\Task", "sms"), 9)
    assert found(known, "Note") == Plan(("", "Note"), 9)
    assert found(known, "NOTE") is None  # either might be meant
    known = plans({"mail": TRUE}, default_class="Task")
    assert found(known, "Mail", "TASK") == Plan(("", "mail"), 9, TRUE)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[task.Task.mail\]"):
        plans({"Task.mail": TRUE}, ("Task", "mail"))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (Command(("no-such-program",)), "can't run no-such-program"),
        (Command(("./task.php",)), "can't run ./task.php"),
        (Command(("true",), folder="/no/such/folder"), "the folder /no/such/folder is not there"),
    ],
)
def test_a_program_has_to_be_there(command: Command, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plans({"mail": command})
    assert why in str(caught.value)


def test_a_program_may_be_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "task").write_text("#!/bin/sh\n")
    (tmp_path / "task").chmod(0o755)
    assert found(plans({"mail": Command(("./task",), folder=str(tmp_path))}), "mail")


def test_a_program_gets_the_job_as_it_was_sent() -> None:
    plan = Plan(("", "mail"), 9, TRUE)
    task = CallTask(worker="mail", cls="Task", params={"a": [None, "é"]})
    told = msgspec.json.decode(plan.request(task, job_id="7", tries=1))
    assert msgspec.json.decode(told["stdin"]) == {
        "id": "7",
        "tries": 1,
        "worker": "mail",
        "class": "Task",
        "params": {"a": [None, "é"]},
    }


def test_tables_may_be_nested_by_class() -> None:
    table = {"command": ["true"]}
    tables = {"mail": table, "Task": {"sms": table, "fax": table}}
    assert list(read_commands(tables, place="x")) == ["mail", "Task.sms", "Task.fax"]
    with pytest.raises(ConfigError, match=r"\[task.Task.sms\] in x: command must be a list"):
        read_commands({"Task": {"sms": {}}}, place="x")
    with pytest.raises(ConfigError, match=r"unknown key 'comand' in \[task.mail\]"):
        read_commands({"mail": {"comand": ["true"]}}, place="x")
