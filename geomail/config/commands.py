"""`[task.NAME]`: a program that does the calls of one name, which get the job on standard input.

    [task.resize]
    command = ["php", "task.php"]
    timeout_s = 60          # as task_s
    folder = "/srv/shop"    # where it runs; where geomail does without one

A name is what a payload says as `worker`, for calls without a class and those of `default_class`;
[task.CLASS.WORKER] is for those of another class. The program gets the job as JSON on its standard
input: `worker`, `class`, `params`, `id` and `tries`. With exit status 0 the job is done, with 65
(EX_DATAERR) it is dead; with any other it comes again until its tries are over.
"""

from collections.abc import Iterator, Mapping
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
    commands = {}
    for name, table in tables.items():
        for shown, one in _of_class(str(name), table):
            commands[shown] = _command(one, f"[task.{shown}] in {place}")
    return commands


def _of_class(name: str, table: object) -> Iterator[tuple[str, object]]:
    """Yield the tables of a class, [task.CLASS.WORKER], or the one that it is."""
    ones = table.items() if isinstance(table, Mapping) and "command" not in table else ()
    if ones and all(isinstance(one, Mapping) for _, one in ones):
        yield from ((f"{name}.{worker}", one) for worker, one in ones)
    else:
        yield name, table


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
