"""The parent of several workers: it starts them, watches them, and replaces them.

    parent ──socket──► worker 1     a plain `geomail run`, with one hub, in a process of its own
           ──socket──► worker 2 …

There are N places, and in each a worker. One that dies is replaced at once, the next time after
0.1 s, then 0.2 s, up to 5 s, and at once again after one that has lived for 30 s. What the dead one
held, a worker that runs is told to bring back from its journal at once; where none runs, the
successor does that when it starts. One that has done its `max_messages` says so and works on until
its successor runs; then it is told to drain. So a place is never empty for a retirement.

The first worker starts alone. When it ends by itself before it ever ran, the parent ends with its
status: a mistake in the settings is said once, not N times. Later such an end is a death as any.

Each worker is in a session of its own, and is told what to do over its socket, not by signals: so
Ctrl-C in a terminal or a service manager that signals a whole group can't tell a worker the same
thing twice, which would mean "at once". When the parent dies, however, the sockets close, and the
workers drain.

The sockets of doors are bound here, before any worker starts, and all workers accept from them: a
retirement, or a death, closes none.

No gevent here, nor anything of the queue: one loop over sockets, ends of children, and timers. Not
promised: more workers than CPUs are faster; nor that `processes` changes by SIGHUP.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from types import FrameType
from typing import Self

from geomail import log
from geomail.config import CHILD_VARIABLE, Settings
from geomail.errors import GeomailError
from geomail.intake import listening
from geomail.intake.listening import Listeners

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_LONG_LIFE_S = 30.0
_MARGIN_S = 3.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(settings: Settings, argv: Sequence[str], listeners: Listeners) -> int:
    """Keep `settings.processes` workers alive, each with the arguments `argv`, until told to leave
    or until the burst is over; return the exit status.

    `listeners`: sockets of doors, from which all of them accept.
    """
    with _Signals() as signals:
        return Supervisor(settings, argv, signals, listeners).run()


class Phase(Enum):
    """How far a worker is."""

    STARTING = "starting"
    RUNNING = "running"
    RETIRING = "retiring"  # works until its successor runs
    LEAVING = "leaving"  # was told to


class Child:
    """A worker's process, and our end of its socket."""

    def __init__(self, number: int, argv: Sequence[str], listeners: Listeners) -> None:
        """Start it; raises OSError when the system has no room for one more."""
        self.phase = Phase.STARTING
        self.started_at = time.monotonic()
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self._heard = b""
        environ = os.environ | {CHILD_VARIABLE: f"{number}/{os.getpid()}"}
        environ |= listening.hand_over(listeners)
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "geomail", *argv],
                    env=environ,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    start_new_session=True,
                    pass_fds=[listener.fileno() for listener in listeners.values()],
                )
            except OSError:
                self.channel.close()
                raise
        self.pid = self.process.pid

    def say(self, word: str) -> None:
        """Tell it; one that is just ending doesn't hear it."""
        with suppress(OSError):
            self.channel.sendall(f"{word}\n".encode())

    def hear(self) -> list[str]:
        """Return the whole lines that it has said since the last time."""
        with suppress(OSError):
            while block := self.channel.recv(1000):
                self._heard += block
        *lines, self._heard = self._heard.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def fileno(self) -> int:
        """Return the descriptor of our end, to wait for."""
        return self.channel.fileno()


class Place:
    """One of the N places: who works in it, and when the next one starts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.due: float | None = None  # monotonic; None: nobody is to be started
        self._failures = 0

    def vacate(self, *, lived_s: float) -> float:
        """Note that its worker has died after `lived_s`; return the pause before the next, in s."""
        self._failures = 0 if lived_s >= _LONG_LIFE_S else self._failures
        pause_s = 0.0
        if self._failures:
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))
        self._failures += 1
        self.child = None
        self.due = time.monotonic() + pause_s
        return pause_s


class Supervisor:
    """All places, and all children: those in a place, and those that retire or leave."""

    def __init__(
        self, settings: Settings, argv: Sequence[str], signals: "_Signals", listeners: Listeners
    ) -> None:
        self._settings = settings
        self._argv = argv
        self._listeners = listeners
        self._signals = signals
        self._places = [Place(number + 1) for number in range(settings.processes)]
        self._children: dict[Child, Place] = {}
        self._selector = selectors.DefaultSelector()
        self._has_run = False
        self._status = 0
        self._left = ""
        self._told_to_leave = 0
        self._leave_by: float | None = None

    def run(self) -> int:
        """Start the first, the others when it runs, and see to them to the end."""
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._places[0].due = time.monotonic()
        while self._children or any(place.due is not None for place in self._places):
            self._start_due()
            self._selector.select(self._patience_s())
            for number in self._signals.come():
                self._obey(number)
            for child in tuple(self._children):
                self._look_at(child)
            self._insist()
        self._selector.close()
        if self._left:
            sys.stdout.write(f"{self._left}\n")
        log.info("all_left", processes=len(self._places))
        return self._status

    def _patience_s(self) -> float | None:
        times = [place.due for place in self._places if place.due is not None]
        if self._leave_by is not None:
            times.append(self._leave_by)
        return max(0.0, min(times) - time.monotonic()) if times else None

    # ---- starting

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.due is not None and place.due <= now:
                self._start(place)

    def _start(self, place: Place) -> None:
        place.due = None
        try:
            child = Child(place.number, self._argv, self._listeners)
        except OSError as error:
            again_in_s = place.vacate(lived_s=0)
            log.error("cannot_start", process=place.number, why=error, again_in_s=again_in_s)
            return
        place.child = child
        self._children[child] = place
        self._selector.register(child, selectors.EVENT_READ)
        log.info("started", process=place.number, pid=child.pid)

    # ---- what children say

    def _look_at(self, child: Child) -> None:
        status = child.process.poll()
        for word in child.hear():
            self._heed(child, word)
        if status is not None:
            self._bury(child, status)

    def _heed(self, child: Child, word: str) -> None:
        if word.startswith("left "):
            self._left = word  # the last to leave knows best
        elif word == "running" and child.phase is Phase.STARTING:
            child.phase = Phase.RUNNING
            self._relieve(child)
            self._start_others()
        elif word == "retiring" and child.phase is Phase.RUNNING:
            child.phase = Phase.RETIRING
            log.info("retiring", process=self._children[child].number, pid=child.pid)
            self._start(self._children[child])

    def _relieve(self, successor: Child) -> None:
        place = self._children[successor]
        for child, its_place in self._children.items():
            if its_place is place and child.phase is Phase.RETIRING:
                self._tell_to_leave(child, "stop")

    def _start_others(self) -> None:
        if self._has_run:
            return
        self._has_run = True
        for place in self._places[1:]:
            self._start(place)

    # ---- children's ends

    def _bury(self, child: Child, status: int) -> None:
        place = self._children.pop(child)
        self._selector.unregister(child)
        child.channel.close()
        if child.phase is Phase.LEAVING:
            if status not in (0, -signal.SIGTERM):  # by a signal: it had not begun to work
                self._note(place, child, status)
                self._status = max(self._status, 1)
        elif not self._has_run and status > 0:
            self._status = status
            self._leave("stop")
        elif self._settings.burst and status in (0, 1):
            self._status = max(self._status, status)
        elif place.child is child:
            again_in_s = place.vacate(lived_s=time.monotonic() - child.started_at)
            self._note(place, child, status, again_in_s)
        else:
            self._note(place, child, status)  # it retired, and its successor is there
        if status != 0:
            self._reap()

    def _reap(self) -> None:
        """Have a worker that runs bring back what a dead one held, before its successor can."""
        for child in self._children:
            if child.phase in (Phase.RUNNING, Phase.RETIRING):
                child.say("reap")
                return

    def _note(
        self, place: Place, child: Child, status: int, again_in_s: float | None = None
    ) -> None:
        log.warning(
            "process_ended",
            process=place.number,
            pid=child.pid,
            status=status if status >= 0 else None,
            signal=signal.Signals(-status).name if status < 0 else None,
            again_in_s=again_in_s,
        )

    # ---- signals

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._told_to_leave += 1
            log.info("stopping", signal=signal.Signals(number).name, processes=len(self._children))
            self._leave("stop" if self._told_to_leave == 1 else "now")
        elif number == signal.SIGHUP:
            self._reload()

    def _leave(self, word: str) -> None:
        grace_s = self._settings.grace_s if word == "stop" else 0.0
        self._leave_by = time.monotonic() + grace_s + _MARGIN_S
        for place in self._places:
            place.due = None
        for child in self._children:
            if word == "now" or child.phase is not Phase.LEAVING:
                self._tell_to_leave(child, word)

    def _tell_to_leave(self, child: Child, word: str) -> None:
        child.phase = Phase.LEAVING
        child.say(word)

    def _reload(self) -> None:
        with suppress(GeomailError):  # the workers say what is wrong with it
            self._settings = self._settings.again()
        for child in self._children:
            child.say("reload")

    def _insist(self) -> None:
        """Kill those that are still there when their time is over."""
        if self._leave_by is None or time.monotonic() < self._leave_by:
            return
        for child, place in self._children.items():
            log.error("killed", process=place.number, pid=child.pid, hint="it did not leave")
            child.process.kill()
        self._leave_by = None


class _Signals:
    """Signals as something to wait for: each writes its number into a socket."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def come(self) -> list[int]:
        """Return the signals that have come since the last time."""
        with suppress(BlockingIOError):
            return list(self._read.recv(1000))
        return []

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._read.fileno()

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _go_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _SIGNALS:  # all have left: there is nothing more to interrupt
            signal.signal(number, signal.SIG_IGN if number != signal.SIGCHLD else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the number is in the socket."""
