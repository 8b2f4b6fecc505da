"""A sender: the greenlet that owns one connection and drives messages over it.

In steady state one turn of its loop is one write and one wait. With DATA: the content of the
message that the server waits for, together with the envelope of the next one, then all their
replies. With BDAT: a window of messages, each envelope and content in one piece; whenever replies
have come, what they make room for is begun, and the window never waits to run empty. Only the first
message after an idle time goes by DATA there: the host may have left, and was sent no content then.

What can't be undone is guarded where it is written: MAIL only when the next letter is composed, its
lease is ours and no drain is known; the content only when its lease is still ours (else the
connection is closed without a dot, for a lone dot would deliver an empty mail). With BDAT both are
one moment.

An idle connection is watched: one that the server closes is given up at once, and costs nobody
anything. A sender holds no message while its host is away: what it could not begin goes back to the
lane. What becomes of the messages is told in reckoning.py.
"""

import time

import gevent
from gevent.event import Event

from geomail import log
from geomail.delivery import wording
from geomail.delivery.delivery import Delivery
from geomail.delivery.host.health import Trouble
from geomail.delivery.lane import Lane
from geomail.delivery.outcome import Blame, Fate, Outcome, refused_here
from geomail.delivery.reckoning import Reckoning
from geomail.delivery.session.transport import Session
from geomail.errors import PayloadError
from geomail.letter import Letter, compose
from geomail.smtp.client import Client
from geomail.smtp.events import Awaited, Cause, ContentWanted, Finished, Lost, Transaction

_CLEAR_S = 3600.0
_TURN_S = 0.2


class Sender(gevent.Greenlet):  # type: ignore[type-arg] # not subscriptable when it runs
    """One connection's life: connect, deliver while there is work, leave."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self.lane = lane
        self.is_live = False
        self.is_proved = False
        self.epoch = 0
        self._is_connecting = False
        self._note_connecting(True)
        self.idle_since = 0.0
        self.began = time.monotonic()  # with the connection that it has, or makes
        self._house = lane.house
        self._session: Session | None = None
        self._wake = Event()
        self._is_dismissed = False
        self._has_begun = False
        self._has_ended = False  # the server has said or closed something while idle
        self._was_idle = False  # and nothing was answered since
        self._taken: Delivery | None = None  # from the lane, and neither begun nor settled yet
        self._reckoning = Reckoning(lane)

    # ---- said from outside

    def wake(self) -> None:
        """There is something in the lane's ready queue."""
        self._wake.set()

    def dismiss(self) -> None:
        """Leave now if idle, else after the message in hand."""
        self._is_dismissed = True
        self.lane.idle_no_more(self)
        self._wake.set()

    def part(self) -> None:
        """Wait no more for the answer to QUIT."""
        if self._session is not None:
            self._session.expire()

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
                if not self._serve(session) or self._has_to_ask():
                    break
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            self._break_down(error)
        finally:
            self._note_connecting(False)
            self._return_taken()
            self._reckoning.give_back_onward()
            self._hang_up()

    def _is_shut_out(self) -> bool:
        now, limits = time.monotonic(), self.lane.limits
        return not self.lane.health.may_connect(now) or (
            limits is not None and not limits.is_open(now)
        )

    def _has_to_ask(self) -> bool:
        """Return whether another connection needs a lease of its own: this one's has to rest."""
        return self.lane.limits is not None and self.lane.limits.has_connections

    def _connect(self) -> Session | None:
        lane = self.lane
        now = self.began = time.monotonic()
        self._note_connecting(True)
        lane.renew(self)
        in_clear = now < lane.clear_until
        session = self._session = Session(
            lane.terms,
            in_clear=in_clear,
            pipeline=lane.ways.pipeline(now),
            chunking=lane.ways.chunking(now),
        )
        lost = session.open()
        self._note_connecting(False)
        if lost is None:
            self._note_open(session)
            return session
        self._hang_up()
        if self._learns_to_open(lost, in_clear=in_clear):
            return self._connect()
        asked_s = wording.asked_wait_s(lost.text) if lost.reply is not None else None
        trouble = Trouble.VERDICT if lost.cause is Cause.LOGIN else Trouble.REFUSAL
        lane.fail(str(lost), trouble, began=now, at_least_s=asked_s or 0.0)
        return None

    def _learns_to_open(self, lost: Lost, *, in_clear: bool) -> bool:
        """Take back what this host can't do; return whether another connection may go better."""
        lane = self.lane
        if lost.phase is Awaited.PROOF:
            lane.ways.learn_chunking(self.began, is_proved=False, why=str(lost))
            return True
        if lost.cause is not Cause.TLS or not lane.terms.may_fall_back or in_clear:
            return False
        if lane.clear_until <= self.began:
            log.warning("tls_failed_going_clear", host=lane.name, why=str(lost), for_s=_CLEAR_S)
        lane.clear_until = self.began + _CLEAR_S
        return True

    def _note_open(self, session: Session) -> None:
        lane, client, now = self.lane, session.client, time.monotonic()
        lane.note_open(now)
        self.is_live = True
        self._has_ended = self._was_idle = False
        self._note_tls(session)
        if client.proved is not None:
            lane.ways.learn_chunking(now, is_proved=client.proved)

    # ---- messages over one connection

    def _serve(self, session: Session) -> bool:
        """Deliver over one connection; return whether another one is worth making at once."""
        if session.client.chunks:
            return self._serve_window(session)
        wanted: Transaction | None = None
        event: object = None
        while True:
            letter = self._next(session, is_idle=wanted is None)
            if wanted is not None:
                if not self._write_content(session, wanted):
                    return False
            elif letter is None:
                return self._leave()
            if letter is not None:
                self._begin(session.client, letter)
            wanted = None
            awaited = session.client.awaited
            while awaited:
                for event in session.turn():
                    if type(event) is ContentWanted:
                        wanted = event.transaction
                    elif type(event) is Finished:
                        self._finished(session, event.transaction)
                    elif type(event) is Lost:
                        return self._lost(session, event)
            letter = event = None  # nothing is kept of this one while it waits for the next

    def _serve_window(self, session: Session) -> bool:
        """Do the same by BDAT: keep as many under way as may be."""
        client = session.client
        event: object = None
        while True:
            while client.may_begin:
                letter = self._next(session, is_idle=not client.unfinished)
                if letter is None:
                    break
                self._begin(client, letter)
            if not client.unfinished:
                return self._leave()
            for event in session.turn():
                if type(event) is Finished:
                    self._finished(session, event.transaction)
                elif type(event) is Lost:
                    return self._lost(session, event)
                elif type(event) is ContentWanted:
                    self._was_idle = False
                    if not self._write_content(session, event.transaction):
                        return False
            letter = event = None

    def _begin(self, client: Client, letter: Letter) -> None:
        self._has_begun = True
        self.lane.begun += 1
        transaction = client.begin(letter, self._taken, is_wary=self._was_idle)
        self._reckoning.begun.append(transaction)
        self._taken = None

    def _finished(self, session: Session, transaction: Transaction) -> None:
        self._was_idle = False
        self._reckoning.finished(session.client, transaction)
        if not self.is_proved:
            self.is_proved = True
            self.lane.prove()

    def _lost(self, session: Session, lost: Lost) -> bool:
        self._note_gone()
        is_worth_another = self._reckoning.lost(
            session.client, lost, began=self.began, is_reused=self._was_idle
        )
        self._hang_up()
        self._reckoning.give_back_onward()  # a drain waits for no connection that is being made
        return is_worth_another

    def _write_content(self, session: Session, wanted: Transaction) -> bool:
        delivery = wanted.owner
        if type(delivery) is Delivery and not delivery.queue.owns(delivery.slot):
            self._hang_up()
            self._reckoning.drop(wanted, delivery)
            self._return_taken()
            return False
        session.client.content(wanted)
        return True

    def _leave(self) -> bool:
        self._reckoning.give_back_onward()  # a drain waits for no answer to QUIT
        self._hang_up(politely=True)
        return not self._must_leave()

    # ---- the next message

    def _next(self, session: Session, *, is_idle: bool) -> Letter | None:
        """Return the next letter, its delivery in `_taken`; None when none is there, or may begin.

        Waits for one only when the connection is idle.
        """
        client, onward, lane = session.client, self._reckoning.onward, self.lane
        if client.is_full or client.begun >= lane.most_mails:
            return None
        if not (is_idle or client.overlaps):
            return None
        while not self._must_leave():
            is_limited = lane.limits is not None or lane.brake is not None
            if is_limited and onward:
                self._reckoning.give_back_onward()  # it waits for its time as all others do
            is_counted = is_limited and bool(lane.ready)
            delivery = None
            if not is_counted or lane.may_begin(time.monotonic()):
                if onward:
                    delivery = self._taken = onward.pop(0)
                elif lane.ready:
                    delivery = self._taken = lane.ready.popleft()
            if delivery is None:
                if not is_idle or not self._wait(session):
                    return None
                continue
            letter = self._letter(session, delivery)
            if letter is not None:
                return letter
            self._taken = None
            if is_counted:
                lane.not_begun(time.monotonic())
        return None

    def _wait(self, session: Session) -> bool:
        """Wait for work; False when the connection's idle life is over."""
        lane = self.lane
        self._wake.clear()
        began = self.idle_since = time.monotonic()
        lane.idle_now(self)
        session.watch_idle(self._on_stir)
        is_woken = self._wake.wait(lane.ways.habits.idle_s(began, self._house.settings.idle_s))
        session.unwatch_idle()
        lane.idle_no_more(self)
        if is_woken and (self._has_ended or session.is_stale()):
            # The server has closed it meanwhile: reconnect, and blame nobody.
            pause_s = time.monotonic() - began
            lane.ways.note_idle_end(pause_s, session.client.begun, began=self.began)
            self._hang_up()
            return False
        self._was_idle = True
        return bool(is_woken)

    def _on_stir(self) -> None:
        self._has_ended = True
        self._wake.set()

    def _letter(self, session: Session, delivery: Delivery) -> Letter | None:
        """Compose a delivery for this host; None when it was settled without being sent."""
        lane, client = self.lane, session.client
        if not delivery.queue.owns(delivery.slot):  # is_mine, in the hot path
            lane.drop(delivery)
            return None
        recipients = len(delivery.recipients)
        if recipients > 1 and recipients > (most := _most_recipients(lane, client)):
            lane.split(delivery, most)
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

    # ---- leaving

    def _break_down(self, error: Exception) -> None:
        session, taken = self._session, self._taken
        self._taken = None
        self._reckoning.broke(session.client if session is not None else None, taken, error)

    def _return_taken(self) -> None:
        delivery, self._taken = self._taken, None
        if delivery is not None:
            self.lane.give_back(delivery)

    def _must_leave(self) -> bool:
        if not self._is_dismissed and self.lane.leaving > 0 and self._has_had_its_turn():
            self.lane.leaving -= 1
            self._is_dismissed = True
        return self._is_dismissed or self._reckoning.is_over or self._house.is_draining

    def _has_had_its_turn(self) -> bool:
        # Who made a connection uses it, else lanes that take turns do nothing but take turns.
        if not self.lane.ready:
            return True
        return self._has_begun and time.monotonic() - self.began >= _TURN_S

    def _hang_up(self, *, politely: bool = False) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        self._note_gone()
        if politely:
            self._session = session  # the watchdog still looks after it
            self._house.goodbyes[self] = time.monotonic()
            try:
                session.close()
            finally:
                del self._house.goodbyes[self]
            self._session = None
        session.abandon()

    def _note_gone(self) -> None:
        self.lane.live -= self.is_live
        self.lane.proved -= self.is_proved
        self.is_live = self.is_proved = False

    def _note_connecting(self, is_connecting: bool) -> None:
        self.lane.connecting += is_connecting - self._is_connecting
        self._is_connecting = is_connecting

    def _note_tls(self, session: Session) -> None:
        lane = self.lane
        terms = lane.terms
        if session.client.under_tls and not terms.is_verified and not lane.is_warned:
            lane.is_warned = True
            cause = "smtp:// encrypts, and" if terms.relay.verify else "verify = false"
            log.warning("tls_not_verified", host=lane.name, hint=f"{cause} trusts all")


def _most_recipients(lane: Lane, client: Client) -> int:
    """Return how many a transaction may have: by the host, and by ourselves."""
    return min(client.most_recipients or lane.most_recipients, lane.most_recipients)
