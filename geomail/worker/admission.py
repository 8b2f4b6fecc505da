"""Admission: from a slot that was taken to a delivery in a lane, or to the reason why not.

can't be decoded, no route, no sender      dead, with a reason for the producer's author
relay mx, and DNS has to be asked          waits for it, while all others go on
several relays by [[route]], or sites      split in Redis, one part a place (crossroads.py)
expired, or older than max_age             dead
no relay at all: tasks alone are done      delayed, for a worker that has one
not due yet (send_at)                      delayed; no try is counted
more recipients than a transaction takes   split in Redis, before anything is sent
its route's lanes are closed or full       parked in Redis, for whoever has room first
a task that is suspect                     delayed: it was read alone, and is done beside others
otherwise                                  into the ready queue of the first lane with room
"""

import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from geomail import log, metrics
from geomail.carriers.carriers import Carriers
from geomail.carriers.task import Task
from geomail.config import Settings
from geomail.delivery.delivery import Delivery
from geomail.delivery.direct import Direct
from geomail.delivery.lane import Lane
from geomail.delivery.lanes import Lanes
from geomail.delivery.pace import is_too_old
from geomail.delivery.route import Route, names
from geomail.errors import PayloadError
from geomail.job import Address, Email, Job, decode
from geomail.queue import (
    FRESH,
    TOLD,
    Dead,
    Duplicate,
    Park,
    Queue,
    Record,
    Release,
    Retry,
    Slot,
    Split,
)
from geomail.worker.clock import RedisClock
from geomail.worker.crossroads import Answers, Crossroads
from geomail.worker.parked import Meetings, Parked
from geomail.worker.senders import check_redirect, require_reverse_path, senders_of
from geomail.worker.settlement import dead_state, parked_state, postponed, since_ms
from geomail.worker.settler import Settler
from geomail.worker.shut import FULL_AGAIN_S, Shut
from geomail.worker.signpost import DEFAULT_RELAY, Signpost
from geomail.worker.sorting import parts_of

_LEFT_MS = 10_000  # for who has a relay; not at once, or it would come and go for ever
_GUILTY = 4  # deaths, from which on a task is done alone
_CLEARED_MS = 1_000  # by then the other suspects have been read
_NOBODY = Address("")
_NOTHING: Answers = {}
_KEPT = 512  # a larger payload is let go of: it counts with thousands of connections


class _Row(msgspec.Struct):
    """The deliveries of a batch that one lane of a route gets, and how many more it takes."""

    lane: Lane
    left: int
    deliveries: list[Delivery]


class Admission:
    """Decides where each slot goes."""

    def __init__(
        self,
        settings: Settings,
        *,
        lanes: Lanes,
        settler: Settler,
        clock: RedisClock,
        carriers: Carriers,
    ) -> None:
        self.parked = Parked(lanes)
        self.meetings: defaultdict[Queue, Meetings] = defaultdict(Meetings)
        self._shut = Shut(lanes)
        self._claiming: list[tuple[Slot, Job]] = []
        self._is_left_told = False
        self._rows: dict[Route, _Row] | None = None  # while there is a batch
        self._lanes = lanes
        self._carriers = carriers
        self._settler = settler
        self._clock = clock
        self._crossroads = Crossroads(
            settings,
            lanes=lanes,
            clock=clock,
            settle=self._settle,
            park=self._park,
            found=self._go_on,
        )
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings. Raises ConfigError for a sender that is no address."""
        check_redirect(settings)
        self._signpost = Signpost(settings) if settings.routing else None
        self._default = None if settings.routing else DEFAULT_RELAY
        self._senders = senders_of(settings)
        self._max_age_ms = settings.max_age_s * 1000.0
        self._settings = self._crossroads.settings = settings

    def admit_batch(self, queue: Queue, slots: Sequence[Slot]) -> None:
        """Put the deliveries of a batch into lanes, or settle them otherwise."""
        if slots and slots[0].suspect and self._speaks_first(queue, slots[0]):
            return  # it came alone
        now, now_ms = time.monotonic(), self._clock.now_ms()  # of all: 0.3 us each
        shut = self._shut
        shut.begin(queue, now)
        self._rows, unread = {}, iter(slots)
        try:
            for slot in unread:
                if not (shut.relays and shut.takes(slot, self._default)):
                    self._place(queue, slot, now, now_ms)
        except BaseException:
            claiming, self._claiming = self._claiming, []  # not to be another list's
            self._release_all(queue, [*(slot for slot, _ in claiming), *unread])
            raise
        finally:
            rows, self._rows = self._rows, None
            for row in rows.values():
                row.lane.put_all(row.deliveries)
            for record in shut.end():
                self._note_parked(queue, record)
                self._settler.put_aside(queue, record)
        self._admit_claimed(queue)

    def _note_parked(self, queue: Queue, record: Park) -> None:
        metrics.count("parked", len(record.slots))
        self.meetings[queue].in_vain += len(record.slots)
        self.parked.add(queue, record.route)

    def _speaks_first(self, queue: Queue, slot: Slot) -> bool:
        """Put a suspect back with what is to be told should it kill this worker too, unless it has
        been; it is taken again at once.
        """
        try:
            words = self._settler.callbacks.last_words(slot, decode(slot.payload))
        except Exception:  # noqa: BLE001 - whoever admits it will say so
            return False
        if words is None or words == slot.state.last_words:
            return False
        state = msgspec.structs.replace(slot.state, last_words=words)
        self._settler.add(queue, Release(slot, state))
        return True

    def admit(self, queue: Queue, slot: Slot) -> None:
        """Put the delivery of `slot` into a lane, or settle it otherwise.

        A job with a `dedupe_key` waits for the end of its batch.
        """
        self._place(queue, slot, time.monotonic(), self._clock.now_ms())

    def _admit_claimed(self, queue: Queue) -> None:
        """Admit the jobs with a dedupe key that came since the last call, each key once.

        One question to Redis for all of them; what another job holds the key of is dropped.
        """
        claiming, self._claiming = self._claiming, []
        pairs = [(job.dedupe_key or "", slot.id) for slot, job in claiming]
        try:
            answers = queue.claim(pairs, self._settings.dedupe_h)
        except BaseException:
            self._release_all(queue, [slot for slot, _ in claiming])
            raise
        now, now_ms = time.monotonic(), self._clock.now_ms()
        for (slot, job), may_go_on in zip(claiming, answers, strict=True):
            if may_go_on:
                slot.state = msgspec.structs.replace(slot.state, dedupe=job.dedupe_key)
                self._place(queue, slot, now, now_ms, job=job)
            else:
                metrics.count("duplicates")
                log.info("duplicate", id=slot.id, label=job.label, dedupe_key=job.dedupe_key)
                self._settle(queue, Duplicate(slot), job)

    def _place(
        self,
        queue: Queue,
        slot: Slot,
        now: float,
        now_ms: int,
        *,
        job: Job | None = None,
        answers: Answers = _NOTHING,
    ) -> None:
        """Do what `admit` says at `now`, by the own clock, and `now_ms`, by that of Redis.

        `job`: what the slot holds, where that is known and may go on; `answers`: what DNS was asked
        for it already, by domain.
        """
        try:
            if job is None:
                job = decode(slot.payload)
                if len(slot.payload) > _KEPT and not (type(job) is Email and job.recipients[1:]):
                    slot.let_go()
                if job.dedupe_key is not None and "/" not in slot.id:
                    self._claiming.append((slot, job))
                    return
            found = self._admit(queue, slot, job, answers, now, now_ms)
        except PayloadError as error:
            self._bury(queue, slot, str(error), job)
            return
        except Exception as error:  # noqa: BLE001 - one job's surprise is not the batch's
            self._postpone(queue, slot, error, job)
            return
        if found is not None:
            lane, delivery = found
            lane.put(delivery)

    def _postpone(self, queue: Queue, slot: Slot, error: Exception, job: Job | None) -> None:
        log.error("admission_broke", id=slot.id, why=repr(error))
        record = postponed(slot, error, self._settings)
        if job is None:
            self._settler.add(queue, record)
        else:
            self._settle(queue, record, job)

    def _go_on(self, delivery: Delivery, answers: Answers | Exception) -> None:
        """Do what `admit` says of a mail for which DNS has been asked."""
        queue, slot = delivery.queue, delivery.slot
        if isinstance(answers, Exception):
            self._postpone(queue, slot, answers, delivery.email)
        else:
            now, now_ms = time.monotonic(), self._clock.now_ms()
            self._place(queue, slot, now, now_ms, job=delivery.email, answers=answers)

    def reroute(self, deliveries: list[Delivery]) -> None:
        """Find another place for deliveries whose lane has closed."""
        now = time.monotonic()
        for delivery in deliveries:
            route = self._lanes.routes.get(delivery.route)
            if route is None or not delivery.is_mine():
                # Redis passes it over when the slot is another's; else it is taken anew.
                self.release(delivery.queue, delivery.slot)
            elif lane := route.choose(now) or self._lanes.overtake(route, delivery, now):
                lane.put(delivery)
            else:
                self._park(delivery.queue, delivery.slot, delivery.route, now)

    def split(self, delivery: Delivery, most: int) -> None:
        """Make several of a delivery whose host takes `most` recipients at a time."""
        self._split(delivery.queue, delivery.slot, delivery.email, delivery.left(), most)

    def release(self, queue: Queue, slot: Slot) -> None:
        """Give a slot back untouched: it is taken first by whoever takes next."""
        self._settler.add(queue, Release(slot, slot.state))

    def _release_all(self, queue: Queue, slots: Sequence[Slot]) -> None:
        for slot in slots:
            self.release(queue, slot)

    def _admit(
        self, queue: Queue, slot: Slot, job: Job, answers: Answers, now: float, now_ms: int
    ) -> tuple[Lane, Delivery] | None:
        """Return lane and delivery, or None when the slot was settled, or DNS is asked.

        Raises PayloadError with the reason of a dead letter.
        """
        has_time = job.expires_at_ms is not None or job.send_at_ms is not None
        if has_time and self._is_early(queue, slot, job, now_ms):
            return None
        if not isinstance(job, Email) or not self._settings.relays:
            self._hand_over(queue, slot, job, now_ms)
            return None
        recipients = slot.state.rcpt or job.recipients
        relay = job.relay or DEFAULT_RELAY
        if self._signpost is not None and job.relay is None:
            relays = self._signpost.relays_of(job, recipients)
            if len(relays) > 1:
                self._check_age(slot, job, now_ms, None)
                parting = Delivery(queue, slot, job, recipients, _NOBODY, "")
                self._crossroads.divide(parting, answers, self._signpost)
                return None
            relay = relays.pop()
        route = self._lanes.routes.get(relay)
        if route is None or relay in self._lanes.guests:
            raise self._unknown(relay)
        # Most are as fresh as can be: without three calls for them, 0.3 us.
        if slot.state is not FRESH or now_ms - slot.first_seen_ms > self._max_age_ms:
            self._check_age(slot, job, now_ms, route)
        sender = job.sender or self._senders[route.name]
        if sender is None:
            require_reverse_path(job)
        delivery = Delivery(queue, slot, job, recipients, sender or _NOBODY, route.name)
        if isinstance(route, Direct):
            site = self._crossroads.one_site(route, delivery, answers, now)
            if site is None:
                return None
            route = site
            delivery.route = route.name
        many = len(recipients)
        if many > 1 and many > (most := min(self._settings.max_recipients, route.most_recipients)):
            self._split(queue, slot, job, recipients, most)
            return None
        row = self._rows.get(route) if self._rows is not None else None
        if row is not None and row.left > 0:  # behind the first of a batch: 0.6 us less
            row.left -= 1
            row.deliveries.append(delivery)
            return None
        return self._choose(route, delivery, row, now)

    def _choose(
        self, route: Route, delivery: Delivery, row: _Row | None, now: float
    ) -> tuple[Lane, Delivery] | None:
        """Return the lane that takes the delivery, or None when it was parked, or is in a row.

        `row`: what has been chosen of this route in this batch, as much as its lane takes.
        """
        if row is not None:
            full, row.deliveries = row.deliveries, []
            row.lane.put_all(full)
        lane = route.choose(now) or self._lanes.overtake(route, delivery, now)
        if lane is None:
            self._meet_in_vain(delivery.queue, delivery.slot, route, now)
            return None
        if self._rows is None or (most := route.more_for(lane, now)) < 1:
            return lane, delivery
        self._rows[route] = _Row(lane, most - 1, [delivery])
        return None

    def _is_early(self, queue: Queue, slot: Slot, job: Job, now_ms: int) -> bool:
        """Delay a job that is not due yet, and say whether that was done; refuse one too late."""
        if job.expires_at_ms is not None and job.expires_at_ms <= now_ms:
            raise PayloadError("expired: expires_at had passed before it could be sent")
        if job.send_at_ms is None or job.send_at_ms <= now_ms:
            return False
        metrics.count("scheduled")
        self._settler.add(queue, Retry(slot, job.send_at_ms - now_ms, slot.state))
        return True

    def _meet_in_vain(self, queue: Queue, slot: Slot, route: Route, now: float) -> None:
        if route.relay in self._lanes.directs:
            self._lanes.directs[route.relay].note_met(now)
        self._park(queue, slot, route.name, now)

    def _hand_over(self, queue: Queue, slot: Slot, job: Job, now_ms: int) -> None:
        if isinstance(job, Email):
            self._leave(queue, slot, job, now_ms)
            return
        route = self._carriers.route_of(job)
        self._check_age(slot, job, now_ms, route)
        if slot.suspect and slot.deaths < _GUILTY:
            # It was read alone; should it take minutes, all mail would wait for it.
            self._settler.add(queue, Retry(slot, _CLEARED_MS, slot.state))
        elif not self._carriers.put(Task(queue, slot, job=job, route=route.name), route):
            self._park(queue, slot, route.name, time.monotonic())

    def _leave(self, queue: Queue, slot: Slot, job: Email, now_ms: int) -> None:
        """Leave a mail to workers that have a relay: this one does tasks alone."""
        self._check_age(slot, job, now_ms, None)
        if not self._is_left_told:
            self._is_left_told = True
            log.warning("mail_left", id=slot.id, hint="no relay is set here: only tasks are done")
        state = msgspec.structs.replace(slot.state, last="met a worker without any relay")
        self._settler.add(queue, Retry(slot, _LEFT_MS, state))

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Park tasks that were not begun until their route has room."""
        now = time.monotonic()
        for task in tasks:
            if task.is_mine():
                self._park(task.queue, task.slot, task.route, now)
            else:
                self.release(task.queue, task.slot)

    def _unknown(self, relay: str) -> PayloadError:
        guests = self._lanes.guests
        known = names(each for name, each in self._lanes.routes.items() if name not in guests)
        return PayloadError(f"relay {relay!r} is not known; known: {known}")

    def stop_searching(self) -> None:
        """Give back what waits for DNS."""
        for queue, slot in self._crossroads.stop():
            self.release(queue, slot)

    # ---- settled at once

    def _check_age(self, slot: Slot, job: Job, now_ms: int, route: Route | None) -> None:
        max_age_s = self._settings.max_age_s
        if is_too_old(since_ms(slot, job), now_ms, max_age_s=max_age_s):
            said = route.last_error() if route is not None else None
            why = said or slot.state.last or "the host never took it"
            raise PayloadError(f"older than {max_age_s:g} s: {why}")

    def _split(
        self, queue: Queue, slot: Slot, job: Email, recipients: Sequence[str], most: int
    ) -> None:
        metrics.count("split")
        self._settle(queue, Split(slot, parts_of(slot, recipients, most)), job)

    def _settle(self, queue: Queue, record: Record, job: Job) -> None:
        self._settler.add(queue, self._settler.callbacks.after(record, job))

    def _park(self, queue: Queue, slot: Slot, name: str, now: float) -> None:
        route = self._lanes.routes.get(name)
        error = route.last_error() if route is not None else None
        again_in_s = (route.opens_in_s(now) if route is not None else 0.0) or FULL_AGAIN_S
        if slot.state is FRESH or slot.state is TOLD:  # thousands of mails, one state: 1.5 us each
            state = parked_state(name, error, told=slot.state.told)
            self._shut.note(name, now)
        else:
            state = msgspec.structs.replace(slot.state, route=name, last=error or slot.state.last)
        record = Park([slot], name, int(again_in_s * 1000), state)
        self._note_parked(queue, record)
        self._settler.add(queue, record)

    def _bury(self, queue: Queue, slot: Slot, reason: str, job: Job | None = None) -> None:
        metrics.count("dead")
        log.warning("dead", id=slot.id, why=reason)
        record = Dead(slot, dead_state(slot, reason, self._clock.now_ms()))
        if job is None:
            self._settler.add(queue, record)
        else:
            self._settle(queue, record, job)
