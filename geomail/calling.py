"""The child's side of calls: a template process that has imported the tasks, and forks.

    worker ══control══► template ──fork──► child 7: runs one call, or several by turns
           ◄──────────channel of child 7──────────►
           ◄──output of child 7 (its stdout and stderr)

The template imports the modules once and says which tasks they have marked. After that a call
costs a fork of a small process. It reads `fork N` with two descriptors, and `kill N`; it says
`forked N PID`, `nofork N WHY`, `killed N PID` and `ended N STATUS`. It alone waits for its
children, so a number is never taken for a process that is gone: the group of one that has ended, or
is to be killed, is killed before the kernel may give its pid to another.

A child gets its requests by its channel: four bytes of length, then JSON. A request with a command
makes it that program, with the job on its standard input; else it runs the task and says one line
of JSON: the exit status that this stands for, and the words for it. Should it end without, its exit
status says it, as that of a program does. After a failure it isn't used again.

When the worker goes, however it goes, the kernel closes the control: the template then kills all
that is left of its calls, and ends. On Linux that holds also for what a task has put into a session
of its own, and the children end with a template that was killed (without their own children).

No gevent, and nothing of the worker's environment named GEOMAIL_…: passwords are not for tasks.
"""

import atexit
import faulthandler
import gc
import inspect
import json
import os
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module

# By name: a module of tasks may have patched theirs by what gevent has for them.
from os import fork, waitid, waitpid
from pathlib import Path
from select import POLLIN, poll
from signal import set_wakeup_fd
from signal import signal as handle
from socket import recv_fds, socketpair
from typing import IO, Any, NoReturn, Self

from geomail import tasks

NEVER = os.EX_DATAERR
"""The one exit status, 65, that means: never try again."""
LENGTH = struct.Struct(">I")
ANSWER_MAX = 16_384

_WHY_MAX = 2000
_LAST_WAIT_S = 10
_FIRST_TO_GO = 500  # of 1000
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # prctl(2)


def main(modules: Sequence[str]) -> None:
    """Be the template: import `modules`, say what they have, fork until the worker is gone."""
    control = _take_over_stdin()
    _die_with(os.getppid())  # an import may take for ever, and hears nothing
    sys.path.insert(0, str(Path.cwd()))
    error = _import(modules)
    if error is None:
        gc.freeze()  # a collection in a child would copy all pages that it shares with us
        names = [[*name, task.timeout_s] for name, task in tasks.registered.items()]
        _say(control, json.dumps({"tasks": names}))
        _call_kernel(_DEATH_SIGNAL, 0)
        _Template(control).run()
    else:
        _say(control, json.dumps({"error": error}))


def _take_over_stdin() -> socket.socket:
    """Keep the control, which nobody else may read, and leave them an empty input."""
    control = socket.socket(fileno=os.dup(0))
    control.setblocking(True)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()  # a crash says where, under its job's id
    return control


def _import(modules: Sequence[str]) -> str | None:
    """Return what went wrong, or None."""
    for name in modules:
        try:
            import_module(name)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a module must not pass for one
            traceback.print_exc()
            return f"can't import {name}: {_words(error)}"
    if modules and not tasks.registered:
        return f"nothing in {', '.join(modules)} is marked with @geomail.task"
    return None


class _Template:
    """The process that forks, and waits for those that it has forked."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._heard = b""
        self._given: deque[int] = deque()
        self._pids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    def run(self) -> None:
        """Obey until the control is closed; then kill what is left."""
        _call_kernel(_SUBREAPER, 1)
        handle(signal.SIGTERM, signal.SIG_IGN)  # a service manager signals all of us
        handle(signal.SIGINT, signal.SIG_IGN)
        with _Endings() as endings, suppress(OSError):
            waiting = poll()
            waiting.register(self._control, POLLIN)
            waiting.register(endings, POLLIN)
            while True:
                ready = dict(waiting.poll())
                endings.clear()
                self._reap()
                if self._control.fileno() in ready and not self._hear(endings):
                    break
        self._end()

    def _hear(self, endings: "_Endings") -> bool:
        """Obey what has come; return False when the worker is gone."""
        block, given, _, _ = recv_fds(self._control, 4096, 64)
        self._given.extend(given)
        *lines, self._heard = (self._heard + block).split(b"\n")
        for line in lines:
            verb, number = line.split()
            if verb == b"fork":
                self._fork(int(number), endings)
            elif int(number) in self._pids:
                pid = self._pids[int(number)]
                _kill_group(pid)
                _say(self._control, f"killed {int(number)} {pid}")
        return bool(block)

    def _fork(self, number: int, endings: "_Endings") -> None:
        channel, output = self._given.popleft(), self._given.popleft()
        try:
            pid = fork()
        except OSError as error:
            _say(self._control, f"nofork {number} {error.strerror}")
        else:
            if pid == 0:
                self._control.close()
                endings.close()
                for fd in self._given:  # of children that are still to be made
                    os.close(fd)
                _become_child(channel, output, template=self._pid)
            with suppress(OSError):  # it does so itself, and may have become a program already
                os.setpgid(pid, pid)
            self._pids[number], self._numbers[pid] = pid, number
            _say(self._control, f"forked {number} {pid}")
        finally:
            os.close(channel)
            os.close(output)

    def _reap(self) -> None:
        """Bury all that have ended, each with its group."""
        with suppress(ChildProcessError):
            while ended := waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                number = self._numbers.pop(ended.si_pid, None)
                if number is not None:
                    _kill_group(ended.si_pid)
                _, status = waitpid(ended.si_pid, 0)
                if number is not None:
                    del self._pids[number]
                    _say(self._control, f"ended {number} {os.waitstatus_to_exitcode(status)}")

    def _end(self) -> None:
        for pid in self._numbers:
            _kill_group(pid)
        self._numbers.clear()
        handle(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LAST_WAIT_S)
        while True:  # who leaves its dead parent comes to us
            for pid in _children():
                _kill_group(pid)
            try:
                waitpid(-1, 0)
            except ChildProcessError:
                return


class _Endings:
    """The ends of children as something to wait for."""

    def __init__(self) -> None:
        self._read, self._write = socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def __enter__(self) -> Self:
        set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        handle(signal.SIGCHLD, _go_on)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._read.fileno()

    def clear(self) -> None:
        """Forget those that have come."""
        with suppress(BlockingIOError):
            self._read.recv(4096)

    def close(self) -> None:
        """Hear no more of them; a child does so too, which has children of its own."""
        set_wakeup_fd(-1)
        handle(signal.SIGCHLD, signal.SIG_DFL)
        self._read.close()
        self._write.close()


# ---- the child


def _become_child(channel: int, output: int, *, template: int) -> NoReturn:
    status = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        _die_with(template)
        _go_first()
        handle(signal.SIGTERM, signal.SIG_DFL)  # as those expect whom the task will fork
        handle(signal.SIGINT, signal.default_int_handler)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.set_blocking(channel, True)
        os.set_inheritable(channel, False)  # what is received over a socket is
        status = _Child(channel).serve()
    finally:
        os._exit(status)


class _Child:
    """A process that does calls, as they come by its channel."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._identity = _identity(channel)
        self._pid = os.getpid()

    def serve(self) -> int:
        """Do calls until the worker wants no more of them; return the exit status."""
        status = 0
        while status == 0 and (request := self._request()) is not None:
            if "command" in request:
                status, why = _become_program(request)
            else:
                status, why = _perform(request)
            if os.getpid() != self._pid:  # a fork that came back from the task: it isn't ours
                return 0
            self._answer(status, why)
        _finish()
        return status

    def _request(self) -> dict[str, Any] | None:
        head = self._read(LENGTH.size)
        body = self._read(*LENGTH.unpack(head)) if len(head) == LENGTH.size else b""
        return dict(json.loads(body)) if body else None

    def _read(self, size: int) -> bytes:
        found = bytearray()
        with suppress(OSError):
            while len(found) < size and (block := os.read(self._channel, size - len(found))):
                found += block
        return bytes(found)

    def _answer(self, status: int, why: str) -> None:
        _flush()
        said = json.dumps([status, why[:_WHY_MAX]], ensure_ascii=False) + "\n"
        with suppress(OSError):
            # A task that closes what it doesn't know may have got our number for a file of its own.
            if _identity(self._channel) == self._identity:
                os.write(self._channel, said.encode("utf-8", "replace"))


def _perform(request: Mapping[str, Any]) -> tuple[int, str]:
    """Run a task; return the exit status that says how it went, and why."""
    tasks.take_in_hand(tasks.Call(request["id"], request["tries"]))
    task = tasks.registered[request["class"], request["worker"]]
    try:
        result = task.run(request["params"])
        if inspect.iscoroutine(result):
            import asyncio  # for those alone who use it

            asyncio.run(result)
        elif inspect.isgenerator(result) or inspect.isasyncgen(result):
            return NEVER, "it has a yield in it, so that nothing of it was run: a task returns"
    except tasks.GiveUp as error:
        return NEVER, str(error)
    except SystemExit as error:
        return _exit_status(error.code), f"exit({error.code!r})"
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
        with suppress(Exception):
            traceback.print_exc()
        return 1, _words(error)
    return 0, ""


def _exit_status(code: object) -> int:
    if isinstance(code, int):
        return code & 0xFF
    return 0 if code is None else 1


def _become_program(request: Mapping[str, Any]) -> tuple[int, str]:
    """Become a command; return only where that fails."""
    argv, folder = request["command"], request["folder"]
    try:
        # A file, not a pipe: nobody has to feed it, and it can be opened as /dev/stdin.
        with _nameless_file() as job:
            job.write(request["stdin"].encode())
            job.seek(0)
            os.dup2(job.fileno(), 0)
        if folder is not None:
            os.chdir(folder)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # what Python ignores
            handle(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)  # noqa: S606 - a list of words, no shell
    except OSError as error:
        return 1, f"can't run {argv[0]}: {error.strerror}"


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("job"), "r+b", buffering=0)  # noqa: PTH123 - it has no path
    return tempfile.TemporaryFile(buffering=0)


def _finish() -> None:
    """End as a program does that comes to its end: with what it has registered for it."""
    with suppress(BaseException):
        atexit._run_exitfuncs()
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


# ---- the kernel


def _call_kernel(option: int, value: int) -> None:
    if prctl := _prctl():
        prctl(option, value, 0, 0, 0)


@cache
def _prctl() -> Callable[..., int] | None:
    import ctypes  # in the template; the worker only reads our constants

    return getattr(ctypes.CDLL(None), "prctl", None)


def _die_with(parent: int) -> None:
    """Be killed when the parent ends, on Linux; at once when it has ended already."""
    _call_kernel(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _go_first() -> None:
    """When memory is short, be killed before the worker and Redis are."""
    with suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR)
        with suppress(OSError):
            if int(os.read(fd, 10)) < _FIRST_TO_GO:
                os.write(fd, b"%d" % _FIRST_TO_GO)
        os.close(fd)


def _children() -> list[int]:
    pid = os.getpid()
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may have left its group
        with suppress(OSError):
            kill(pid, signal.SIGKILL)


def _identity(fd: int) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    return None


def _say(control: socket.socket, line: str) -> None:
    control.sendall(line.encode() + b"\n")


def _words(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _go_on(_number: int, _frame: object) -> None:
    """Hear a signal, which by itself changes nothing."""
