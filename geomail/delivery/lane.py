"""A lane: everything that concerns one host, and nothing that concerns another.

Its ready queue holds deliveries that this worker owns; its senders are greenlets, each with one
connection of its own (sender.py). What goes wrong with the host stays here, and host/health.py says
what it means. While the lane is closed nothing waits inside: what was ready goes back to the route,
to the next lane or to Redis.

    open      connections may be made, deliveries are taken
    closed    after failures with no connection left that works; until the back-off ends
    probing   open again, for one connection and one delivery, until a message is through

A lane whose host has not answered a mail yet, or whose route is held, wants little or nothing.

What a lane knows of its host outlives connections and failures: how it wants to be talked to
(ways), how many connections it takes (window), and what it refuses to everybody (refusals).
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from geomail import log, metrics
from geomail.delivery.crew import Crew
from geomail.delivery.delivery import Delivery
from geomail.delivery.host.health import Health, Trouble
from geomail.delivery.host.refusals import HOLD_S, Refusals, Ruling
from geomail.delivery.host.ways import Ways
from geomail.delivery.host.window import START
from geomail.delivery.limits.slowing import Pulse
from geomail.delivery.outcome import Outcome
from geomail.delivery.pace import Backoff
from geomail.delivery.ready import AnyReady, places, ready_for
from geomail.delivery.session.transport import Terms

if TYPE_CHECKING:
    from geomail.delivery.lanes import Lanes
    from geomail.delivery.limits.brake import Brake
    from geomail.delivery.limits.limits import RouteLimits

_OVERFLOW = 4
_MOST_ASKED = 256
_SILENCE_S = 60.0


Report = Callable[[Delivery, list[Outcome], "Lane"], None]
Progress = Callable[[Delivery, list[tuple[str, Outcome]], "Lane"], None]
Refused: TypeAlias = tuple[Delivery, list[Outcome]]


class Lane(Crew):
    """One host: ready deliveries, senders, back-off and window."""

    def __init__(self, terms: Terms, house: "Lanes") -> None:
        super().__init__(house)
        settings = house.settings
        self.terms = terms
        self.name = f"{terms.member.host}:{terms.member.port}"
        self.ready: AnyReady[Delivery] = ready_for(house.weights)
        self.in_hand = 0
        self.low = -1  # with so many in hand the popper wants to know, too
        self.demand = 0
        self.is_held = False
        self.health = Health(
            self.name,
            terms.relay.name,
            most=settings.concurrency,
            backoff_base_s=settings.backoff_base_s,
            backoff_cap_s=settings.backoff_cap_s,
        )
        self.delivered = self.failed = 0  # for people only: counted by whoever settles
        self.clear_until = 0.0
        self.is_warned = False
        self.ways = Ways(self.name, terms)
        self.most_mails = sys.maxsize  # of one connection, as far as that was learnt
        # A burst ends when nothing is in hand: nobody is kept waiting for it to be sure.
        self.refusals: Refusals[Refused] = Refusals(hold_s=1.0 if settings.burst else HOLD_S)
        self.most_allowed = self.most_recipients = sys.maxsize  # of a connection, a transaction
        self.limits: RouteLimits | None = None
        self.brake: Brake | None = None
        self.begun, self.busy_since = 0, 0.0
        self.pulse = Pulse(time.monotonic())
        self._has_asked = False

    # ---- questions

    @property
    def is_well(self) -> bool:
        """True when no failure is remembered."""
        return self.health.is_well

    @property
    def backoff(self) -> Backoff:
        """Return for how long the host is left alone."""
        return self.health.backoff

    @property
    def last_error(self) -> str | None:
        """Return what the host said when it failed last, while that is not made good."""
        return self.health.last_error

    def is_open(self, now: float) -> bool:
        """Return whether deliveries may be given to this lane at `now`."""
        if self.limits is not None and not self.limits.is_open(now):
            return False
        return now >= self.health.backoff.until

    def opens_at(self, now: float) -> float:
        """Return the time from which this lane is open."""
        if self.is_open(now):
            return now
        return max(self.backoff.until, self.limits.opens_at() if self.limits is not None else 0.0)

    def room(self, now: float) -> int:
        """Return how many more deliveries this lane can use soon."""
        if not self.is_open(now):
            return 0
        return max(0, self._wanted() - self._under_way())

    def room_for(self, name: str, share: float, now: float) -> int:
        """Return how many of a list whose part is `share` may come, however many others have."""
        if not self.is_open(now) or self.health.is_probing:
            return 0
        on_the_wire = self._under_way() - len(self.ready)
        due = places(wanted=self._wanted(), on_the_wire=on_the_wire, share=share)
        return max(0, due - self.ready.waiting(name))

    def mark_low(self) -> None:
        """Let the popper know when half of what the lane wants has gone from here on."""
        self.low = self.in_hand - max(1, self._wanted() // 2)

    def has_place(self, now: float) -> bool:
        """Return whether one more delivery may wait here; some more than `room()` says."""
        return self.free_places(now) > 0

    def free_places(self, now: float) -> int:
        """Return how many more deliveries may wait here; 0 or less where none may."""
        if not self.is_open(now):
            return 0
        is_free = self.limits is None and self.brake is None
        most = self._wanted() * (_OVERFLOW if is_free else self._overflow())
        return (1 if self.health.is_probing else most) - self.in_hand + self.refusals.held

    def has_place_for(self, name: str, now: float) -> bool:
        """Return whether one more of a list may come, however many others have here."""
        return self.room_for(name, self.ready.share(name), now) > 0

    @property
    def is_paced(self) -> bool:
        """True when what is ready waits for its time by a rate, and for nothing else."""
        return bool(self.limits and self.limits.has_rate and self.ready and self.idle)

    @property
    def has_window_full(self) -> bool:
        """True when no more connections may be made than there are.

        Those from before the last failure don't count while nothing works: they may wait for an
        answer that never comes, and stand in no probe's way.
        """
        health = self.health
        return len(self.senders) - (self.behind if health.is_probing else 0) >= health.window.size

    def is_silent(self, now: float) -> bool:
        """Return whether connections that have mail have been answered nothing for long."""
        since = max(self.health.heard_at, self.health.last_failure_at, self.busy_since)
        if now < since + _SILENCE_S or self._under_way() <= len(self.ready):
            return False
        return len(self.senders) > len(self.idle) + self.connecting + self.behind

    def _under_way(self) -> int:
        # What waits to know whose refusal it has is in nobody's way: the next one may decide it.
        return self.in_hand - self.refusals.held

    def _wanted(self) -> int:
        health = self.health
        if health.is_probing:
            return 1
        # Asked twice a mail. What is plainer than pretty here (no min, no properties) saves 0.3 us.
        most, share = health.window.size, self.house.share
        connections = most if most < share else share  # noqa: FURB136 - min() takes 50 ns more
        wanted = self.ways.deliveries_for(connections, is_proved=health.heard_at > 0.0)
        if self.limits is None and self.brake is None:
            return wanted
        return self._wanted_at_most(wanted)

    def _overflow(self) -> int:
        # What waits for its time here could go elsewhere meanwhile.
        is_paced = self.brake is not None or (self.limits is not None and self.limits.has_rate)
        return 1 if is_paced else _OVERFLOW

    def _wanted_at_most(self, wanted: int) -> int:
        now = time.monotonic()
        if self.limits is not None:
            wanted = min(wanted, self.limits.most_in_hand(now, self.ways.depth))
        return wanted if self.brake is None else min(wanted, self.brake.most_in_hand(now))

    def wants_more(self) -> bool:
        """Return whether so much is gone that asking for more is worth it."""
        wanted = self._wanted()
        free = wanted - self.in_hand + self.refusals.held
        return free >= _MOST_ASKED or 2 * free >= wanted

    # ---- how fast

    def may_begin(self, now: float) -> bool:
        """Return whether one more mail may go now; then it counts, unless it is `not_begun`."""
        if self.brake is not None and not self.brake.is_off(now):
            return False
        if self.limits is not None and not self.limits.spend(now):
            return False
        if self.brake is not None:
            self.brake.spend(now)
        return True

    def not_begun(self, now: float) -> None:
        """Take back what `may_begin` has counted."""
        if self.limits is not None:
            self.limits.refund(now)

    def may_connect(self) -> bool:
        """Return whether limits allow one more connection; if not, it is made when they do."""
        if self.brake is not None and self.senders and (self.idle or self.connecting):
            return False
        return self.limits is None or self.limits.may_connect(self, time.monotonic())

    def missing_senders(self) -> int:
        """Return how many more connections what is ready has use for."""
        most = min(self.health.window.size, self.house.share) - len(self.senders)
        return max(0, min(most, len(self.ready) - len(self.idle) - self.connecting))

    def stir(self) -> None:
        """Have idle senders woken when mails may go."""
        if self.limits is not None:
            self.limits.stir()
        if self.brake is not None:
            self.brake.stir(time.monotonic())
        elif self.limits is not None and not self.limits.has_rate:
            self.house.wake(self, len(self.ready))

    # ---- deliveries come and go

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery."""
        self.put_all([delivery])

    def put_all(self, deliveries: list[Delivery]) -> None:
        """Queue deliveries of one list; wake idle senders, or start some where more may be."""
        if not deliveries:
            return
        house, ready, weight = self.house, self.ready, 0
        for delivery in deliveries:
            weight += delivery.slot.size or len(delivery.slot.payload)
            ready.append(delivery)
        self.in_hand += len(deliveries)
        if self.in_hand == len(deliveries):
            self.busy_since = time.monotonic()
            house.note_busy(1)  # asks for shares: what is in hand counts there
        house.bytes_in_hand += weight
        if house.bytes_of is not None:
            house.bytes_of[deliveries[0].queue.name] += weight
        house.staff(self)

    def give_back(self, delivery: Delivery, *, in_front: bool = True) -> None:
        """Put a delivery back: it counts as never taken. Not in front: others are tried first."""
        if self.is_held:
            self._let_go(delivery)
            self.house.stranded([delivery])
            return
        if in_front:
            self.ready.appendleft(delivery)
        else:
            self.ready.append(delivery)
        self.house.staff(self)

    def done(self, delivery: Delivery, outcomes: list[Outcome]) -> None:
        """Report what became of a delivery."""
        if delivery.set_aside:
            outcomes = delivery.rejoin(outcomes)
        house = self.house
        self._let_go(delivery)
        house.report(delivery, outcomes, self)
        if house.is_full and (self.in_hand <= self.low or self.wants_more()):
            house.want_more()

    def go_on(self, delivery: Delivery, outcomes: list[Outcome], surplus: list[int]) -> None:
        """Note who was delivered; only the recipients at `surplus` are left to send to."""
        self.house.progress(delivery, delivery.narrow(outcomes, surplus), self)

    def drop(self, delivery: Delivery) -> None:
        """Give up a delivery whose lease is lost: Redis knows whose it is by now."""
        metrics.count("lease_lost")
        log.warning("lease_lost", id=delivery.slot.id, host=self.name)
        self._let_go(delivery)
        self.house.stranded([delivery])

    def split(self, delivery: Delivery, most: int) -> None:
        """Give up a delivery that has to become several, of `most` recipients each."""
        self._let_go(delivery)
        self.house.split(delivery, most)

    def hold(self, *, on: bool) -> list[Delivery]:
        """Send nothing that is not begun, until told otherwise; return what has to leave."""
        self.is_held = on
        return self.empty() if on else []

    def empty(self, *, but: int = 0) -> list[Delivery]:
        """Return all ready deliveries `but` so many, which are kept."""
        kept = [self.ready.popleft() for _ in range(min(but, len(self.ready)))]
        taken = self.ready.drain()
        for delivery in reversed(kept):
            self.ready.appendleft(delivery)
        for delivery in taken:
            self._let_go(delivery)
        return taken

    def _let_go(self, delivery: Delivery) -> None:
        house, slot = self.house, delivery.slot
        weight = slot.size or len(slot.payload)
        self.in_hand -= 1
        if self.in_hand == 0:
            house.note_busy(-1)
        house.bytes_in_hand -= weight
        if house.bytes_of is not None:
            house.bytes_of[delivery.queue.name] -= weight

    # ---- the host's health

    def succeed(self) -> None:
        """A message was answered, whatever became of it: the host is well."""
        health, now = self.health, time.monotonic()
        health.heard_at = now
        if now >= health.calm_until:
            self._recover(now)

    def _recover(self, now: float) -> None:
        health, is_used = self.health, self.has_window_full and len(self.ready) > self.connecting
        may_have_more = health.recover(now, is_used=is_used, live=self.live)
        if (ceiling := health.news()) is not None:
            self.house.ceilings.keep(self, ceiling)
        if not may_have_more:
            return
        if not self._has_asked and health.window.size > START:
            self._has_asked = True
            self.house.ceilings.recall(self)
        self.house.staff(self)
        self.house.want_more()

    def accept(self) -> None:
        """A MAIL was accepted: the host is well, and what it had refused it meant."""
        if self.refusals.run:
            self.bury(self.refusals.end())
        self.succeed()

    def refuse(
        self, delivery: Delivery, outcomes: list[Outcome], *, sender: str, is_lost: bool = False
    ) -> bool:
        """MAIL was refused for good; return whether that is the host's trouble: it is closed then.

        Until it is known whose trouble it is the delivery is held here. `is_lost`: the host hung up
        with it, and is not well for having answered.
        """
        text, now = outcomes[0].text, time.monotonic()
        if self.refusals.ends_with(text):
            self.bury(self.refusals.end())
        ruling, released = self.refusals.refuse(
            (delivery, outcomes), sender=sender, text=text, now=now
        )
        if ruling is Ruling.HOST:
            self.fail(f"it refuses everybody: {text}", Trouble.VERDICT, began=now)
            for refused, _ in released:
                self.give_back(refused, in_front=False)
            return True
        self.bury(released)
        if not is_lost:
            self.succeed()
        if self.house.is_draining:
            self.bury(self.refusals.release())
        return False

    def bury(self, refused: list[Refused]) -> None:
        """Report deliveries that were held, each with its own refusal."""
        for delivery, outcomes in refused:
            self.done(delivery, outcomes)

    def fail(
        self, text: str, trouble: Trouble = Trouble.LOSS, *, began: float, at_least_s: float = 0.0
    ) -> None:
        """The host failed an attempt that began at `began`; health says what that means.

        `at_least_s`: what the host has asked for. The connection that it was is not live any more.
        """
        health, now, strikes = self.health, time.monotonic(), self.health.strikes
        delay_s = health.fail(
            text,
            trouble,
            began=began,
            now=now,
            proved=self.proved,
            chance=self.house.chance(),
            at_least_s=at_least_s,
        )
        if health.strikes > strikes and health.is_probing:
            self.fall_behind()
        if delay_s is None:
            return
        self.house.reopen_later(self, delay_s)
        if health.backoff.is_closed(now):
            self.dismiss_idle()
        elif health.is_probing and len(self.ready) > 1 and not self.house.is_draining:
            self.house.stranded(self.empty(but=1))  # not to wait for a probe that may take long

    # ---- its connections

    def prove(self) -> None:
        """Note that the host has answered the first mail on a connection."""
        self.proved += 1
        self.health.prove(self.proved)

    def note_open(self, now: float) -> None:
        """A connection was made: look up what has been learnt, for some of it is forgotten."""
        self.live += 1
        self.most_mails = min(self.ways.habits.messages(now) or sys.maxsize, self.most_allowed)
