"""A worker's life: start, run, reload, drain.

`run` returns when a signal, --max-messages or the end of a --burst says so. SIGTERM or SIGINT
starts the drain: nothing more is taken, what is on the wire is finished, the rest goes back to
Redis, all within `grace_s`. A second one leaves at once; what was in hand then is brought back by
another worker (or the next start) when the lease has run out. SIGHUP reads the settings again and
reopens the delivery log.
"""

import dataclasses
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from geomail import files, log, metrics
from geomail.carriers.carriers import Carriers, carried
from geomail.carriers.task import Task
from geomail.config import Settings, require_relays
from geomail.delivery import shown
from geomail.delivery.delivery import Delivery
from geomail.delivery.lanes import Lanes
from geomail.errors import GeomailError, RedisUnusable
from geomail.queue import Ceilings, Counts, Limiter, Link, Queue, Slot, journal
from geomail.worker import heap
from geomail.worker.admission import Admission
from geomail.worker.appetite import Appetite
from geomail.worker.clock import RedisClock
from geomail.worker.parent import Parent
from geomail.worker.popper import Popper
from geomail.worker.settler import Settler

if TYPE_CHECKING:
    from geomail.intake.doors import Doors
    from geomail.intake.listening import Listeners

_REAP_EVERY_S = 4.0
_COUNT_S, _HASTY_COUNT_S = 5.0, 0.5
# What SIGHUP can't change in a running worker.
_FIXED = (
    "concurrency", "redis", "queues", "lease_s", "beat_s", "delivery_log", "data", "burst",
    "listen_tcp", "listen_http", "listen_smtp", "listen_smtps", "door_token", "door_logins",
    "door_cert", "door_connections", "door_rate", "door_max_mb", "door_idle_s",
)  # fmt: skip


def run(settings: Settings, listeners: "Listeners | None" = None) -> int:
    """Deliver until told to stop; return the exit status: 1 when a burst left a route closed.

    `listeners`: sockets to open doors on.

    Raises ConfigError or RedisUnusable when it can't start.
    """
    require_relays(settings)
    if settings.redis is None:
        raise RedisUnusable("no Redis: pass --redis URL")
    heap.give_back_large_blocks()
    heap.collect_rarely(settings.concurrency)
    guests = settings.door_connections * len(listeners or ())
    files.make_room(settings.concurrency + carried(settings) + guests)
    link = Link(settings.redis)
    queues = [
        Queue(link, name, lease_s=settings.lease_s, beat_s=settings.beat_s)
        for name, _ in settings.queues
    ]
    doors = None
    if listeners:
        from geomail.intake.serving import doors_of

        doors = doors_of(settings.redis, settings, listeners)
    return Worker(settings, link, queues, doors).run()


class Worker:
    """One worker: its greenlets and how they end."""

    def __init__(
        self, settings: Settings, link: Link, queues: list[Queue], doors: "Doors | None" = None
    ) -> None:
        self.settings = settings
        self._doors = doors
        self._link = link
        self._queues = queues
        self._stop = Event()
        self._signals = 0
        self._parent: Parent | None = None
        self._is_running = False
        self._held_lists: set[str] = set()
        self._failure: GeomailError | None = None
        self._clock = RedisClock()
        self._journals = Path(settings.data, "journal") if settings.journal else None
        self._journal = journal.Journal(self._journals)
        self._run_ids: dict[Queue, str] = {}
        self.settler = Settler(
            settings,
            self._clock,
            journal=self._journal,
            parts=self._admit_parts,
            delayed=self._on_new_due_time,
            parked=self._on_parked,
        )
        self.lanes = Lanes(
            settings,
            report=self.settler.report,
            progress=self.settler.progress,
            stranded=self._on_stranded,
            split=self._on_too_many,
            limiter=Limiter(link, folder=Path(settings.data, "holders"), lease_s=settings.lease_s),
            ceilings=Ceilings(link),
        )
        self.carriers = Carriers(
            settings,
            house=self.lanes,
            report=self.settler.report_task,
            give_back=self._on_stranded_tasks,
        )
        self.admission = Admission(
            settings,
            lanes=self.lanes,
            settler=self.settler,
            clock=self._clock,
            carriers=self.carriers,
        )
        self.popper = Popper(
            settings,
            queues,
            lanes=self.lanes,
            admission=self.admission,
            settler=self.settler,
            clock=self._clock,
            unusable=self._fail,
            retire=self._retire,
            appetite=Appetite(self.lanes, self.carriers),
        )
        self._popping: gevent.Greenlet[..., None] | None = None
        self._beating: gevent.Greenlet[..., None] | None = None

    def run(self) -> int:
        """Start everything, wait for the reason to stop, drain; return the exit status."""
        self._listen_to_signals()
        if self.settings.process:
            self._parent = Parent(self._on_order)
        # Beside the main greenlet, which has to hear signals while Redis is away.
        self._start("start", self._begin)
        self._stop.wait()
        if self._is_running:
            self._drain()
        if self._failure is not None:
            raise self._failure
        return self._say_goodbye()

    def _begin(self) -> None:
        self._link.probe()
        for queue in self._queues:
            queue.register()
            self._journal.enlist(queue.name, queue.worker)
            self._recall(queue)
        self._beating = self._start("beat", self._beat)
        self._start("settler", self.settler.run)
        self._obey()
        self._replay()
        for queue in self._queues:
            queue.reap()
        self._start("reaper", self._reap)
        self._popping = self._start("popper", self._pop)
        self._is_running = True
        if self._doors is not None:
            self._doors.start()
        log.info(
            "running",
            lists=",".join(queue.name for queue in self._queues),
            relays=self.lanes.shown(),
            concurrency=self.settings.concurrency,
        )
        if self._parent is not None:
            self._parent.say("running")

    # ---- greenlets

    def _start(self, name: str, work: Callable[[], None]) -> "gevent.Greenlet[..., None]":
        return gevent.spawn(self._keep_going, name, work)

    def _fail(self, error: RedisUnusable) -> None:
        self._failure = error
        self._stop.set()

    def _keep_going(self, name: str, work: Callable[[], None]) -> None:
        while True:
            try:
                work()
            except RedisUnusable as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - the top of a greenlet
                log.error("greenlet_broke", name=name, why=repr(error))
                metrics.count("greenlets_broken")
                gevent.sleep(1.0)
            else:
                return

    def _pop(self) -> None:
        self.popper.run()
        self._stop.set()

    def _beat(self) -> None:
        while True:
            gevent.sleep(self.settings.beat_s)
            for queue in self._queues:
                self._recall(queue)
                queue.high_water = self.settings.high_water
                if not queue.beat(self._shown(queue)):
                    log.warning("lease_lost", list=queue.name, worker=queue.worker)
                    queue.register()
                self._journal.enlist(queue.name, queue.worker)
            self._obey()
            self._journal.tidy()

    def _shown(self, queue: Queue) -> bytes:
        first = self._queues[0]
        if queue is not first:
            return shown.pointer(first.name, first.worker)
        try:
            now = time.monotonic()
            return shown.snapshot(self.lanes, now, self.carriers.shown(now))
        except Exception as error:  # noqa: BLE001 - what people see must not cost a lease
            log.error("snapshot_broke", why=repr(error))
            return b""

    def _obey(self, *, anew: bool = False) -> None:
        """Hold the relays, and the lists, that people have said to hold; let the others go on.

        `anew`: routes have been made, with lanes that may know otherwise.
        """
        held = {name for queue in self._queues for kind, name in queue.held if kind == "relay"}
        for route in [route for route in self.lanes.routes.values() if route.is_whole]:
            is_to_be, is_held = route.name in held, route.is_held
            if anew or is_held != is_to_be:
                self._on_stranded(route.hold(on=is_to_be))
            if is_held != is_to_be:
                log.info("held" if is_to_be else "resumed", relay=route.name)
                self.popper.look_again()
        lists = {queue.name for queue in self._queues if ("queue", queue.name) in queue.held}
        if lists != self._held_lists:
            log.info("held_lists", lists=",".join(sorted(lists)) or "none")
            self._held_lists = lists
            self.popper.look_again()

    def _recall(self, queue: Queue) -> None:
        """Tell a Redis that has started anew what it may have forgotten; then the beat compares."""
        if not self._journal.is_open:
            return
        known, now = self._run_ids.get(queue), queue.run_id()
        if known and now and now != known:
            said = self._journal.say_again(queue)
            log.info("journal_said_again", list=queue.name, records=said)
        self._run_ids[queue] = now or known or ""

    def _reap(self) -> None:
        while True:
            gevent.sleep(_REAP_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            for queue in self._queues:
                queue.reap()
                self.popper.look_again()  # also where the reply to an earlier reap was lost
                expired = queue.expire_dead(self.settings.dead_days)
                if expired:
                    log.info("dead_expired", list=queue.name, jobs=expired)

    def _replay(self) -> None:
        """Settle what dead workers of this machine had done, and bring back what they held."""
        if self._journals is not None and journal.replay(self._journals, self._queues):
            self.popper.look_again()

    # ---- what the rooms tell each other

    def _on_stranded(self, deliveries: list[Delivery]) -> None:
        self.admission.reroute(deliveries)

    def _on_stranded_tasks(self, tasks: list[Task]) -> None:
        self.admission.give_back(tasks)

    def _on_too_many(self, delivery: Delivery, most: int) -> None:
        self.admission.split(delivery, most)

    def _on_parked(self, names: set[str]) -> None:
        self.popper.note_parked(names)

    def _on_new_due_time(self) -> None:
        self.popper.look_again()

    def _admit_parts(self, queue: Queue, slots: list[Slot]) -> None:
        for slot in slots:
            if self.lanes.is_draining or not self.lanes.bytes_to_take():
                self.admission.release(queue, slot)  # and taken again when there is room
            else:
                self.admission.admit(queue, slot)

    def _retire(self) -> bool:
        """Return whether to leave now: one of several works on until its successor runs."""
        if self._parent is None:
            return True
        self._parent.say("retiring")
        return False

    # ---- signals

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop, number)
        gevent.signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop(self, number: int) -> None:
        self._signals += 1
        log.info("stopping", signal=signal.Signals(number).name, in_hand=self.lanes.in_hand())
        self._stop.set()

    def _on_order(self, word: str) -> None:
        if word == "reload":
            self._on_hangup()
            return
        if word == "reap":
            self.lanes.limited.stir()
            self._start("replay", self._replay)
            return
        # No signal: a service manager may signal us too, and means the same, not "at once".
        if word == "now":
            self._signals = 2
        log.info("stopping", parent=word, in_hand=self.lanes.in_hand())
        self._stop.set()

    def _on_hangup(self) -> None:
        try:
            self.settler.delivery_log.reopen()
            settings = self.settings.again()
            fixed = {name: getattr(self.settings, name) for name in _FIXED}
            unheard = [name for name, kept in fixed.items() if getattr(settings, name) != kept]
            settings = dataclasses.replace(settings, **fixed)
            require_relays(settings)
            if self._doors is not None:
                self._doors.renew()
            self.admission.configure(settings)
            self.carriers.configure(settings)
            self.lanes.configure(settings)  # the last that may refuse: till then all can go back
            self.settler.callbacks.configure(settings)
        except GeomailError as error:
            self.admission.configure(self.settings)
            self.carriers.configure(self.settings)
            log.error("reload_failed", why=str(error), hint="the old settings stay in force")
            return
        if unheard:
            log.warning("needs_a_restart", settings=",".join(unheard))
        self.settings = self.settler.settings = settings
        self._obey(anew=True)
        self.popper.look_again()
        log.info("reloaded", relays=self.lanes.shown())

    # ---- the end

    def _drain(self) -> None:
        deadline = time.monotonic() + self.settings.grace_s
        self.popper.is_draining = True
        drain: gevent.Greenlet[..., None] = gevent.spawn(self._put_back, deadline)
        ends = [drain]
        if self._doors is not None:
            ends.append(gevent.spawn(self._doors.stop, self.settings.grace_s / 2))
        while self._signals < 2 and time.monotonic() < deadline:
            if len(gevent.joinall(ends, timeout=0.05)) == len(ends):
                break
        if not drain.ready() or not self.settler.is_idle:
            self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        jobs, unsettled = self.lanes.in_hand(), self.settler.backlog
        if jobs:
            log.warning("left_in_hand", jobs=jobs, hint="their lease will run out")
        if unsettled:
            hint = "Redis has not got them: the journal has what hosts answered"
            log.warning("left_unsettled", jobs=unsettled, hint=hint)
        if not jobs and not unsettled:
            log.warning("left_on_the_books", hint="nothing is in hand; the lease will run out")

    def _put_back(self, deadline: float) -> None:
        """Finish what is on the wire, give the rest back, and let Redis know, until `deadline`."""
        margin_s = min(2.0, self.settings.grace_s / 4)
        self.lanes.news.set()
        if self._popping is not None:
            self._popping.join(timeout=margin_s)
        self._release(self.carriers.stop())
        self._release(self.lanes.stop())
        self.admission.stop_searching()
        left_s = max(0.0, deadline - margin_s - time.monotonic())
        self._release(self.lanes.join(left_s, last_s=min(margin_s, left_s / 4)))
        self._release(self.carriers.join(deadline - margin_s - time.monotonic()))
        gevent.spawn(self.lanes.limited.leave).join(timeout=margin_s / 2)
        if self.settler.wait_until_idle(deadline - time.monotonic()):
            if self._beating is not None:
                self._beating.kill()  # it would put the worker back on the books
            gone = [queue.leave() for queue in self._queues]
            for queue, has_left in zip(self._queues, gone, strict=True):
                if not has_left:
                    log.warning("left_in_hand", list=queue.name, hint="its lease will run out")
            if all(gone):
                self._journal.remove()

    def _release(self, taken: Sequence[Delivery | Task]) -> None:
        for each in reversed(taken):
            self.admission.release(each.queue, each.slot)

    def _say_goodbye(self) -> int:
        done = metrics.snapshot()
        log.info("left", **{name: done.get(name, 0) for name in ("delivered", "deferred", "dead")})
        if not self.settings.burst or not self._is_running:
            return 0
        counts: list[Counts] = []
        gevent.spawn(self._count, counts).join(
            timeout=_HASTY_COUNT_S if self._signals else _COUNT_S
        )
        if len(counts) < len(self._queues):
            return 1
        parked = sum(sum(one.parked.values()) for one in counts)
        delayed = sum(one.delayed for one in counts)
        dead = sum(one.dead for one in counts)
        sys.stdout.write(f"left delayed={delayed} parked={parked} dead={dead}\n")
        sys.stdout.flush()
        now = time.monotonic()
        routes = self.lanes.routes.values()
        is_closed = any(route.is_closed(now) and not route.is_waiting(now) for route in routes)
        # What is parked while others are at work, they may have parked, and will take.
        others = [held for one in counts for held in one.workers.values()]
        is_last = not any(held.lease_left_ms > 0 and not held.fenced for held in others)
        return 1 if (parked and is_last) or is_closed else 0

    def _count(self, counts: list[Counts]) -> None:
        counts += [queue.counts() for queue in self._queues]
