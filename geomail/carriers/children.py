"""The worker's side of the processes that do calls: the template, and a Child for each it forks.

The other side, and the language between both, is geomail.calling. All waits here are greenlets';
no system call can stop the hub. A child has two descriptors here, its channel and its output, and
both are closed with it; its end is told by the template, for the lines it has written and for its
exit status. Should the template itself end, for whatever reason, its children are killed, each
call in hand has ended with it, and whoever needs a child starts another template.
"""

import itertools
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import gevent
import msgspec
from gevent.event import AsyncResult, Event

import geomail
from geomail import calling, log
from geomail.carriers.output import Output
from geomail.errors import ConfigError, GeomailError

_START_S = 120.0
_TELL_S = 5.0
_END_S = 5.0
_LEAVE_S = 3.0
_HELLO_MAX = 4_000_000
# -P: not even the folder in hand comes before the libraries until the template has what it needs.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import geomail.calling as c;"
    " del sys.path[0]; c.main(sys.argv[1:])"
)


class NoChild(GeomailError):
    """No process could be made for a call: the text says why."""


class Ended(msgspec.Struct, frozen=True):
    """How a child has ended: its exit status, or -SIGNAL; None when its template was lost."""

    status: int | None


class Child:
    """A process for calls, as the worker has it."""

    def __init__(self, number: int, channel: socket.socket, output: Output) -> None:
        self.number = number
        self.channel = channel
        self.output = output
        self.pid: int | None = None
        self.calls = 0
        self.is_killed = False
        self.ended: AsyncResult[Ended] = AsyncResult()
        self.failure: str | None = None

    @property
    def was_killed(self) -> bool:
        """True when it has ended by a signal, or with its template."""
        ended = self.ended.value if self.ended.ready() else None
        return ended is not None and (ended.status is None or ended.status < 0)

    def ask(self, request: bytes, *, timeout_s: float) -> bytes | None:
        """Give it a request, and return its answer, a line; None when it closes without one.

        Raises TimeoutError.
        """
        found = b""
        with gevent.Timeout(timeout_s, TimeoutError), suppress(ConnectionError):
            self.channel.sendall(calling.LENGTH.pack(len(request)) + request)
            while block := self._heard():
                found += block
                if block.endswith(b"\n") or len(found) > calling.ANSWER_MAX:
                    return found
        return None

    def _heard(self) -> bytes:
        try:
            return self.channel.recv(4096)
        except TimeoutError:
            raise
        except OSError:  # its end has been told while we waited: what it has said is still here
            return self.channel.recv(4096)

    def let_go(self) -> None:
        """Want no more of it: it ends by itself."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close what is ours of it."""
        self.channel.close()
        self.output.close()


class Template:
    """The process that has imported the tasks, and what it has forked."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Start it, and wait until it has them all; raises ConfigError that says what is wrong."""
        self.tasks: dict[tuple[str, str], float | None] = {}
        self.children: dict[int, Child] = {}
        self.is_alive = True
        self._is_retired = False
        self._is_stopped = False
        self._gone = Event()
        self._numbers = itertools.count(1)
        self._heard = b""
        try:
            self._control, self._process, said = _spawn(modules)
        except OSError as error:
            raise ConfigError(f"can't start the process for calls: {error}") from None
        self._output = Output(said, None, event="tasks_said")
        try:
            self._meet(modules)
        except BaseException:
            self.stop()
            raise
        gevent.spawn(self._listen)

    # ---- children

    def fork(self, job_id: str) -> Child:
        """Return a new child for the job `job_id`. Raises NoChild."""
        if not self.is_alive:
            raise NoChild("the process that starts calls has ended")
        try:
            channel, theirs = socket.socketpair()
            with theirs:
                child, write = self._new_child(channel, job_id)
                try:
                    self._tell(f"fork {child.number}", (theirs.fileno(), write))
                except BaseException:
                    self._bury(child, Ended(None))
                    child.close()
                    raise
                finally:
                    os.close(write)
        except OSError as error:
            raise NoChild(f"can't start a process for a call: {error.strerror or error}") from None
        return child

    def _new_child(self, channel: socket.socket, job_id: str) -> tuple[Child, int]:
        try:
            read, write = os.pipe()
        except OSError:
            channel.close()
            raise
        child = Child(next(self._numbers), channel, Output(read, job_id))
        self.children[child.number] = child
        return child, write

    def part(self, child: Child, *, is_over: bool) -> None:
        """Let a child end whose call `is_over`, or kill it; it has ended when this returns."""
        child.let_go()
        if not is_over or not child.ended.wait(_END_S):
            self._kill(child)
        child.close()

    def retire(self) -> None:
        """Fork no more, and end with the last child."""
        self._is_retired = True
        self._bury_itself()

    def stop(self) -> None:
        """End it, with all children that it has."""
        if self._is_stopped:
            self._gone.wait(_LEAVE_S)
            return
        self._is_stopped = True
        self._control.close()
        try:
            self._process.wait(_LEAVE_S)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._gone.set()

    def _tell(self, line: str, fds: Sequence[int]) -> None:
        with gevent.Timeout(_TELL_S, TimeoutError):
            socket.send_fds(self._control, [line.encode() + b"\n"], list(fds))

    # ---- what it says

    def _meet(self, modules: Sequence[str]) -> None:
        named = f"tasks = {list(modules)}"
        try:
            with gevent.Timeout(_START_S, TimeoutError):
                hello = self._first_line()
        except TimeoutError:
            raise ConfigError(f"{named}: not imported after {_START_S:.0f} s") from None
        if "error" in hello:
            raise ConfigError(f"{named}: {hello['error']}")
        for cls, worker, timeout_s in hello["tasks"]:
            self.tasks[cls, worker] = timeout_s

    def _first_line(self) -> Mapping[str, list[tuple[str, str, float | None]]]:
        while b"\n" not in self._heard:
            block = self._control.recv(65536)
            if not block or len(self._heard) > _HELLO_MAX:
                raise ConfigError(f"the process for calls did not start: {self._last_words()}")
            self._heard += block
        line, self._heard = self._heard.split(b"\n", 1)
        hello: dict[str, list[tuple[str, str, float | None]]] = msgspec.json.decode(line)
        return hello

    def _listen(self) -> None:
        try:
            while block := self._control.recv(4096):
                *lines, self._heard = (self._heard + block).split(b"\n")
                for line in lines:
                    self._heed(line.decode())
        except (OSError, ValueError) as error:
            if not self._is_stopped:
                log.error("calls_broke", why=error)
        self._lose()

    def _heed(self, line: str) -> None:
        verb, number, said = line.split(" ", 2)
        child = self.children.get(int(number))
        if child is None:
            return
        if verb == "forked":
            child.pid = int(said)
        elif verb == "ended":
            self._bury(child, Ended(int(said)))
        elif verb == "killed":
            child.is_killed = True
        else:
            child.failure = said
            self._bury(child, Ended(None))

    def _bury(self, child: Child, ended: Ended) -> None:
        self.children.pop(child.number, None)
        child.ended.set(ended)
        with suppress(OSError):  # what it has left running may hold the other end
            child.channel.shutdown(socket.SHUT_RD)
        self._bury_itself()

    def _bury_itself(self) -> None:
        if self._is_retired and not self.children:
            gevent.spawn(self.stop)

    def _lose(self) -> None:
        """It has ended: so do its children (on Linux they have by now), with their own."""
        self.is_alive = False
        for child in tuple(self.children.values()):
            if child.pid is not None:
                with suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL)
            self._bury(child, Ended(None))
        self.stop()

    def _kill(self, child: Child) -> None:
        with suppress(OSError):
            self._tell(f"kill {child.number}", ())
        if child.ended.wait(_END_S):
            return
        if child.is_killed:
            log.error("call_cant_be_killed", pid=child.pid, hint="state D in ps waits for a disk")
        else:
            log.error("calls_stuck", hint="the process that starts them is killed")
            self._process.kill()

    def _last_words(self) -> str:
        with suppress(TimeoutExpired):
            self._process.wait(_TELL_S)
        self._output.drain()
        return self._output.last_line or f"exit status {self._process.poll()}"


def _spawn(modules: Sequence[str]) -> tuple[socket.socket, "Popen[bytes]", int]:
    """Start a template; return the control, the process, and the reading end of its output."""
    home = str(Path(geomail.__file__).parent.parent)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
    with ExitStack() as ours:
        control, theirs = socket.socketpair()
        ours.callback(control.close)
        read, write = os.pipe()
        ours.callback(os.close, read)
        try:
            process = Popen(
                [sys.executable, "-P", "-c", _PROGRAM, home, *modules],
                env=environ,
                stdin=theirs.fileno(),
                stdout=write,
                stderr=write,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(write)
        ours.pop_all()
    log.debug("calls_started", pid=process.pid, modules=",".join(modules) or None)
    return control, process, read
