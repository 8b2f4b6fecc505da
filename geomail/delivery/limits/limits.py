"""The limits of one route, as this worker keeps to them: how many connections, and when mails go.

What is allowed is agreed with the other workers in Redis (queue/limits.py), by one greenlet, the
asker, for as long as there is work: a slice of times for the next tenth of a second, and leases of
connections, renewed in time. A second one, the pacer, wakes as many idle senders as mails may go.
So nothing waits for Redis in a mail's way, and no mail has a timer.

    a token is more than two      the route waits: it takes no deliveries until shortly before,
    seconds away                  and what is ready is parked, for whoever has the next token
    others have all connections   the same, for half a second at a time
    others have too few           some of ours end, each after the message in hand
    Redis is away                 tokens are used up; leases hold until they end, then we leave
    Redis refuses (a key of       the same; it is said once a minute, and asked again every few
    another type, no rights)      seconds

A connection that has ended rests for a moment before another takes its place, so that its host has
seen it end. What is held when this worker is done is given back.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeAlias

import gevent
from gevent.event import Event

from geomail import log
from geomail.delivery.limits.rate import Tokens
from geomail.errors import RedisUnusable
from geomail.queue import Limiter
from geomail.queue.limits import Permit
from geomail.relays import Limits

if TYPE_CHECKING:
    from geomail.delivery.lane import Lane
    from geomail.delivery.lanes import Lanes

Limit: TypeAlias = Literal["rate", "connections"]

_EARLY_S = 1.9  # of the two seconds for which tokens are granted ahead
_REST_S = 0.02
_RENEW_S = 1.0
_HUNGRY_S = 0.25
_TICK_S = 0.002
_REFUSED_S = 0.1
_IDLE_S = 5.0
_MARGIN_S = 5.0
_REFUSED_AGAIN_S = 3.0
_COMPLAIN_EVERY_S = 60.0


class RouteLimits:
    """What one route may do now."""

    def __init__(self, route: str, limiter: Limiter, house: "Lanes") -> None:
        self.route = route
        self.lanes: tuple[Lane, ...] = ()
        self.waits_for: Limit = "rate"  # while it is not open
        self._house = house
        self._limiter = limiter
        self._limits = Limits()
        self._tokens: Tokens | None = None
        self._permit = Permit(0, 0, 0, 0, 0.0)
        self._is_listed = False  # in Redis, with connections or the wish for some
        self._said: int | None = None  # connections, in the question that is under way
        self._told, self._told_at = (0, 0, 0), 0.0  # limit, connections, and how many wanted
        self._rests: deque[float] = deque()
        self._opens_at = 0.0
        self._refused_until = 0.0
        self._complains_at = 0.0
        self._turn = 0  # which lane is the next to get a token first
        self._asking, self._pacing = Event(), Event()
        self._asker: gevent.Greenlet[..., None] | None = None
        self._pacer: gevent.Greenlet[..., None] | None = None

    def configure(self, limits: Limits, lanes: "tuple[Lane, ...]") -> None:
        """Set what holds from now on, and for which lanes; what is held already stays."""
        if limits.rates != self._limits.rates:
            self._tokens = None
            if limits.rates:
                pace = limits.rates[0]
                self._tokens = Tokens(pace.per_s / pace.count)
            self._opens_at = 0.0
        self._limits = limits
        unnamed = (lane for lane in self.lanes if lane not in lanes)
        self.lanes = (*lanes, *(lane for lane in unnamed if lane.in_hand or lane.senders))
        for lane in lanes:
            lane.limits = self
        self._asking.set()
        self._staff()  # who waits for a token may wait for none any more

    # ---- questions

    @property
    def has_rate(self) -> bool:
        """True where mails wait for tokens."""
        return self._tokens is not None

    @property
    def has_connections(self) -> bool:
        """True where connections need a lease."""
        return self._limits.connections is not None

    def is_open(self, now: float) -> bool:
        """Return whether deliveries may come: something may be sent within two seconds."""
        return now >= self._opens_at

    def opens_at(self) -> float:
        """Return the time from which this is so."""
        return self._opens_at

    def rate(self, now: float) -> float:
        """Return how many mails a second were granted lately; 0.0 without a rate."""
        return self._tokens.worth(now) / 2.0 if self._tokens is not None else 0.0

    def most_in_hand(self, now: float, depth: int) -> int:
        """Return how many deliveries a lane can use within about two seconds, at `depth` each."""
        most = depth * max(1, self._allowed(now)) if self.has_connections else 1_000_000
        if self._tokens is not None:
            soon = int(self._tokens.worth(now)) + self._tokens.most_at_once
            most = min(most, soon)
        return -(-most // max(1, len(self.lanes)))

    def may_connect(self, lane: "Lane", now: float) -> bool:
        """Return whether `lane` may make one more connection now; if not, it is asked for."""
        tokens = self._tokens
        if tokens is not None and lane.senders and tokens.due(now) <= lane.connecting:
            return False
        if not self.has_connections:
            return True
        most = self._allowed(now) if self._said is None else min(self._allowed(now), self._said)
        if self._used(now) < most:
            return True
        self._ask_soon()
        return False

    def binding(self, now: float) -> Limit | None:
        """Return which limit keeps mails back, or None."""
        if not self.is_open(now):
            return self.waits_for
        ready = [lane for lane in self.lanes if lane.ready]
        if self._tokens is not None and any(lane.idle for lane in ready):
            return "rate"
        is_full = self.has_connections and self._allowed(now) <= self._used(now)
        return "connections" if is_full and ready else None

    def why(self, now: float) -> str | None:
        """Return in words what the route waits for; None while it is open."""
        if self.is_open(now):
            return None
        if self.waits_for == "rate":
            return f"its rate is {' and '.join(map(str, self._limits.rates))}"
        return f"all of its {self._limits.connections} connections are in use elsewhere"

    # ---- said by lanes and senders

    def spend(self, now: float) -> bool:
        """Take a token; False: there is none yet, and the pacer wakes who is idle in time."""
        if self._tokens is None or self._tokens.spend(now):
            return True
        self.stir()
        return False

    def refund(self, now: float) -> None:
        """Give a token back that was not used."""
        if self._tokens is not None:
            self._tokens.refund(now)

    def note_end(self, now: float) -> None:
        """Note that a sender has left, and its connection with it."""
        if self.has_connections:
            self._rests.append(now)
            gevent.spawn_later(_REST_S + 0.001, self._staff)
            self.stir()

    def stir(self) -> None:
        """There may be something to do: a delivery has come, or a connection ended."""
        if self._house.is_draining:
            return
        self._ask_soon()
        self._pacing.set()
        if not self._pacer:
            self._pacer = gevent.spawn(self._keep_going, self._pace)

    def _ask_soon(self) -> None:
        self._asking.set()
        if not self._asker:
            self._asker = gevent.spawn(self._keep_going, self._ask)

    def look_again(self) -> None:
        """Ask at once for what others had: one of them has died."""
        if self._asker:
            self._opens_at = min(self._opens_at, time.monotonic())
            self._told_at = 0.0
            self._asking.set()

    def end(self) -> None:
        """Let the lanes go: nothing is limited any more."""
        for lane in self.lanes:
            lane.limits = None
        self._limits, self._tokens = Limits(), None
        self._asking.set()
        self._reopen()
        self.lanes = ()

    def leave(self) -> None:
        """Give back what is held; connections that are left are said to be."""
        limit, now = self._limits.connections, time.monotonic()
        if limit is not None and self._is_listed:
            used = self._used(now)
            with suppress(RedisUnusable):  # it has been said
                self._limiter.connect(self.route, limit, has=used, wanted=used)

    # ---- the asker

    def _keep_going(self, work: "Callable[[], None]") -> None:
        while True:
            try:
                work()
            except RedisUnusable as error:
                self._complain(error)
                gevent.sleep(_REFUSED_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - the top of a greenlet
                log.error("limits_broke", route=self.route, why=repr(error))
                gevent.sleep(1.0)
            else:
                return

    def _complain(self, error: RedisUnusable) -> None:
        now = time.monotonic()
        if now >= self._complains_at:
            self._complains_at = now + _COMPLAIN_EVERY_S
            hint = "mails of this route wait until that is put right"
            log.error("limits_refused", route=self.route, why=str(error), hint=hint)

    def _ask(self) -> None:
        while not self._house.is_draining:
            self._asking.clear()
            pauses = [self._ask_for_tokens(), self._ask_for_connections()]
            pause_s = min((pause for pause in pauses if pause is not None), default=None)
            if (
                not self._asking.wait(_IDLE_S if pause_s is None else pause_s)
                and pause_s is None
                and not self._works()
            ):
                return
            gevent.sleep(_TICK_S)  # whatever stirs us: not more often than this

    def _works(self) -> bool:
        return any(lane.ready or lane.senders for lane in self.lanes)

    def _ask_for_tokens(self) -> float | None:
        """Ask for a slice where one is due; return when to look again, in seconds."""
        tokens, now = self._tokens, time.monotonic()
        if tokens is None:
            return None
        if not self.is_open(now):
            return self._opens_at - now
        if now < self._refused_until:
            return self._refused_until - now
        mails = sum(len(lane.ready) for lane in self.lanes)
        wanted = tokens.to_ask_for(now, mails)
        if wanted == 0:
            return max(_TICK_S, tokens.last_s() - now) / 2 if mails > tokens.held(now) else None
        unused, tokens.unused = tokens.unused, 0
        grant = self._limiter.grant(self.route, self._limits.rates, wanted, unused=unused)
        now = time.monotonic()
        if tokens is not self._tokens:
            return 0.0  # there are other settings
        if grant.n:
            tokens.add(grant.start_s, grant.n, now)
            self._pacing.set()
            return _TICK_S
        if not tokens.held(now):
            self._wait_until(grant.start_s - _EARLY_S, now, "rate")
        self._refused_until = now + _REFUSED_S
        return _REFUSED_S

    def _ask_for_connections(self) -> float | None:
        """Say what we have and want; return when to do so again, in seconds."""
        limit, now = self._limits.connections, time.monotonic()
        if limit is None:
            if self._is_listed:
                self._is_listed = False
                self._limiter.connect(self.route, 1, has=0, wanted=0)
            return None
        used = self._used(now)
        if not self.is_open(now) and self.waits_for == "connections":
            return self._opens_at - now
        wanted = min(limit, used + self._missing(now))
        if not (wanted or self._is_listed):
            return None
        told, news_at = (limit, used, wanted), self._told_at + _HUNGRY_S
        if told == self._told and now < news_at:
            return news_at - now  # whatever stirs us: each mail does
        self._said = used
        try:
            permit = self._limiter.connect(self.route, limit, has=used, wanted=wanted)
        finally:
            self._said = None
        self._permit, self._is_listed = permit, bool(wanted or permit.granted)
        now = time.monotonic()
        self._told, self._told_at = told, now
        if wanted and not permit.granted:
            self._wait_until(now + 2 * _HUNGRY_S, now, "connections")
        self._come_down(self._used(now) - permit.share)
        if permit.waiting:
            self._dismiss_idle()
        if permit.share > self._used(now):
            self._staff()
        if permit.granted < wanted or permit.share < permit.granted:
            return _HUNGRY_S
        return (
            self._limiter.lease_s / 6 if permit.left else min(_RENEW_S, self._limiter.lease_s / 6)
        )

    def _missing(self, now: float) -> int:
        if not self.is_open(now):
            return 0
        return sum(lane.missing_senders() for lane in self.lanes)

    def _wait_until(self, opens_at: float, now: float, limit: Limit) -> None:
        """Take no deliveries until `opens_at`; what is ready is for others meanwhile."""
        if opens_at <= now:
            return
        self._opens_at = opens_at
        self.waits_for = limit
        gevent.spawn_later(opens_at - now + 0.001, self._reopen)
        for lane in self.lanes:
            self._house.stranded(lane.empty())

    def _reopen(self) -> None:
        self._staff()
        self._house.news.set()

    def _staff(self) -> None:
        for lane in self.lanes:
            if lane.ready:
                self._house.staff(lane)

    def _dismiss_idle(self) -> None:
        """End connections that nothing here needs, for others do."""
        for lane in self.lanes:
            for sender in tuple(lane.idle)[len(lane.ready) :]:
                sender.dismiss()

    def _come_down(self, excess: int) -> None:
        """Have so many connections end: idle ones at once, others after the message in hand."""
        idle = [sender for lane in self.lanes for sender in lane.idle]
        for sender in idle[: max(0, excess)]:
            sender.dismiss()
        excess -= len(idle)
        for lane in self.lanes:
            if excess > 0:
                lane.leaving = max(lane.leaving, min(excess, len(lane.senders)))
                excess -= lane.leaving

    # ---- the pacer

    def _pace(self) -> None:
        while not self._house.is_draining:
            self._pacing.clear()
            now = time.monotonic()
            if self.has_connections and self._used(now) and not self._allowed(now):
                self._come_down(sum(len(lane.senders) for lane in self.lanes))
            if not self._pacing.wait(self._wake(now)) and not self._works():
                return
            gevent.sleep(max(0.0, now + _TICK_S - time.monotonic()))  # as above

    def _wake(self, now: float) -> float:
        """Wake senders for the mails that may go now; return the seconds until the next may."""
        longest_s = _RENEW_S if self.has_connections else _IDLE_S
        if self._tokens is None or not any(lane.ready for lane in self.lanes):
            return longest_s
        due = self._tokens.due(now)
        self._turn = (self._turn + 1) % len(self.lanes)
        for lane in (*self.lanes[self._turn :], *self.lanes[: self._turn]):
            awake = min(due, len(lane.ready), len(lane.idle))
            self._house.wake(lane, awake)
            due -= awake
            if due and len(lane.ready) > awake:
                self._house.staffing.staff_up(lane)
        return min(longest_s, max(_TICK_S, self._tokens.next_s(now) - now))

    # ---- connections

    def _allowed(self, now: float) -> int:
        margin_s = min(_MARGIN_S, self._limiter.lease_s / 6)
        if now >= self._permit.until_s - margin_s:
            return 0
        return min(self._permit.granted, self._permit.share)

    def _used(self, now: float) -> int:
        while self._rests and self._rests[0] <= now - _REST_S:
            self._rests.popleft()
        return len(self._rests) + sum(len(lane.senders) for lane in self.lanes)
