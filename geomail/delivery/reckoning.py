"""The reckoning of one connection: what was begun on it, and what becomes of each of those.

A transaction that is finished, a connection that is lost and a fault of ours all end here, in the
lane: done, given back, held until it is known whose refusal it is, or sent on to recipients that
were too many for one transaction. What outcomes mean is outcome's business, what a host's trouble
means the lane's; this room is where the one is told to the other.

`begun` holds what was begun and neither reported nor given back yet, so that a fault between a
final reply and the news of it loses nothing. With BDAT there may be several: each is judged by what
the kernel took of it and by the replies that were read.

`is_over` says that the host wants no more on this connection, although nothing is wrong with it.
"""

import time

from geomail import log, metrics
from geomail.delivery import wording
from geomail.delivery.delivery import Delivery
from geomail.delivery.host.health import Trouble
from geomail.delivery.lane import Lane
from geomail.delivery.limits.brake import slow_down
from geomail.delivery.outcome import (
    Blame,
    Fate,
    Outcome,
    cant_chunk,
    is_connection_full,
    judge,
    judge_host,
    judge_loss,
    surplus,
)
from geomail.smtp.client import Client
from geomail.smtp.events import Awaited, Cause, Lost, Transaction
from geomail.smtp.reply import Reply

_RETURNS_LIMIT = 3
_BELIEVED_AT_ONCE = 10
# At MAIL these are about its parameters, whoever else gets through: SIZE, and one not known.
_OF_THIS_MAIL = frozenset({552, 555})


class Reckoning:
    """What is under way on one connection after another of a sender."""

    __slots__ = ("_final", "_lane", "_outcomes", "begun", "is_over", "onward")

    def __init__(self, lane: Lane) -> None:
        self.is_over = False
        self.begun: list[Transaction] = []
        self.onward: list[Delivery] = []  # for a further transaction at once; a deque is 760 bytes
        self._lane = lane
        self._final: Reply | None = None  # the last one, and what it meant for its mail
        self._outcomes: list[Outcome] = []

    # ---- every reply is in

    def finished(self, client: Client, transaction: Transaction) -> None:
        """Report a transaction whose replies are all in."""
        self.begun.remove(transaction)
        delivery, final = transaction.owner, transaction.final
        if not isinstance(delivery, Delivery):
            return
        if final is not None and final.is_positive and len(transaction.rcpt) == 1:
            if final is not self._final:  # many hosts say the same to each mail: 0.5 us less
                self._final, self._outcomes = final, judge(transaction)
            self._lane.accept()  # the steady state
            self._lane.done(delivery, self._outcomes)
        elif client.delivered and is_connection_full(transaction):
            self._full(client, delivery, str(transaction.mail))
        else:
            self._weigh(delivery, transaction)

    def _full(self, client: Client, delivery: Delivery, text: str) -> None:
        """Leave a connection that carries no more mails: message and host are well."""
        self._lane.succeed()
        if not self.is_over:
            messages = client.begun - len(client.unfinished) - 1
            # The code alone may be meant otherwise: a small number, which costs, is to come again.
            is_said = messages >= _BELIEVED_AT_ONCE or wording.is_full(text)
            self._lane.ways.note_end(messages, began=time.monotonic(), is_said=is_said)
        self.is_over = True
        self._lane.give_back(delivery)

    def _weigh(
        self, delivery: Delivery, transaction: Transaction, *, is_lost: bool = False
    ) -> None:
        lane, mail, outcomes = self._lane, transaction.mail, judge(transaction)
        self._slow_down(outcomes)
        blamed = next((outcome for outcome in outcomes if outcome.blame is Blame.HOST), None)
        if blamed is not None:
            self._login_is_wrong(delivery, outcomes, blamed, mail)
        elif mail is not None and mail.is_permanent and mail.code not in _OF_THIS_MAIL:
            sender = transaction.letter.mail_from
            is_over = lane.refuse(delivery, outcomes, sender=sender, is_lost=is_lost)
            self.is_over = self.is_over or is_over
        elif mail is None or not mail.is_positive:
            if not is_lost:
                lane.succeed()
            lane.done(delivery, outcomes)
            self._obey(mail)
        else:
            lane.accept()
            self._accepted(delivery, outcomes, surplus(transaction))

    def _slow_down(self, outcomes: list[Outcome]) -> None:
        """Be slower from now on where the host has said that we are too fast."""
        for outcome in outcomes:
            is_for_now = outcome.code is not None and 400 <= outcome.code < 500
            if is_for_now and wording.is_too_fast(outcome.text):
                slow_down(self._lane, outcome.text)
                return

    def _accepted(self, delivery: Delivery, outcomes: list[Outcome], onward: list[int]) -> None:
        if onward and len(outcomes) == len(delivery.recipients):
            self._lane.go_on(delivery, outcomes, onward)
            self.onward.append(delivery)
        else:
            self._lane.done(delivery, outcomes)

    def _login_is_wrong(
        self, delivery: Delivery, outcomes: list[Outcome], blamed: Outcome, mail: Reply | None
    ) -> None:
        # At MAIL it is anybody's. Behind that it may be about where this one goes to.
        is_anybodys = mail is None or not mail.is_positive
        why = f"the login is not good enough: {blamed.phase}: {blamed.text}"
        trouble = Trouble.VERDICT if is_anybodys else Trouble.LOSS
        self._lane.fail(why, trouble, began=time.monotonic())
        self.is_over = True
        delivery.returned += not is_anybodys
        if any(outcome.fate is not Fate.AGAIN for outcome in outcomes):
            self._lane.done(delivery, outcomes)
        elif delivery.returned > _RETURNS_LIMIT:
            self._lane.done(delivery, [_counted(blamed)] * len(outcomes))
        else:
            self._lane.give_back(delivery, in_front=False)

    def _obey(self, mail: Reply | None) -> None:
        """Leave the host alone for as long as it has asked for in answer to MAIL."""
        asked_s = _asked_s(mail)
        if asked_s > 0.0:
            now = time.monotonic()
            self._lane.fail(f"MAIL: {mail}", Trouble.VERDICT, began=now, at_least_s=asked_s)
            self.is_over = True

    # ---- the connection is lost

    def lost(self, client: Client, lost: Lost, *, began: float, is_reused: bool) -> bool:
        """Judge what was under way; return whether another connection is worth making at once.

        `began`: when it was made. `is_reused`: nothing was answered since it was idle. What ends
        then, before MAIL was answered, is as stale as if it had been noticed before.
        """
        unfinished = client.unfinished
        is_stale = is_reused and all(transaction.mail is None for transaction in unfinished)
        has_delivered = client.delivered > 0 or is_stale
        for transaction in reversed(unfinished):
            self._lost_one(client, lost, transaction, has_delivered=has_delivered)
        lane, now = self._lane, time.monotonic()
        if self._learns_less(client, lost, now):
            return True
        asked_s = _asked_s(lost.reply)
        if asked_s == 0.0 and judge_host(lost, has_delivered=has_delivered) is Blame.CONNECTION:
            if is_stale:
                metrics.count("connections_stale")
            else:
                is_said = lost.reply is not None and wording.is_full(lost.text)
                messages = client.begun - len(unfinished)
                lane.ways.note_end(messages, began=began, is_said=is_said)
            return True
        lane.fail(str(lost), _trouble(client, lost, asked_s), began=began, at_least_s=asked_s)
        return False

    def _learns_less(self, client: Client, lost: Lost, now: float) -> bool:
        """Take back what the host could not bear; return whether there was something to take."""
        is_out_of_step = lost.cause is Cause.OUT_OF_STEP and client.begun > 0
        is_cut = lost.cause is Cause.CLOSED and lost.phase is Awaited.BDAT and not client.delivered
        if client.chunks and (is_out_of_step or is_cut):
            self._lane.ways.learn_chunking(now, is_proved=False, why=str(lost))
            return True
        if is_out_of_step and client.pipelining:
            return self._lane.ways.pipeline_less(str(lost), now)
        return False

    def _lost_one(
        self, client: Client, lost: Lost, transaction: Transaction, *, has_delivered: bool
    ) -> None:
        self.begun.remove(transaction)
        delivery = transaction.owner
        if not isinstance(delivery, Delivery):
            return
        mail = transaction.mail
        if mail is not None and not mail.is_positive and lost.cause is not Cause.OUT_OF_STEP:
            self._weigh(delivery, transaction, is_lost=True)  # it has said so, and hung up
            return
        is_first = transaction is client.unfinished[0]
        outcomes = judge_loss(
            lost,
            transaction,
            is_sent_whole=client.sent_whole(transaction),
            has_delivered=has_delivered,
            is_first=is_first,
        )
        if is_first:
            self._slow_down(outcomes)
        delivery.returned += is_first and not cant_chunk(lost)
        if any(outcome.fate is not Fate.AGAIN for outcome in outcomes):
            self._lane.done(delivery, outcomes)
        elif delivery.returned > _RETURNS_LIMIT:
            # A message that ends every connection it comes to is no innocent victim.
            self._lane.done(delivery, [_counted(outcomes[0])] * len(outcomes))
        else:
            # Where its MAIL was what the host did not survive, another message makes the probe.
            at_fault = is_first and outcomes[0].blame is Blame.HOST
            self._lane.give_back(delivery, in_front=not at_fault)

    # ---- a fault of ours, and the end

    def broke(self, client: Client | None, taken: Delivery | None, error: Exception) -> None:
        """A fault of ours: nothing is lost, everything in hand is tried later.

        What was begun is what we have noted, not what the conversation still calls unfinished: the
        fault may have struck between a final reply and the news of it.
        """
        begun, self.begun = self.begun, []
        owners = [(t, t.owner) for t in begun if isinstance(t.owner, Delivery)]
        ids = [owner.slot.id for _, owner in owners] + ([taken.slot.id] if taken else [])
        log.error("sender_broke", id=",".join(ids) or None, host=self._lane.name, why=repr(error))
        for transaction, owner in owners:
            is_sent = client is not None and client.sent_whole(transaction)
            if transaction.final is not None:
                self._lane.done(owner, judge(transaction))
            else:
                self._postpone(owner, Fate.UNKNOWN if is_sent else Fate.LATER, error)
        if taken is not None:
            self._postpone(taken, Fate.LATER, error)
        why = f"internal error: {error!r}"
        self._lane.fail(why, Trouble.VERDICT, began=time.monotonic())

    def _postpone(self, delivery: Delivery, fate: Fate, error: Exception) -> None:
        outcome = Outcome(fate, Blame.BOTH, "internal", f"internal error: {error!r}")
        self._lane.done(delivery, [outcome] * len(delivery.recipients))

    def drop(self, transaction: Transaction, delivery: Delivery) -> None:
        """Forget a transaction whose lease was lost before its content was written."""
        self.begun.remove(transaction)
        self._lane.drop(delivery)

    def give_back_onward(self) -> None:
        """Give back what was to go on here: whoever comes next sends it to those that are left."""
        while self.onward:
            self._lane.give_back(self.onward.pop())


def _trouble(client: Client, lost: Lost, asked_s: float) -> Trouble:
    """Return what kind of failure it is that a connection was lost which was up.

    Some hosts count connections at MAIL, and send away who is too many there.
    """
    if asked_s > 0.0:
        return Trouble.VERDICT
    is_sent_away = (
        lost.cause is Cause.REFUSED and lost.phase is Awaited.MAIL and not client.delivered
    )
    return Trouble.REFUSAL if is_sent_away else Trouble.LOSS


def _asked_s(reply: Reply | None) -> float:
    """Return the seconds that a 4yz asks to be left alone for, or 0."""
    if reply is None or not reply.is_transient:
        return 0.0
    return wording.asked_wait_s(str(reply)) or 0.0


def _counted(outcome: Outcome) -> Outcome:
    """Return `outcome` as one that costs the message a try."""
    return Outcome(Fate.LATER, Blame.BOTH, outcome.phase, outcome.text, outcome.code)
