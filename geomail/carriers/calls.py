"""Calls: jobs that run a task of the user's, each in a child process that can do us no harm.

    how it ended                                              fate        blame
    the task returned; exit status 0                          DELIVERED   nobody
    GiveUp; exit status 65 (EX_DATAERR)                       NEVER       message
    no such task                                              NEVER       message
    any other exception, status or signal                     LATER       message
    not over in time: killed, with all of its group           LATER       message
    no process could be made                                  AGAIN       host
    geomail leaves before it is over: killed                  AGAIN       connection

AGAIN counts no try. A call is made at least once: one that was killed, or whose worker was, may
have done its work. A call has a process of its own, or one that has done others before
(`task_jobs`), for as long as all go well; what it leaves in its process group ends with that. How
many run at a time is up to who calls; how long one may take is `task_s`, or the task's own.

Not promised: that a task which puts a process into a session of its own, or whose system call the
kernel doesn't interrupt, has ended with its call. The first ends with the worker (on Linux). Nor
is this a cage: a task has our user's rights, and what that user may do to our files, it may do.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import Signals

import gevent
import msgspec
from gevent.event import Event
from gevent.lock import Semaphore

from geomail import log, metrics
from geomail.calling import NEVER
from geomail.carriers.children import Child, Ended, NoChild, Template
from geomail.carriers.plans import Plan, Plans
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.errors import ConfigError
from geomail.job import CallTask

_BURY_S = 5.0
_PHASE = "call"
_WORDS_MAX = 300


class Calls:
    """Does calls, as many at a time as greenlets ask for."""

    def __init__(self, settings: Settings) -> None:
        """Import the tasks in a process of their own, which takes as long as they do.

        Raises ConfigError where that fails, or where a program is missing.
        """
        self._settings = settings
        self._is_stopping = False
        self._running = 0
        self._all_done = Event()
        self._all_done.set()
        self._starting = Semaphore()
        self._kept: list[tuple[Template, Child]] = []
        self._templates: list[Template] = []  # those before it may have calls to finish
        self._template: Template | None = None
        self._use(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings, and the tasks as their files are now; returns at once.

        What runs goes on. Where the new ones can't be had, that is logged and the old ones stay.
        """
        gevent.spawn(self._reload, settings)

    def reason_against(self, task: CallTask) -> str | None:
        """Return why a call can never be done, or None."""
        return self._plans.reason_against(task)

    def shown(self) -> list[str]:
        """Return what may be called, one line each."""
        return self._plans.shown()

    def call(self, task: CallTask, *, job_id: str, tries: int) -> Outcome:
        """Do a call, and return how it ended; blocks the greenlet until its process is gone.

        That is at its deadline at the latest, but for what it takes to kill it.
        """
        plan = self._plans.find(task)
        if plan is None:
            return _failed(Fate.NEVER, self.reason_against(task) or "no such task")
        if self._is_stopping:
            return _LEFT
        metrics.count("calls")
        with self._counted():
            try:
                request = plan.request(task, job_id=job_id, tries=tries)
                template, child = self._child(plan, job_id)
            except (NoChild, ConfigError) as error:
                return Outcome(Fate.AGAIN, Blame.HOST, _PHASE, str(error))
            except (ValueError, TypeError, RecursionError) as error:
                return _failed(Fate.NEVER, f"params can't be passed on: {error}")
            return self._done_by(child, template, plan, request)

    def stop(self, patience_s: float) -> None:
        """Let calls finish for `patience_s`, then kill those that are left; start no others."""
        self._is_stopping = True
        self._all_done.wait(patience_s)
        for template in tuple(self._templates):
            template.stop()
        self._all_done.wait(_BURY_S)
        self._drop_kept()

    # ---- one call

    def _done_by(self, child: Child, template: Template, plan: Plan, request: bytes) -> Outcome:
        outcome = _OVERDUE
        try:
            outcome = _attempt(child, request, timeout_s=plan.timeout_s)
        finally:
            child.calls += 1
            is_good = outcome.fate is Fate.DELIVERED and plan.command is None
            if is_good and self._may_be_kept(template, child):
                child.output.drain()
                self._kept.append((template, child))
            else:
                template.part(child, is_over=outcome not in (_OVERDUE, _GARBLED))
        if outcome is _OVERDUE:
            metrics.count("calls_killed")
            return _failed(Fate.LATER, f"not over after {plan.timeout_s:g} s: killed")
        # A code is that of an exit, which came before we killed what was left.
        has_ended = outcome.fate is not Fate.LATER or outcome.code is not None
        return _LEFT if self._is_stopping and child.was_killed and not has_ended else outcome

    def _may_be_kept(self, template: Template, child: Child) -> bool:
        return (
            child.calls < self._settings.task_jobs
            and not child.ended.ready()
            and template is self._template
            and not self._is_stopping
        )

    def _child(self, plan: Plan, job_id: str) -> tuple[Template, Child]:
        while self._kept and plan.command is None:
            template, child = self._kept.pop()
            if template is self._template and not child.ended.ready():
                child.output.turn_to(job_id)
                return template, child
            child.close()
        template = self._living_template()
        return template, template.fork(job_id)

    def _living_template(self) -> Template:
        if self._template is not None and self._template.is_alive:
            return self._template  # at once, also while new settings are being read
        with self._starting:
            if self._template is None or not self._template.is_alive:
                log.error("calls_ended", hint="the process that starts them; another is started")
                self._use(self._settings)
            if self._template is None or self._is_stopping:
                raise NoChild("geomail leaves")
            return self._template

    def _use(self, settings: Settings) -> None:
        """Start a template, and do calls by it from now on. Raises ConfigError."""
        template = Template(settings.tasks) if settings.tasks or settings.commands else None
        try:
            self._plans = Plans(settings, template.tasks if template else {})
        except ConfigError:
            if template:
                template.stop()
            raise
        self._settings, self._template = settings, template
        self._templates = [one for one in self._templates if one.is_alive]
        if template and self._is_stopping:
            template.stop()
        elif template:
            self._templates.append(template)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._all_done.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._all_done.set()

    def _drop_kept(self) -> None:
        while self._kept:
            self._kept.pop()[1].close()

    def _reload(self, settings: Settings) -> None:
        with self._starting:
            old = self._template
            if self._is_stopping:
                return
            try:
                self._use(settings)
            except ConfigError as error:
                log.error("tasks_kept", why=error, hint="the old ones go on")
                return
        self._drop_kept()
        if old is not None:
            old.retire()


def may_be_called(settings: Settings) -> list[str]:
    """Return what may be called, one line each. Raises ConfigError where it can't be had."""
    calls = Calls(settings)
    calls.stop(0)
    return calls.shown()


def _attempt(child: Child, request: bytes, *, timeout_s: float) -> Outcome:
    """Have a child do a call; return how it went, or that it is overdue."""
    deadline = time.monotonic() + timeout_s
    try:
        line = child.ask(request, timeout_s=timeout_s)
    except TimeoutError:
        return _OVERDUE
    if line is None:
        ended = child.ended.wait(max(0.001, deadline - time.monotonic()))
        return _by_end(ended, child) if ended else _OVERDUE
    try:
        status, why = _ANSWER.decode(line)
    except msgspec.MsgspecError:
        return _GARBLED
    return _by_status(status, why)


def _by_end(ended: Ended, child: Child) -> Outcome:
    """Return the outcome of a call whose process has ended without an answer."""
    if child.failure is not None:
        return Outcome(Fate.AGAIN, Blame.HOST, _PHASE, f"can't start a process: {child.failure}")
    if ended.status is None:
        return _failed(Fate.LATER, "the process that starts calls has ended")
    child.output.drain()
    if ended.status < 0:
        return _failed(Fate.LATER, f"killed by {_signal(-ended.status)}")
    why = f"exit status {ended.status}: {child.output.last_line}".removesuffix(": ")
    return _by_status(ended.status, why[:_WORDS_MAX])


def _by_status(status: int, why: str) -> Outcome:
    if status == 0:
        return Outcome(Fate.DELIVERED, Blame.NOBODY, _PHASE, "done")
    fate = Fate.NEVER if status == NEVER else Fate.LATER
    text = " ".join(why.split()) or f"exit status {status}"
    return Outcome(fate, Blame.MESSAGE, _PHASE, text, status)


def _failed(fate: Fate, text: str) -> Outcome:
    return Outcome(fate, Blame.MESSAGE, _PHASE, text)


def _signal(number: int) -> str:
    with suppress(ValueError):
        return Signals(number).name
    return f"signal {number}"


_ANSWER = msgspec.json.Decoder(tuple[int, str])
_LEFT = Outcome(Fate.AGAIN, Blame.CONNECTION, _PHASE, "geomail leaves")
_OVERDUE = _failed(Fate.LATER, "not over in time: killed")
_GARBLED = _failed(Fate.LATER, "what its process said can't be understood")
