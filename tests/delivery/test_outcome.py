"""The whole table of geomail.delivery.outcome, row by row."""

import pytest

from geomail.delivery.outcome import (
    Blame,
    Fate,
    Outcome,
    judge,
    judge_host,
    judge_loss,
    refused_here,
    surplus,
)
from geomail.letter import Letter
from geomail.smtp.events import Awaited, Cause, Lost, Transaction
from geomail.smtp.reply import Reply

CODES = [200, 250, 251, 252, 299]
LATER = [400, 421, 450, 451, 452, 455, 499]
NEVER = [500, 521, 550, 552, 554, 599]
LOGIN = [530, 534, 535]
TAKEN = 250


def reply(code: int) -> Reply:
    """Make a reply of one line."""
    return Reply(code, None, (f"said {code}",))


def transaction(
    *,
    mail: int | None = None,
    rcpt: tuple[int, ...] = (),
    data: int | None = None,
    final: int | None = None,
    size: int | None = None,
) -> Transaction:
    """Make a transaction with these replies, for `size` recipients."""
    names = tuple(f"{n}@b.example" for n in range(size or len(rcpt) or 1))
    made = Transaction(Letter("a@a.example", names, b"a\r\n", False, False), None)
    made.mail = mail and reply(mail)  # type: ignore[assignment] # no code is 0
    made.rcpt = [reply(code) for code in rcpt]
    made.data = data and reply(data)  # type: ignore[assignment]
    made.final = final and reply(final)  # type: ignore[assignment]
    return made


def shown(outcomes: list[Outcome]) -> list[tuple[Fate, Blame, str, int | None]]:
    """Return what decides in each outcome."""
    return [(o.fate, o.blame, o.phase, o.code) for o in outcomes]


def refused(code: int, phase: str) -> tuple[Fate, Blame, str, int]:
    """Return what a 4yz or 5yz has to become."""
    return Fate.LATER if code < 500 else Fate.NEVER, Blame.MESSAGE, phase, code


def delivered(code: int = TAKEN) -> tuple[Fate, Blame, str, int]:
    """Return what a 2yz to the content has to become."""
    return Fate.DELIVERED, Blame.NOBODY, "end of data", code


# ---- judge: every reply is in


@pytest.mark.parametrize("rcpt", [(250,), (250, 250), (251, 252, 250)])
@pytest.mark.parametrize("final", [*CODES, *LATER, *NEVER])
def test_the_final_reply_is_for_all(rcpt: tuple[int, ...], final: int) -> None:
    found = judge(transaction(mail=250, rcpt=rcpt, data=354, final=final))
    expected = delivered(final) if final < 300 else refused(final, "end of data")
    assert shown(found) == [expected] * len(rcpt)
    assert not any(outcome.maybe_duplicate for outcome in found)


@pytest.mark.parametrize("code", [*LATER, *NEVER])
def test_a_refused_sender_is_the_whole_message(code: int) -> None:
    one_by_one = transaction(mail=code, size=2)
    pipelined = transaction(mail=code, rcpt=(503, 250), data=503)
    with_a_lone_dot = transaction(mail=code, rcpt=(250, 250), data=354)
    for made in (one_by_one, pipelined, with_a_lone_dot):
        assert shown(judge(made)) == [refused(code, "MAIL")] * 2


@pytest.mark.parametrize("code", [*LATER, *NEVER])
@pytest.mark.parametrize("data", [None, 354, 503, 554])
def test_all_recipients_refused(code: int, data: int | None) -> None:
    found = judge(transaction(mail=250, rcpt=(code, 551, 450), data=data))
    assert shown(found) == [refused(c, "RCPT") for c in (code, 551, 450)]


@pytest.mark.parametrize("code", [*LATER, *NEVER])
def test_data_refused(code: int) -> None:
    found = judge(transaction(mail=250, rcpt=(250, 550, 450), data=code))
    assert shown(found) == [refused(code, "DATA"), refused(550, "RCPT"), refused(450, "RCPT")]


def test_each_refused_recipient_has_its_own_reply() -> None:
    found = judge(transaction(mail=250, rcpt=(550, 250, 451, 250), data=354, final=250))
    assert shown(found) == [refused(550, "RCPT"), delivered(), refused(451, "RCPT"), delivered()]
    assert [o.text for o in found[:3]] == ["550 said 550", "250 said 250", "451 said 451"]


def test_a_refused_content_leaves_refused_recipients_their_reply() -> None:
    found = judge(transaction(mail=250, rcpt=(550, 250), data=354, final=451))
    assert shown(found) == [refused(550, "RCPT"), refused(451, "end of data")]


# ---- judge_loss: the connection went first

CAUSES = [Cause.CLOSED, Cause.REFUSED, Cause.TIMEOUT, Cause.OUT_OF_STEP, Cause.TLS]
USED_UP = [Cause.CLOSED, Cause.REFUSED]
BEFORE = [
    (Awaited.MAIL, transaction()),
    (Awaited.CONTENT, transaction()),  # of the message before this one
    (Awaited.RSET, transaction()),
]
BETWEEN = [
    (Awaited.RCPT, transaction(mail=250, size=1)),
    (Awaited.DATA, transaction(mail=250, rcpt=(250,))),
    (None, transaction(mail=250, rcpt=(250,), data=354)),
    (Awaited.CONTENT, transaction(mail=250, rcpt=(250,), data=354)),
]


def loss(cause: Cause, phase: Awaited | None, code: int | None = None) -> Lost:
    """Make the end of a connection; by a reply where `code` is given."""
    return Lost(cause, phase, "it ended", reply(code) if code else None)


def judged(
    lost: Lost, made: Transaction, *, whole: bool = False, before: bool = False
) -> tuple[Fate, Blame]:
    """Judge a loss for one recipient."""
    (outcome,) = judge_loss(lost, made, is_sent_whole=whole, has_delivered=before)
    assert outcome.maybe_duplicate == (outcome.fate is Fate.UNKNOWN)
    return outcome.fate, outcome.blame


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(("phase", "made"), BEFORE)
def test_before_mail_was_answered_it_is_the_host(
    cause: Cause, phase: Awaited, made: Transaction
) -> None:
    assert judged(loss(cause, phase), made) == (Fate.AGAIN, Blame.HOST)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(("phase", "made"), BETWEEN)
def test_after_mail_was_answered_it_is_both(
    cause: Cause, phase: Awaited | None, made: Transaction
) -> None:
    assert judged(loss(cause, phase), made) == (Fate.LATER, Blame.BOTH)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(("phase", "made"), [*BEFORE, *BETWEEN])
def test_a_connection_that_has_delivered_may_be_used_up(
    cause: Cause, phase: Awaited | None, made: Transaction
) -> None:
    found = judged(loss(cause, phase), made, before=True)
    if cause in USED_UP:
        assert found == (Fate.AGAIN, Blame.CONNECTION)
    else:
        assert found == judged(loss(cause, phase), made)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("before", [True, False])
def test_sent_whole_and_no_reply_is_unknown(cause: Cause, before: bool) -> None:
    made = transaction(mail=250, rcpt=(250,), data=354)
    blame = Blame.CONNECTION if before and cause in USED_UP else Blame.BOTH
    found = judged(loss(cause, Awaited.CONTENT), made, whole=True, before=before)
    assert found == (Fate.UNKNOWN, blame)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("phase", "made"), [*BEFORE, *BETWEEN])
def test_only_what_was_sent_whole_is_unknown(
    cause: Cause, before: bool, phase: Awaited | None, made: Transaction
) -> None:
    fate, _ = judged(loss(cause, phase), made, before=before)
    assert fate in (Fate.AGAIN, Fate.LATER)


@pytest.mark.parametrize(
    ("code", "before", "expected"),
    [
        (421, False, (Fate.LATER, Blame.BOTH)),
        (421, True, (Fate.AGAIN, Blame.CONNECTION)),
    ],
)
def test_a_421_to_the_content_is_an_answer(
    code: int, before: bool, expected: tuple[Fate, Blame]
) -> None:
    made = transaction(mail=250, rcpt=(250,), data=354)
    lost = loss(Cause.REFUSED, Awaited.CONTENT, code)
    assert judged(lost, made, whole=True, before=before) == expected


def test_a_3yz_to_the_content_is_no_answer() -> None:
    """It belongs to something else, so nobody knows what became of the mail."""
    made = transaction(mail=250, rcpt=(250,), data=354)
    lost = loss(Cause.OUT_OF_STEP, Awaited.CONTENT, 354)
    assert judged(lost, made, whole=True) == (Fate.UNKNOWN, Blame.BOTH)


def test_a_421_to_the_next_message_is_no_answer_to_this_one() -> None:
    made = transaction(mail=250, rcpt=(250,), data=354)
    lost = loss(Cause.REFUSED, None, 421)
    assert judged(lost, made, whole=True) == (Fate.UNKNOWN, Blame.BOTH)


def test_a_connection_lost_over_the_first_does_not_count_for_the_second() -> None:
    lost = loss(Cause.TIMEOUT, Awaited.CONTENT)
    first, second = transaction(mail=250, rcpt=(250,), data=354), transaction()
    assert judged(lost, first, whole=True) == (Fate.UNKNOWN, Blame.BOTH)
    assert judged(lost, second) == (Fate.AGAIN, Blame.HOST)


@pytest.mark.parametrize(("whole", "fate"), [(True, Fate.UNKNOWN), (False, Fate.LATER)])
def test_refused_recipients_keep_their_refusal(whole: bool, fate: Fate) -> None:
    made = transaction(mail=250, rcpt=(550, 250, 451), data=354)
    lost = loss(Cause.TIMEOUT, Awaited.CONTENT)
    found = judge_loss(lost, made, is_sent_whole=whole, has_delivered=False)
    assert shown(found) == [
        refused(550, "RCPT"),
        (fate, Blame.BOTH, "end of data", None),
        refused(451, "RCPT"),
    ]
    assert found[1].text == "end of data: timed out: it ended"


def test_recipients_not_yet_answered_share_the_loss() -> None:
    made = transaction(mail=250, rcpt=(550, 250), size=4)
    lost = loss(Cause.REFUSED, Awaited.RCPT, 421)
    found = judge_loss(lost, made, is_sent_whole=False, has_delivered=False)
    later = (Fate.LATER, Blame.BOTH, "RCPT", 421)
    assert shown(found) == [refused(550, "RCPT"), later, later, later]


def test_again_is_for_all_recipients_alike() -> None:
    """A message that goes back as if it had never left takes nothing with it."""
    made = transaction(mail=250, rcpt=(550, 250), size=3)
    lost = loss(Cause.CLOSED, Awaited.RCPT)
    found = judge_loss(lost, made, is_sent_whole=False, has_delivered=True)
    assert {outcome.fate for outcome in found} == {Fate.AGAIN}
    assert len(found) == 3


@pytest.mark.parametrize("code", [450, 550])
@pytest.mark.parametrize("cause", [c for c in CAUSES if c is not Cause.OUT_OF_STEP])
@pytest.mark.parametrize("before", [True, False])
def test_a_refused_sender_explains_the_end(code: int, cause: Cause, before: bool) -> None:
    """Whoever refuses MAIL and hangs up has said what it thinks of the message."""
    lost = loss(cause, Awaited.RCPT)
    found = judge_loss(
        lost, transaction(mail=code, size=2), is_sent_whole=False, has_delivered=before
    )
    assert shown(found) == [refused(code, "MAIL")] * 2


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "made", [transaction(mail=550, size=2), transaction(mail=250, rcpt=(550, 550))]
)
def test_replies_out_of_step_make_nothing_dead(before: bool, made: Transaction) -> None:
    """The 550 may have been the answer to something else."""
    lost = loss(Cause.OUT_OF_STEP, Awaited.DATA, 250)
    found = judge_loss(lost, made, is_sent_whole=False, has_delivered=before)
    assert shown(found) == [(Fate.LATER, Blame.BOTH, "DATA", 250)] * 2


# ---- judge_host


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("before", [True, False])
def test_whose_trouble_a_lost_connection_is(cause: Cause, before: bool) -> None:
    is_used_up = before and cause in USED_UP
    expected = Blame.CONNECTION if is_used_up else Blame.HOST
    assert judge_host(loss(cause, None), has_delivered=before) is expected


def test_what_is_refused_here_is_never() -> None:
    found = refused_here(Reply(554, "5.3.4", ("5.3.4 too large",)))
    assert found == Outcome(Fate.NEVER, Blame.MESSAGE, "compose", "554 5.3.4 too large", 554)


# ---- the login


@pytest.mark.parametrize("code", LOGIN)
def test_a_wrong_login_is_never_the_message_s(code: int) -> None:
    again = (Fate.AGAIN, Blame.HOST)
    at_mail = judge(transaction(mail=code, rcpt=(503, 503), data=503))
    assert shown(at_mail) == [(*again, "MAIL", code)] * 2
    assert shown(judge(transaction(mail=250, rcpt=(code,), data=503))) == [(*again, "RCPT", code)]
    assert shown(judge(transaction(mail=250, rcpt=(250,), data=code))) == [(*again, "DATA", code)]
    at_end = judge(transaction(mail=250, rcpt=(250,), data=354, final=code))
    assert shown(at_end) == [(*again, "end of data", code)]


# ---- several in flight (BDAT)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("phase", [Awaited.RSET, Awaited.MAIL, Awaited.RCPT, Awaited.BDAT])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_421_where_an_answer_was_due_answers_all_behind_it(
    before: bool, phase: Awaited, is_first: bool
) -> None:
    made = transaction(mail=250) if is_first and phase is Awaited.BDAT else transaction()
    (found,) = judge_loss(
        loss(Cause.REFUSED, phase, 421),
        made,
        is_sent_whole=True,
        has_delivered=before,
        is_first=is_first,
    )
    if before:
        assert (found.fate, found.blame) == (Fate.AGAIN, Blame.CONNECTION)
    elif made.mail is None:
        assert (found.fate, found.blame) == (Fate.AGAIN, Blame.HOST)
    else:
        assert (found.fate, found.blame) == (Fate.LATER, Blame.BOTH)


@pytest.mark.parametrize("cause", [Cause.CLOSED, Cause.TIMEOUT, Cause.OUT_OF_STEP])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_left_whole_and_was_not_answered_is_unknown(
    cause: Cause, before: bool, is_first: bool
) -> None:
    (found,) = judge_loss(
        loss(cause, Awaited.MAIL),
        transaction(),
        is_sent_whole=True,
        has_delivered=before,
        is_first=is_first,
    )
    assert found.fate is Fate.UNKNOWN


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
@pytest.mark.parametrize("before", [True, False])
def test_a_bdat_that_is_not_understood_leaves_its_message_untouched(
    code: int, before: bool
) -> None:
    lost = loss(Cause.OUT_OF_STEP, Awaited.BDAT, code)
    first = judge_loss(
        lost, transaction(mail=250, rcpt=(250,)), is_sent_whole=True, has_delivered=before
    )
    assert shown(first) == [(Fate.AGAIN, Blame.HOST, "BDAT", code)]
    (behind,) = judge_loss(
        lost, transaction(), is_sent_whole=True, has_delivered=before, is_first=False
    )
    assert behind.fate is Fate.UNKNOWN


@pytest.mark.parametrize("code", [250, 354])
@pytest.mark.parametrize("phase", [Awaited.BDAT, Awaited.CONTENT])
def test_a_reply_out_of_step_that_is_no_refusal_answers_nothing(phase: Awaited, code: int) -> None:
    lost = loss(Cause.OUT_OF_STEP, phase, code)
    made = transaction(mail=250, rcpt=(550,))
    (found,) = judge_loss(lost, made, is_sent_whole=True, has_delivered=True)
    assert found.fate is Fate.UNKNOWN


# ---- surplus


@pytest.mark.parametrize(
    ("rcpt", "expected"),
    [
        ((250, 452), [1]),
        ((250, 552, 250, 452), [1, 3]),
        ((250, 550, 451, 452), [3]),
        ((452, 250), []),  # before any was accepted it is that recipient's own
        ((452, 250, 452), [2]),
        ((250, 250), []),
        ((250,), []),
    ],
)
def test_who_was_too_many(rcpt: tuple[int, ...], expected: list[int]) -> None:
    assert surplus(transaction(mail=250, rcpt=rcpt, data=354, final=250)) == expected


def test_an_enhanced_code_says_too_many_as_well() -> None:
    made = transaction(mail=250, rcpt=(250, 451, 451), data=354, final=250)
    made.rcpt[2] = Reply(451, "4.5.3", ("4.5.3 too many",))
    assert surplus(made) == [2]


@pytest.mark.parametrize("final", [451, 550, None])
def test_nobody_goes_on_where_nobody_was_delivered(final: int | None) -> None:
    assert surplus(transaction(mail=250, rcpt=(250, 452), data=354, final=final)) == []
