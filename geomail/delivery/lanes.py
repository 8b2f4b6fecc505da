"""The lanes together: their routes, what the popper asks of them, one watchdog, and the end.

`staff()` wakes a sender for a lane with work, or has one started (staffing says for whom there is
one). The watchdog looks a few times a second at the deadline of every session and at who wants how
much; nothing else in a message's way holds a timer, and nothing that happens to one message looks
at all lanes.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event

from geomail import log
from geomail.config import Settings
from geomail.delivery.alarms import Alarms
from geomail.delivery.delivery import Delivery
from geomail.delivery.direct import Direct
from geomail.delivery.host.ceilings import CeilingsOf, Shelf
from geomail.delivery.lane import Lane, Progress, Report
from geomail.delivery.limits.limited import Limited
from geomail.delivery.ranked import relay_route
from geomail.delivery.route import Route
from geomail.delivery.sender import Sender
from geomail.delivery.session.transport import Terms
from geomail.delivery.staffing import Staffing
from geomail.job.payload import MAX_BYTES
from geomail.queue import Limiter

_WATCH_S = 0.25
_GOODBYE_S = 0.5


class Lanes:
    """All lanes of a worker, and the Pool that their senders share."""

    def __init__(
        self,
        settings: Settings,
        *,
        report: Report,
        progress: Progress,
        stranded: Callable[[list[Delivery]], None],
        split: Callable[[Delivery, int], None],
        limiter: Limiter | None = None,
        ceilings: Shelf | None = None,
    ) -> None:
        """Build the lanes.

        `report` gets what became of each delivery; `progress` who was delivered of one that goes
        on; `stranded` those that a lane can't keep; `split` one that has to become several, and how
        many recipients each may have. `limiter`: by whom workers agree on limits; `ceilings`: where
        what hosts take is kept; None: nowhere.
        """
        self.settings = settings
        self.report = report
        self.progress = progress
        self.stranded = stranded
        self.split = split
        self.is_draining = False
        self.bytes_in_hand = self.tasks_in_hand = 0
        self.bytes_of: Counter[str] | None = None  # by list, where there are several
        self.weights = dict(settings.queues)
        self._total_weight = sum(self.weights.values())
        self.has_several_lists = len(self.weights) > 1
        if self.has_several_lists:
            self.bytes_of = Counter()
        self.share = settings.concurrency
        self.staffing = Staffing(self)
        self.news = Event()
        self.is_full = False  # somebody waits for room
        self.idle: dict[Sender, None] = {}  # the one that is idle longest comes first
        self.goodbyes: dict[Sender, float] = {}  # who waits for an answer to QUIT, since when
        self.ceilings = CeilingsOf(ceilings)
        self._alarms = Alarms(self._reopen)
        self._busy, self._busy_when_shared = 0, 0  # lanes with work
        self.lanes: list[Lane] = []
        self.routes: dict[str, Route] = {}
        self.guests: dict[str, Route] = {}  # of tasks, which have no lanes
        self.directs: dict[str, Direct] = {}
        self.limited = Limited(limiter, self)
        self._relays: list[Route] = []  # routes, without those to sites
        self.configure(settings)
        self._watchdog = gevent.spawn(self._watch)

    def configure(self, settings: Settings) -> None:
        """Build the routes that `settings` name; a lane whose host stays keeps all it has learnt.

        One that backs off is tried at once: what was wrong may be what was changed. A lane that is
        no longer named finishes what it holds, and gets nothing new. Raises ConfigError where a
        relay `mx` has no name server to ask; then nothing has changed.
        """
        self.directs = {
            relay.name: Direct(relay, settings, self, self.directs.get(relay.name))
            for relay in settings.relays.values()
            if relay.is_direct
        }
        known = {(lane.terms.relay.name, lane.name): lane for lane in self.lanes}
        self.settings = settings
        self.routes = {}
        self.lanes = [lane for lane in self.lanes if lane.in_hand or lane.senders]
        for direct in self.directs.values():
            self.routes |= {direct.name: direct, **direct.routes}
        for relay in settings.relays.values():
            if relay.is_direct:
                continue
            lanes = []
            for member in relay.members:
                terms = Terms(member, relay, settings)
                name = f"{member.host}:{member.port}"
                lane = known.get((relay.name, name)) or Lane(terms, self)
                if lane not in self.lanes:
                    self.lanes.append(lane)
                lane.terms = lane.ways.terms = terms
                lane.health.forgive()
                lanes.append(lane)
            route = self.routes[relay.name] = relay_route(relay.name, lanes, relay.weights)
            self.limited.apply(route, relay.limits.general)
        self._relays = [route for route in self.routes.values() if route.is_whole]
        self.routes |= self.guests
        self._share_anew()
        self.news.set()

    # ---- what the popper asks

    def room(self) -> int:
        """Return how many more deliveries all open lanes can use soon."""
        if not self.bytes_to_take():
            return 0
        now = time.monotonic()
        return sum(route.room(now) for route in self._relays)

    def room_for(self, name: str, share: float) -> int:
        """Return how many more of a list whose part is `share` may come, however full lanes are."""
        now = time.monotonic()
        return sum(route.room_for(name, share, now) for route in self._relays)

    def bytes_to_take(self, name: str | None = None) -> int:
        """Return how many bytes of payloads may be taken at once now; 0: none at all.

        As much is kept free as the largest payload may have that comes alone, but a quarter at
        most: so `memory_mb` is kept to, unless a payload is larger than a quarter of it. A list,
        given its `name`, that holds more than its part leaves as much again to the others.
        """
        most = self.settings.memory_mb * 1_000_000
        free = most - self.bytes_in_hand
        kept = min(MAX_BYTES, most // 4)
        if name is not None and self._holds_much(name, most):
            kept *= 2
        if free < kept:
            return 0
        return min(free, self.settings.take_mb * 1_000_000)

    def _holds_much(self, name: str, most: int) -> bool:
        if self.bytes_of is None:
            return False
        return self.bytes_of[name] * self._total_weight > most * self.weights.get(name, 1)

    def overtake(self, route: Route, delivery: Delivery, now: float) -> Lane | None:
        """Return a lane that is full, but not for the delivery's list, or None."""
        return route.overtake(delivery.queue.name, now) if self.has_several_lists else None

    def shown(self) -> str:
        """Return all hosts that the settings name, for a log line."""
        named = [lane.name for route in self.routes.values() for lane in route.lanes]
        return ",".join([*dict.fromkeys(named), *("mx" for _ in self.directs)])

    def in_hand(self) -> int:
        """Return how many deliveries are ready or under way."""
        searching = sum(direct.searching for direct in self.directs.values())
        return searching + self.tasks_in_hand + sum(lane.in_hand for lane in self.lanes)

    def want_more(self) -> None:
        """Wake a popper that waits for room: a lane runs low."""
        if self.is_full:
            self.news.set()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a lane may have room again, or for other news; False if in vain."""
        if self.has_several_lists:
            for lane in self.lanes:
                lane.mark_low()
        self.is_full = True
        is_told = self.wait_for_news(timeout_s)
        self.is_full = False
        return is_told

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until `news` is set (a closed lane opened, or the owner's own); False if in vain."""
        is_told = self.news.wait(timeout_s)
        self.news.clear()
        return bool(is_told)

    # ---- routes that come and go

    def list_lanes(self, route: Route) -> None:
        """Let a site's lanes have their share of the Pool."""
        self.lanes += route.lanes

    def list_lanes_no_more(self, routes: Iterable[Route]) -> None:
        """Let the lanes of sites go; nothing is in hand there, and no connection is left."""
        gone = {lane for route in routes for lane in route.lanes}
        self.lanes[:] = [lane for lane in self.lanes if lane not in gone]

    def searched(self, relay: str, name: str, domains: int) -> None:
        """Note that so many domains of a list's mail are looked up no more for a relay `mx`."""
        if relay in self.directs:
            self.directs[relay].searching -= domains
            self.directs[relay].searching_of[name] -= domains
        self.news.set()

    # ---- who gets a sender

    def note_busy(self, more: int) -> None:
        """Note that so many lanes more have work."""
        self._busy += more
        if self._busy > 2 * self._busy_when_shared:
            self._share_anew()

    def _share_anew(self) -> None:
        """Set how many senders a lane may have: what is left where others want less."""
        before, self.share = self.share, self.staffing.share()
        self._busy_when_shared = self._busy
        if self.share > before:
            for lane in [lane for lane in self.lanes if lane.ready]:
                self.staff(lane)

    def staff(self, lane: Lane) -> None:
        """Wake or start senders for `lane` while it has work for more and may have more."""
        if lane.limits is not None or lane.brake is not None:
            lane.stir()
        elif lane.idle:
            self.wake(lane, len(lane.ready))
        # Where a lane has its share, as nearly always, staffing would find that out for 0.5 us.
        if len(lane.ready) > lane.connecting and len(lane.senders) < self.share:
            self.staffing.staff_up(lane)

    def wake(self, lane: Lane, most: int) -> int:
        """Wake idle senders of `lane`, `most` at most; return how many."""
        found = min(most, len(lane.idle))
        for _ in range(found):
            sender, _none = lane.idle.popitem()
            del self.idle[sender]
            sender.wake()
        return found

    # ---- time

    def chance(self) -> float:
        """Return a random number in [0, 1) for jitter."""
        return random.random()  # noqa: S311 - jitter is no secret

    def reopen_later(self, lane: Lane, delay_s: float) -> None:
        """Look at `lane` again when its back-off, or its pause, ends."""
        self._alarms.set(lane, delay_s)

    def _reopen(self, lane: Lane) -> None:
        early_s = lane.health.connects_from - time.monotonic()
        if early_s > 0.0:  # closed for longer meanwhile
            self.reopen_later(lane, early_s)
        self.staff(lane)
        self.news.set()

    def _watch(self) -> None:
        while True:
            gevent.sleep(_WATCH_S)
            try:
                self._look(time.monotonic())
            except Exception as error:  # noqa: BLE001 - the top of a greenlet
                log.error("watchdog_broke", why=repr(error))

    def _look(self, now: float) -> None:
        for lane in self.lanes:
            for sender in tuple(lane.senders):
                sender.check_deadline(now)
        for lane in self.lanes:
            lane.pulse.note(now, lane.begun)
            if refused := lane.refusals.overdue(now):
                gevent.spawn(lane.bury, refused)  # a fault in there is not the watchdog's
        if self.is_draining:
            return
        for direct in self.directs.values():
            direct.tidy(now)
        self._share_anew()
        self.staffing.staff_needy()
        self._part(now)
        for lane in [lane for lane in self.lanes if lane.is_silent(now)]:
            lane.fail("connections that have mail are answered nothing", began=now)

    def _part(self, now: float) -> None:
        """Wait no more for answers to QUIT where the place is needed."""
        is_full = self.staffing.is_full
        for sender, since in tuple(self.goodbyes.items()):
            if now > since + _GOODBYE_S and (is_full or sender.lane.ready):
                sender.part()

    # ---- the end

    def stop(self) -> list[Delivery]:
        """Begin nothing more; return what was ready and not begun."""
        self.is_draining = True
        for lane in self.lanes:
            for sender in tuple(lane.senders):
                sender.dismiss()
            lane.bury(lane.refusals.release())
        return self._unbegun()

    def join(self, timeout_s: float, *, last_s: float) -> list[Delivery]:
        """Wait for what is on the wire; return what turned out not to have been sent at all.

        The last `last_s` of `timeout_s` are for connections that hang: they are cut, and judged as
        after a time-out. Connections that carry no message yet are not waited for.
        """
        gevent.joinall(self._working(), timeout=max(0.0, timeout_s - last_s))
        for sender in self._working():
            sender.cut_off()
        gevent.joinall(self._working(), timeout=last_s)
        self._watchdog.kill()
        return self._unbegun()

    def _working(self) -> list[Sender]:
        return [sender for lane in self.lanes for sender in lane.senders if sender.is_live]

    def _unbegun(self) -> list[Delivery]:
        return [delivery for lane in self.lanes for delivery in lane.empty()]
