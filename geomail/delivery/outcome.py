"""What happened to a message, and judge(): the one place that decides what it means.

Everything that can end a delivery is turned into one Outcome per recipient. Two questions are
answered for each: what becomes of the message (its fate), and whose trouble it was (the blame).

    what happened                                        fate        blame
    2yz to the content                                   DELIVERED   nobody
    5yz to MAIL, RCPT, DATA or the content               NEVER       message
    530, 534, 535 to them: our login is wrong            AGAIN       host
    the same to RCPT, another recipient being accepted   LATER       message
    4yz to them, a 421 to the content included           LATER       message (421: both)
    anything before MAIL was answered                    AGAIN       host
    BDAT not understood                                  AGAIN       host
    452 4.5.3 to MAIL, where mails went before           AGAIN       connection
    lost after MAIL was answered, content not whole      LATER       both
    the same two, by EOF, reset or 421, on a connection
    that has delivered before: it is used up             AGAIN       connection
    last byte taken by the kernel, no final reply        UNKNOWN     both (used up: connection)

A message that is AGAIN a fourth time in one lane is made LATER by its sender: where others get
through, the host is not at fault.

A refusal that was read before the connection went stands: of MAIL for all, of RCPT for that
recipient. Only where the replies are out of step none is believed.

AGAIN counts no try: the message goes back to its lane as if it had never left. UNKNOWN alone means
that the message may have been delivered (`maybe_duplicate`), and it has tries of its own. The rule
for a lost connection is that of the message in work: a second one, whose MAIL was not answered yet,
is AGAIN whatever became of the first, and UNKNOWN where it had left whole (BDAT). A 421 that was
read where an answer was due answers all behind it too: replies come in the order of the commands,
and with this one the server has said that it takes no more.

Recipients that only were too many (452, or 552) are not judged at all but go on at once: surplus().
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


# Asked with each mail: a member of an Enum is 6 ns as a global, and 50 by its class.
_DELIVERED, _NOBODY, _CONTENT = Fate.DELIVERED, Blame.NOBODY, Awaited.CONTENT


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
# RFC 4954 section 6: these are about the login, whatever command they answer.
_LOGIN = frozenset({530, 534, 535})
_FINAL = frozenset({Awaited.CONTENT, Awaited.BDAT})


def judge(transaction: Transaction) -> list[Outcome]:
    """Return the outcome of each recipient of a finished transaction, in the letter's order."""
    final = transaction.final
    if final is not None and final.is_positive and len(transaction.rcpt) == 1:
        return [_by_reply(final, _CONTENT)]  # the steady state
    mail = transaction.mail
    if mail is not None and not mail.is_positive:
        return [_by_reply(mail, Awaited.MAIL)] * len(transaction.letter.recipients)
    reply, phase = final, Awaited.CONTENT
    if reply is None and transaction.data is not None and not transaction.data.is_intermediate:
        reply, phase = transaction.data, Awaited.DATA
    is_login_good = any(rcpt.is_positive for rcpt in transaction.rcpt)
    return [
        _by_reply(rcpt, Awaited.RCPT, is_login_good=is_login_good)
        if reply is None or not rcpt.is_positive
        else _by_reply(reply, phase)
        for rcpt in transaction.rcpt
    ]


def surplus(transaction: Transaction) -> list[int]:
    """Return the positions of recipients that were too many for a transaction that went well.

    RFC 5321 section 4.5.3.1.10: 452, and 552 of old, behind an accepted one. With every delivered
    transaction there are fewer, so that sending the rest at once comes to an end.
    """
    final = transaction.final
    if final is None or not final.is_positive or len(transaction.rcpt) < 2:
        return []
    replies = transaction.rcpt
    first = next((at for at, reply in enumerate(replies) if reply.is_positive), len(replies))
    return [at for at in range(first, len(replies)) if _says_too_many(replies[at])]


def judge_loss(
    lost: Lost,
    transaction: Transaction,
    *,
    is_sent_whole: bool,
    has_delivered: bool,
    is_first: bool = True,
) -> list[Outcome]:
    """Return the outcomes of a transaction that was under way when its connection was lost.

    `is_sent_whole`: the kernel took the last byte of the content. `has_delivered`: a message went
    through on this connection before. `is_first`: none was under way before it, so that the reply
    in `lost` was due to it. What was refused already keeps its refusal.
    """
    is_in_step = lost.cause is not Cause.OUT_OF_STEP
    mail = transaction.mail
    if is_in_step and mail is not None and not mail.is_positive:
        return [_by_reply(mail, Awaited.MAIL)] * len(transaction.letter.recipients)
    fate, blame = _by_loss(
        lost,
        transaction,
        is_unknown=is_sent_whole and not _is_answered(lost, is_first=is_first),
        has_delivered=has_delivered,
        cant_chunk=is_first and cant_chunk(lost),
    )
    phase = lost.phase.value if lost.phase is not None else "connect"
    outcome = Outcome(fate, blame, phase, str(lost), lost.reply.code if lost.reply else None)
    outcomes = [outcome] * len(transaction.letter.recipients)
    if is_in_step and fate is not Fate.AGAIN:
        for position, reply in enumerate(transaction.rcpt):
            if not reply.is_positive:
                outcomes[position] = _by_reply(reply, Awaited.RCPT)
    return outcomes


def cant_chunk(lost: Lost) -> bool:
    """Return whether a connection was lost because its server does not understand BDAT."""
    return lost.cause is Cause.OUT_OF_STEP and lost.phase is Awaited.BDAT and _is_5yz(lost.reply)


def is_connection_full(transaction: Transaction) -> bool:
    """Return whether MAIL was refused because the connection has carried as many as it may.

    4.5.3 is about recipients (RFC 3463), of which MAIL has none: OpenSMTPD's word for its limit.
    """
    mail = transaction.mail
    return mail is not None and mail.code == 452 and mail.enhanced == "4.5.3"


def judge_host(lost: Lost, *, has_delivered: bool) -> Blame:
    """Return what a lost connection means for its host: HOST, or CONNECTION when it is used up."""
    return Blame.CONNECTION if has_delivered and lost.cause in _USED_UP else Blame.HOST


def refused_here(reply: Reply, phase: str = "compose") -> Outcome:
    """Return the outcome of a message that we know this host can't take; nothing was sent."""
    return Outcome(Fate.NEVER, Blame.MESSAGE, phase, str(reply), reply.code)


def _by_reply(reply: Reply, phase: Awaited, *, is_login_good: bool = False) -> Outcome:
    if reply.is_positive:
        return Outcome(_DELIVERED, _NOBODY, phase._value_, str(reply), reply.code)
    if reply.code in _LOGIN and is_login_good:
        return Outcome(Fate.LATER, Blame.MESSAGE, phase.value, str(reply), reply.code)
    if reply.code in _LOGIN:
        return Outcome(Fate.AGAIN, Blame.HOST, phase.value, str(reply), reply.code)
    fate = Fate.LATER if reply.is_transient else Fate.NEVER
    return Outcome(fate, Blame.MESSAGE, phase.value, str(reply), reply.code)


def _by_loss(
    lost: Lost,
    transaction: Transaction,
    *,
    is_unknown: bool,
    has_delivered: bool,
    cant_chunk: bool,
) -> tuple[Fate, Blame]:
    blame = judge_host(lost, has_delivered=has_delivered)
    if is_unknown:
        return Fate.UNKNOWN, Blame.BOTH if blame is Blame.HOST else blame
    if transaction.mail is None or blame is Blame.CONNECTION or cant_chunk:
        return Fate.AGAIN, blame
    return Fate.LATER, Blame.BOTH


def _is_answered(lost: Lost, *, is_first: bool) -> bool:
    """Return whether the reply that ended the connection says that the message was not taken."""
    reply = lost.reply
    if reply is None or lost.phase is None or reply.code < 400:
        return False
    return reply.code == 421 or (is_first and lost.phase in _FINAL)


def _is_5yz(reply: Reply | None) -> bool:
    return reply is not None and reply.is_permanent


def _says_too_many(reply: Reply) -> bool:
    if reply.is_transient:
        return reply.code == 452 or (reply.enhanced or "").endswith(".5.3")
    return reply.code == 552
