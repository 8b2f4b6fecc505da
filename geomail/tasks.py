"""What a call may run: functions, and classes with `_task_…` methods, marked by `@geomail.task`.

    import geomail

    @geomail.task                       # {"worker": "resize", "params": {"width": 80}}
    def resize(params): ...

    @geomail.task                       # {"worker": "mail", "class": "Task", "params": …}
    class Task:
        def _task_mail(self, params): ...

The modules are named by the setting `tasks`. Nothing that isn't marked can be called, whatever a
payload says: its words are looked up in a table and never resolved, imported or evaluated; so a
class that a module only imports, or a method of another name, is out of reach. A class that did
this work in PHP is ported method by method under its own names, and marked once; where its name is
no name in Python, it is given: `@geomail.task(name="App\\Task")`.

The modules are imported once, and each call is a fork of that process: what makes connections or
threads belongs into the tasks, not beside them. What a task leaves running ends with its process.

A task gets `params` as its only argument. What it returns is of no meaning: when it returns, the
job is done. An exception is a failure, tried again by the schedule of all jobs until its tries are
over; GiveUp is final at once. A call may come twice, as any job: current() has its id, by which
the second one can be known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, overload

from geomail.errors import GeomailError

Name = tuple[str, str]  # class ("" for a function), worker
_METHOD = "_task_"
_Marked = TypeVar("_Marked", bound=Callable[..., Any])


class GiveUp(GeomailError):
    """Raised by a task whose job can never be done: it is dead at once, its text the reason."""


@dataclass(frozen=True, slots=True)
class Call:
    """The job of the call in hand: its id, and how many tries were made before."""

    id: str
    tries: int


@dataclass(frozen=True, slots=True)
class Task:
    """What a name stands for, its own deadline (None: task_s), and where it was marked."""

    run: Callable[[Any], object]
    timeout_s: float | None
    origin: str


registered: dict[Name, Task] = {}
_in_hand: list[Call] = []


@overload
def task(marked: _Marked, /) -> _Marked: ...


@overload
def task(
    *, name: str | None = None, timeout_s: float | None = None
) -> Callable[[_Marked], _Marked]: ...


def task(marked: Any = None, /, *, name: str | None = None, timeout_s: float | None = None) -> Any:
    """Let calls run a function, or the `_task_…` methods of a class.

    `name`: what payloads call it, when that isn't its own name; a function's may be CLASS.WORKER.
    `timeout_s`: its deadline, instead of the setting task_s. Raises GeomailError when a name is
    taken, or when a class has no such method.
    """
    if marked is None:
        return partial(_mark, name=name, timeout_s=timeout_s)
    return _mark(marked, name=name, timeout_s=timeout_s)


def current() -> Call:
    """Return the job of the call that this process is doing. Raises GeomailError outside one."""
    if not _in_hand:
        raise GeomailError("no call is in hand: current() is for what runs inside a task")
    return _in_hand[0]


def take_in_hand(call: Call) -> None:
    """Note the call that is about to run in this process."""
    _in_hand[:] = [call]


def _mark(marked: _Marked, *, name: str | None, timeout_s: float | None) -> _Marked:
    if timeout_s is not None and timeout_s <= 0:
        raise GeomailError(f"@geomail.task: timeout_s must be more than 0, not {timeout_s:g}")
    origin = f"{marked.__module__}.{marked.__qualname__}"
    own = name or marked.__name__
    if not isinstance(marked, type):
        cls, _, worker = own.rpartition(".")
        _register((cls, worker), Task(marked, timeout_s, origin))
        return marked
    methods = [method for method in dir(marked) if method.startswith(_METHOD)]
    if not methods:
        raise GeomailError(f"@geomail.task: the class {origin} has no method named {_METHOD}…")
    for method in methods:
        run = partial(_run_method, marked, method)
        _register((own, method.removeprefix(_METHOD)), Task(run, timeout_s, origin))
    return marked


def _register(name: Name, entry: Task) -> None:
    other = registered.setdefault(name, entry)
    if other.origin != entry.origin:
        raise GeomailError(
            f"@geomail.task: {other.origin} and {entry.origin} are both named"
            f" {'.'.join(filter(None, name))!r}: give one another name"
        )
    registered[name] = entry


def _run_method(cls: type, method: str, params: Any) -> object:
    return getattr(cls(), method)(params)
