"""A sender: the greenlet that owns one connection and drives messages over it.

In steady state one turn of its loop is one write and one wait: the content of the message that the
server waits for, together with the envelope of the next one, then all their replies. What can't be
undone is guarded where it is written: MAIL only when the next letter is composed, its lease is ours
and no drain is known; the content only when its lease is still ours (else the connection is closed
without a dot, for a lone dot would deliver an empty mail).

A sender holds no message while its host is away: what it could not begin goes back to the lane.
"""

import time

import gevent
from gevent.event import Event

from geomail import log, metrics
from geomail.delivery.lane import Delivery, Lane
from geomail.delivery.outcome import (
    Blame,
    Fate,
    Outcome,
    judge,
    judge_host,
    judge_loss,
    refused_here,
)
from geomail.delivery.transport import Session
from geomail.errors import PayloadError
from geomail.letter import Letter, compose
from geomail.smtp.events import Cause, ContentWanted, Finished, Lost, Transaction

_CLEAR_S = 3600.0
_RETURNS_LIMIT = 2
_TURN_S = 0.2


class Sender(gevent.Greenlet):  # type: ignore[type-arg] # not subscriptable when it runs
    """One connection's life: connect, deliver while there is work, leave."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self.lane = lane
        self.is_live = False
        self._is_connecting = False
        self._note_connecting(True)
        self.idle_since = 0.0
        self._house = lane.house
        self._session: Session | None = None
        self._began = time.monotonic()
        self._wake = Event()
        self._is_dismissed = False
        self._has_begun = False
        self._taken: Delivery | None = None  # from the lane, and neither begun nor settled yet
        self._begun: list[Transaction] = []  # neither reported nor given back yet

    # ---- said from outside

    def wake(self) -> None:
        """There is something in the lane's ready queue."""
        self._wake.set()

    def dismiss(self) -> None:
        """Leave now if idle, else after the message in hand."""
        self._is_dismissed = True
        if self in self.lane.idle:
            self.lane.idle.remove(self)
        self._wake.set()

    def check_deadline(self, now: float) -> None:
        """End a wait whose deadline has passed."""
        if self._session is not None and now > self._session.deadline:
            self._session.expire()

    def cut_off(self) -> None:
        """End the connection now; what is on it is judged as after a time-out."""
        self._is_dismissed = True
        if self._session is not None:
            self._session.expire()

    # ---- the life of one connection after another

    def _run(self) -> None:
        try:
            while self.lane.ready and not self._must_leave() and not self._is_shut_out():
                session = self._connect()
                if session is None:
                    break
                if not self._serve(session):
                    break
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            self._break_down(error)
        finally:
            self._note_connecting(False)
            self._return_taken()
            self._hang_up()

    def _is_shut_out(self) -> bool:
        return self.lane.backoff.is_closed(time.monotonic())

    def _connect(self) -> Session | None:
        lane = self.lane
        self._began = time.monotonic()
        self._note_connecting(True)
        in_clear = self._began < lane.clear_until
        session = self._session = Session(
            lane.terms, in_clear=in_clear, pipeline=lane.pipeline(self._began)
        )
        lost = session.open()
        self._note_connecting(False)
        if lost is None:
            lane.live += 1
            self.is_live = True
            self._note_tls(session)
            return session
        self._hang_up()
        if lost.cause is Cause.TLS and lane.terms.may_fall_back and not in_clear:
            if lane.clear_until <= self._began:
                log.warning("tls_failed_going_clear", host=lane.name, why=str(lost), for_s=_CLEAR_S)
            lane.clear_until = self._began + _CLEAR_S
            return self._connect()
        lane.fail(str(lost), began=self._began)
        return None

    def _serve(self, session: Session) -> bool:
        """Deliver over one connection; return whether another one is worth making at once."""
        client = session.client
        wanted: Transaction | None = None
        while True:
            letter = self._next(session, is_idle=wanted is None)
            if wanted is not None:
                if not self._write_content(session, wanted):
                    return False
            elif letter is None:
                self._hang_up(politely=True)
                return not self._must_leave()
            if letter is not None:
                self._has_begun = True
                self._begun.append(client.begin(letter, self._taken))
                self._taken = None
            wanted = None
            for event in session.exchange():
                if type(event) is ContentWanted:
                    wanted = event.transaction
                elif type(event) is Finished:
                    self._finished(event.transaction)
                elif type(event) is Lost:
                    return self._lost(session, event)

    def _write_content(self, session: Session, wanted: Transaction) -> bool:
        delivery = wanted.owner
        if isinstance(delivery, Delivery) and not delivery.is_mine():
            self._hang_up()
            self._begun.remove(wanted)
            self.lane.drop(delivery)
            self._return_taken()
            return False
        session.client.content(wanted)
        return True

    # ---- the next message

    def _next(self, session: Session, *, is_idle: bool) -> Letter | None:
        """Return the next letter, its delivery in `_taken`; None when none is there, or may begin.

        Waits for one only when the connection is idle.
        """
        if session.client.is_full or not (is_idle or session.client.overlaps):
            return None
        while not self._must_leave():
            delivery = self._taken = self.lane.take()
            if delivery is None:
                if not is_idle or not self._wait(session):
                    return None
                continue
            letter = self._letter(session, delivery)
            if letter is not None:
                return letter
            self._taken = None
        return None

    def _wait(self, session: Session) -> bool:
        """Wait for work; False when the connection's idle life is over."""
        lane = self.lane
        self._wake.clear()
        self.idle_since = time.monotonic()
        lane.idle.append(self)
        is_woken = self._wake.wait(self._house.settings.idle_s)
        if not is_woken and self in lane.idle:
            lane.idle.remove(self)
        if is_woken and session.is_stale():
            # The server has closed it meanwhile: reconnect, and blame nobody.
            metrics.count("connections_stale")
            self._hang_up()
            return False
        return bool(is_woken)

    def _letter(self, session: Session, delivery: Delivery) -> Letter | None:
        """Compose a delivery for this host; None when it was settled without being sent."""
        lane, client = self.lane, session.client
        if not delivery.is_mine():
            lane.drop(delivery)
            return None
        if 0 < client.most_recipients < len(delivery.recipients):
            lane.split(delivery, client.most_recipients)
            return None
        try:
            letter = compose(
                delivery.email,
                id=delivery.slot.id,
                first_seen_ms=delivery.slot.first_seen_ms,
                sender=delivery.sender,
                eight_bit=client.eight_bit,
                redirect_to=self._house.settings.redirect_to,
                recipients=delivery.recipients,
            )
        except PayloadError as error:
            outcome = Outcome(Fate.NEVER, Blame.MESSAGE, "compose", str(error))
            lane.done(delivery, [outcome] * len(delivery.recipients))
            return None
        refusal = client.refusal(letter)
        if refusal is None:
            return letter
        lane.done(delivery, [refused_here(refusal)] * len(delivery.recipients))
        return None

    # ---- what happened

    def _finished(self, transaction: Transaction) -> None:
        self._begun.remove(transaction)
        delivery = transaction.owner
        if isinstance(delivery, Delivery):
            self.lane.succeed()
            self.lane.done(delivery, judge(transaction))

    def _lost(self, session: Session, lost: Lost) -> bool:
        """Judge what was under way; return whether another connection is worth making at once."""
        client, lane = session.client, self.lane
        blame = judge_host(lost, has_delivered=client.delivered > 0)
        for transaction in reversed(client.unfinished):
            self._lost_one(session, lost, transaction)
        self._hang_up()
        if blame is Blame.CONNECTION:
            metrics.count("connections_used_up")
            return True
        now = time.monotonic()
        is_out_of_step = lost.cause is Cause.OUT_OF_STEP and client.begun > 0
        if is_out_of_step and client.pipelining and lane.learn_down(str(lost), now):
            return True
        lane.fail(str(lost), began=now)
        return False

    def _lost_one(self, session: Session, lost: Lost, transaction: Transaction) -> None:
        client = session.client
        self._begun.remove(transaction)
        delivery = transaction.owner
        if not isinstance(delivery, Delivery):
            return
        outcomes = judge_loss(
            lost,
            transaction,
            is_sent_whole=client.sent_whole(transaction),
            has_delivered=client.delivered > 0,
        )
        is_in_work = transaction is client.unfinished[0]
        delivery.returned += is_in_work
        if outcomes[0].fate is not Fate.AGAIN:
            self.lane.done(delivery, outcomes)
        elif delivery.returned > _RETURNS_LIMIT:
            # A message that ends every connection it comes to is no innocent victim.
            self.lane.done(delivery, [_counted(outcomes[0])] * len(outcomes))
        else:
            # Where its MAIL was what the host did not survive, another message makes the probe.
            at_fault = is_in_work and outcomes[0].blame is Blame.HOST
            self.lane.give_back(delivery, in_front=not at_fault)

    def _break_down(self, error: Exception) -> None:
        """A fault of ours: nothing is lost, everything in hand is tried later.

        What was begun is what we have noted, not what the conversation still calls unfinished: the
        fault may have struck between a final reply and the news of it.
        """
        session, taken = self._session, self._taken
        owners = [(t, t.owner) for t in self._begun if isinstance(t.owner, Delivery)]
        ids = [owner.slot.id for _, owner in owners] + ([taken.slot.id] if taken else [])
        log.error("sender_broke", id=",".join(ids) or None, host=self.lane.name, why=repr(error))
        self._taken, self._begun = None, []
        for transaction, owner in owners:
            is_sent = session is not None and session.client.sent_whole(transaction)
            if transaction.final is not None:
                self.lane.done(owner, judge(transaction))
            else:
                self._postpone(owner, Fate.UNKNOWN if is_sent else Fate.LATER, error)
        if taken is not None:
            self._postpone(taken, Fate.LATER, error)
        self.lane.fail(f"internal error: {error!r}", began=time.monotonic())

    def _postpone(self, delivery: Delivery, fate: Fate, error: Exception) -> None:
        outcome = Outcome(fate, Blame.BOTH, "internal", f"internal error: {error!r}")
        self.lane.done(delivery, [outcome] * len(delivery.recipients))

    def _return_taken(self) -> None:
        delivery, self._taken = self._taken, None
        if delivery is not None:
            self.lane.give_back(delivery)

    # ---- leaving

    def _must_leave(self) -> bool:
        if self.lane.leaving > 0 and self._has_had_its_turn():
            self.lane.leaving -= 1
            self._is_dismissed = True
        return self._is_dismissed or self._house.is_draining

    def _has_had_its_turn(self) -> bool:
        # Who made a connection uses it, else lanes that take turns do nothing but take turns.
        if not self.lane.ready:
            return True
        return self._has_begun and time.monotonic() - self._began >= _TURN_S

    def _hang_up(self, *, politely: bool = False) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if self.is_live:
            self.is_live = False
            self.lane.live -= 1
        if politely:
            self._session = session  # the watchdog still looks after it
            session.close()
            self._session = None
        session.abandon()

    def _note_connecting(self, is_connecting: bool) -> None:
        self.lane.connecting += is_connecting - self._is_connecting
        self._is_connecting = is_connecting

    def _note_tls(self, session: Session) -> None:
        lane = self.lane
        member = lane.terms.member
        if session.client.under_tls and not member.verified and not lane.is_warned:
            lane.is_warned = True
            log.warning("tls_not_verified", host=lane.name, hint="smtp:// encrypts, and trusts all")


def _counted(outcome: Outcome) -> Outcome:
    """Return `outcome` as one that costs the message a try."""
    return Outcome(Fate.LATER, Blame.BOTH, outcome.phase, outcome.text, outcome.code)
