"""`[task.NAME]`: a program that does the calls of one name, which get the job on standard input.

    [task.resize]
    command = ["php", "task.php"]
    timeout_s = 60          # as task_s
    folder = "/srv/shop"    # where it runs; where geomail does without one

A name is what a payload says as `worker`, or `CLASS.WORKER` for one class of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from geomail import spelling
from geomail.errors import ConfigError
from geomail.values import seconds, text

_KEYS = ("command", "timeout_s", "folder")


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments, its deadline (None: task_s), and the folder it runs in."""

    argv: tuple[str, ...]
    timeout_s: float | None = None
    folder: str | None = None


def read_commands(tables: object, *, place: str) -> dict[str, Command]:
    """Return the programs by name. Raises ConfigError."""
    if not isinstance(tables, Mapping):
        raise ConfigError(f"task in {place} must be tables [task.NAME]")
    return {
        str(name): _command(table, f"[task.{name}] in {place}") for name, table in tables.items()
    }


def _command(table: object, where: str) -> Command:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table with command = [...]")
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key!r} in {where}{spelling.hint(key, _KEYS)}")
    argv = table.get("command")
    if not isinstance(argv, list) or not argv or not all(isinstance(each, str) for each in argv):
        raise ConfigError(f'{where}: command must be a list of words, as ["php", "task.php"]')
    if not argv[0] or any("\0" in word for word in argv):
        raise ConfigError(f"{where}: command must begin with a program")
    try:
        timeout_s = seconds()(table["timeout_s"]) if "timeout_s" in table else None
        folder = text(table["folder"]) if "folder" in table else None
    except ValueError as error:
        key = "folder" if "text" in str(error) else "timeout_s"
        raise ConfigError(f"{where}: {key} must be {error}") from None
    return Command(tuple(argv), timeout_s, folder)
