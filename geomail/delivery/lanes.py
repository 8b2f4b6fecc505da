"""The lanes together: one Pool of senders shared by need, one watchdog, one say in who gets more.

`staff()` starts a sender where a lane has more work than senders and may have one more;
`staff_all()` does so for every lane, whenever a sender has left. The watchdog looks at the
deadline of every session a few times a second; nothing else in a message's way holds a timer.
"""

import random
import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.pool import Pool

from geomail.config import Settings
from geomail.delivery.lane import Delivery, Lane, Report, by_need
from geomail.delivery.route import Route
from geomail.delivery.sender import Sender
from geomail.delivery.transport import Terms

_WATCH_S = 0.25


class Lanes:
    """All lanes of a worker, and the Pool that their senders share."""

    def __init__(
        self, settings: Settings, *, report: Report, stranded: Callable[[list[Delivery]], None]
    ) -> None:
        self.settings = settings
        self.report = report
        self.is_draining = False
        self._stranded = stranded
        self._pool = Pool(settings.concurrency)
        self._hungry = Event()
        self.lanes: list[Lane] = []
        self.routes: dict[str, Route] = {}
        self.configure(settings)
        self._watchdog = gevent.spawn(self._watch)

    def configure(self, settings: Settings) -> None:
        """Build the routes that `settings` name; a lane whose host stays keeps all it has learnt.

        A lane that is no longer named finishes what it holds, and gets nothing new.
        """
        known = {(lane.terms.relay.name, lane.name): lane for lane in self.lanes}
        self.settings = settings
        self.routes = {}
        for relay in settings.relays.values():
            lanes = []
            for member in relay.members:
                terms = Terms(member, relay, settings)
                lane = known.get((relay.name, f"{member.host}:{member.port}"))
                if lane is None:
                    lane = Lane(terms, self)
                    self.lanes.append(lane)
                lane.terms = terms
                lanes.append(lane)
            self.routes[relay.name] = Route(relay.name, lanes)

    # ---- what the popper asks

    def room(self) -> int:
        """Return how many more deliveries all open lanes can use soon."""
        now = time.monotonic()
        return sum(lane.room(now) for lane in self.lanes)

    def in_hand(self) -> int:
        """Return how many deliveries are ready or under way."""
        return sum(lane.in_hand for lane in self.lanes)

    def want_more(self) -> None:
        """Wake the popper: a lane runs low, or opened."""
        self._hungry.set()

    def wait_for_room(self, timeout_s: float) -> None:
        """Return when a lane may have become hungry, or after `timeout_s`."""
        self._hungry.wait(timeout_s)
        self._hungry.clear()

    # ---- who gets a sender

    def share(self) -> int:
        """Return how many senders a lane may have: the Pool over the lanes with work."""
        busy = sum(1 for lane in self.lanes if lane.in_hand)
        size = self.settings.concurrency
        return max(1, size // max(1, busy) if busy > 1 else size - self._reserve())

    def staff(self, lane: Lane) -> None:
        """Start a sender for `lane` where it has work for one and may have one."""
        now = time.monotonic()
        senders = len(lane.senders)
        if not lane.ready or senders >= lane.window.size or lane.backoff.is_closed(now):
            return
        free = self._pool.free_count()
        if senders == 0:
            if free == 0:
                self._make_place()
                return
        elif senders >= self.share() or free <= self._reserve():
            return
        sender = Sender(lane)
        lane.senders.add(sender)
        self._pool.start(sender)
        sender.rawlink(self._sender_left)  # behind the Pool's own link: it counts no more

    def staff_all(self) -> None:
        """Start senders wherever one is due, the neediest lane first."""
        for lane in by_need(self.lanes):
            self.staff(lane)

    def _sender_left(self, sender: Sender) -> None:
        lane = sender.lane
        lane.senders.discard(sender)
        if self.is_draining:
            return
        if lane.ready and not lane.is_open(time.monotonic()):
            self._stranded(lane.empty())
        self.staff_all()
        self.want_more()

    def _reserve(self) -> int:
        return max(1, self.settings.concurrency // 10) if len(self.lanes) > 1 else 0

    def _make_place(self) -> None:
        idle = [sender for lane in self.lanes for sender in lane.idle]
        if idle:
            min(idle, key=lambda sender: sender.idle_since).dismiss()
            return
        richest = max(self.lanes, key=lambda lane: len(lane.senders) - lane.leaving)
        if len(richest.senders) - richest.leaving > 1:
            richest.leaving += 1

    # ---- time

    def chance(self) -> float:
        """Return a random number in [0, 1) for jitter."""
        return random.random()  # noqa: S311 - jitter is no secret

    def reopen_later(self, lane: Lane, delay_s: float) -> None:
        """Look at `lane` again when its back-off ends."""
        gevent.spawn_later(delay_s + 0.001, self._reopen, lane)

    def _reopen(self, lane: Lane) -> None:
        self.staff(lane)
        self.want_more()

    def _watch(self) -> None:
        while True:
            gevent.sleep(_WATCH_S)
            now = time.monotonic()
            for lane in self.lanes:
                for sender in tuple(lane.senders):
                    sender.check_deadline(now)

    # ---- the end

    def drain(self, timeout_s: float) -> list[Delivery]:
        """Stop: finish what is on the wire, return what was not begun.

        Waits at most `timeout_s` for the senders; those that are not done by then are left alone.
        """
        self.is_draining = True
        waiting = [delivery for lane in self.lanes for delivery in lane.empty()]
        for lane in self.lanes:
            for sender in tuple(lane.idle):
                sender.dismiss()
        self._pool.join(timeout=timeout_s)
        self._watchdog.kill()
        return waiting + [delivery for lane in self.lanes for delivery in lane.empty()]
