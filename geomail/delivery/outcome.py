"""What happened to a message, and judge(): the one place that decides what it means.

Everything that can end a delivery is turned into one Outcome per recipient. Two questions are
answered for each: what becomes of the message (its fate), and whose trouble it was (the blame).

    what happened                                        fate        blame
    2yz to the content                                   DELIVERED   nobody
    5yz to MAIL, RCPT, DATA or the content               NEVER       message
    4yz to them, a 421 to the content included           LATER       message (421: both)
    anything before MAIL was answered                    AGAIN       host
    lost after MAIL was answered, content not whole      LATER       both
    the same two, by EOF, reset or 421, on a connection
    that has delivered before: it is used up             AGAIN       connection
    last byte taken by the kernel, no final reply        UNKNOWN     both (used up: connection)

A message that is AGAIN a third time in one lane is made LATER by its sender: where others get
through, the host is not at fault.

A refusal that was read before the connection went stands: of MAIL for all, of RCPT for that
recipient. Only where the replies are out of step none is believed.

AGAIN counts no try: the message goes back to its lane as if it had never left. UNKNOWN alone means
that the message may have been delivered (`maybe_duplicate`), and it has tries of its own. The rule
for a lost connection is that of the message in work: a second one, whose MAIL was not answered yet,
is AGAIN whatever became of the first.
"""

from enum import Enum

import msgspec

from geomail.smtp.events import Awaited, Cause, Lost, Transaction
from geomail.smtp.reply import Reply


class Fate(Enum):
    """What becomes of the message for one recipient."""

    DELIVERED = "delivered"
    LATER = "later"
    NEVER = "never"
    AGAIN = "again"
    UNKNOWN = "unknown"


class Blame(Enum):
    """Whose trouble it was: what has to change before it can go better."""

    NOBODY = "nobody"
    MESSAGE = "message"
    HOST = "host"
    BOTH = "both"
    CONNECTION = "connection"


class Outcome(msgspec.Struct, frozen=True):
    """One recipient's outcome: its fate, the blame, the phase it came in and what was said."""

    fate: Fate
    blame: Blame
    phase: str
    text: str
    code: int | None = None

    @property
    def maybe_duplicate(self) -> bool:
        """True when the host may have the message although it never said so."""
        return self.fate is Fate.UNKNOWN


# A connection that ends in one of these ways after it has delivered something is just used up.
_USED_UP = frozenset({Cause.CLOSED, Cause.REFUSED})


def judge(transaction: Transaction) -> list[Outcome]:
    """Return the outcome of each recipient of a finished transaction, in the letter's order."""
    final = transaction.final
    if final is not None and final.is_positive and len(transaction.rcpt) == 1:
        return [_by_reply(final, Awaited.CONTENT)]  # the steady state
    mail = transaction.mail
    if mail is not None and not mail.is_positive:
        return [_by_reply(mail, Awaited.MAIL)] * len(transaction.letter.recipients)
    reply, phase = final, Awaited.CONTENT
    if reply is None and transaction.data is not None and not transaction.data.is_intermediate:
        reply, phase = transaction.data, Awaited.DATA
    return [
        _by_reply(rcpt, Awaited.RCPT)
        if reply is None or not rcpt.is_positive
        else _by_reply(reply, phase)
        for rcpt in transaction.rcpt
    ]


def judge_loss(
    lost: Lost, transaction: Transaction, *, is_sent_whole: bool, has_delivered: bool
) -> list[Outcome]:
    """Return the outcomes of a transaction that was under way when its connection was lost.

    `is_sent_whole`: the kernel took the last byte of the content. `has_delivered`: a message went
    through on this connection before. What was refused already keeps its refusal.
    """
    is_in_step = lost.cause is not Cause.OUT_OF_STEP
    mail = transaction.mail
    if is_in_step and mail is not None and not mail.is_positive:
        return [_by_reply(mail, Awaited.MAIL)] * len(transaction.letter.recipients)
    outcome = _by_loss(lost, transaction, is_sent_whole=is_sent_whole, has_delivered=has_delivered)
    outcomes = [outcome] * len(transaction.letter.recipients)
    if is_in_step and outcome.fate is not Fate.AGAIN:
        for position, reply in enumerate(transaction.rcpt):
            if not reply.is_positive:
                outcomes[position] = _by_reply(reply, Awaited.RCPT)
    return outcomes


def judge_host(lost: Lost, *, has_delivered: bool) -> Blame:
    """Return what a lost connection means for its host: HOST, or CONNECTION when it is used up."""
    return Blame.CONNECTION if has_delivered and lost.cause in _USED_UP else Blame.HOST


def refused_here(reply: Reply, phase: str = "compose") -> Outcome:
    """Return the outcome of a message that we know this host can't take; nothing was sent."""
    return Outcome(Fate.NEVER, Blame.MESSAGE, phase, str(reply), reply.code)


def _by_reply(reply: Reply, phase: Awaited) -> Outcome:
    if reply.is_positive:
        return Outcome(Fate.DELIVERED, Blame.NOBODY, phase.value, str(reply), reply.code)
    fate = Fate.LATER if reply.is_transient else Fate.NEVER
    return Outcome(fate, Blame.MESSAGE, phase.value, str(reply), reply.code)


def _by_loss(
    lost: Lost, transaction: Transaction, *, is_sent_whole: bool, has_delivered: bool
) -> Outcome:
    blame = judge_host(lost, has_delivered=has_delivered)
    reply = lost.reply if lost.phase is Awaited.CONTENT else None
    if is_sent_whole and (reply is None or reply.is_intermediate):
        fate = Fate.UNKNOWN
        blame = Blame.BOTH if blame is Blame.HOST else blame
    elif transaction.mail is None or blame is Blame.CONNECTION:
        fate = Fate.AGAIN
    else:
        fate, blame = Fate.LATER, Blame.BOTH
    phase = lost.phase.value if lost.phase is not None else "connect"
    return Outcome(fate, blame, phase, str(lost), lost.reply.code if lost.reply else None)
