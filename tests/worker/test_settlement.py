"""What each mixture of outcomes becomes in Redis: the table of settlement, row by row."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from geomail.config import load
from geomail.delivery.delivery import Delivery
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import Address, Email
from geomail.queue import FRESH, Dead, Done, JobState, Retry, Slot, Split
from geomail.worker.settlement import record_of

NOW_MS = 1_795_000_000_000
OK = Outcome(Fate.DELIVERED, Blame.NOBODY, "end of data", "250 Ok", 250)
LATER = Outcome(Fate.LATER, Blame.MESSAGE, "RCPT", "451 Not now", 451)
NEVER = Outcome(Fate.NEVER, Blame.MESSAGE, "RCPT", "550 No such user", 550)
UNKNOWN = Outcome(Fate.UNKNOWN, Blame.BOTH, "end of data", "timed out")


def delivery(
    recipients: int = 1,
    *,
    state: JobState = FRESH,
    retries: int | None = None,
    first_seen_ms: int = NOW_MS - 1000,
) -> Delivery:
    slot = Slot("w", 1, 0, "w.1.0", 0, first_seen_ms, state, b"{}")
    to = [f"r{i}@example.org" for i in range(recipients)]
    queue = cast("Any", SimpleNamespace())  # a settlement asks it nothing
    return Delivery(
        queue,
        slot,
        email=Email(recipients=to, retries=retries),
        recipients=state.rcpt or to,
        sender=Address("me@example.com"),
        route="default",
    )


def settled(what: Delivery, *outcomes: Outcome, **environ: str) -> Any:
    variables = {f"GEOMAIL_{name.upper()}": value for name, value in environ.items()}
    return record_of(
        what, list(outcomes), settings=load({}, variables, places=()), now_ms=NOW_MS, chance=0.0
    )


def test_all_delivered_is_done() -> None:
    assert type(settled(delivery(2), OK, OK)) is Done


def test_some_later_is_a_retry_for_those_that_are_left() -> None:
    record = settled(delivery(3), OK, LATER, OK)
    assert type(record) is Retry
    assert record.state == JobState(tries=1, rcpt=["r1@example.org"], last="451 Not now")
    assert record.due_in_ms == 60_000


def test_all_later_keeps_no_list_of_recipients() -> None:
    assert settled(delivery(2), LATER, LATER).state.rcpt is None


def test_some_never_is_dead_for_those_that_are_left() -> None:
    record = settled(delivery(2), OK, NEVER)
    assert type(record) is Dead
    assert record.state.rcpt == ["r1@example.org"]
    assert record.state.reason == "RCPT: 550 No such user"


def test_a_key_is_noted_to_stay_where_some_have_had_it() -> None:
    claimed = JobState(dedupe="order 1")
    assert not settled(delivery(2, state=claimed), LATER, NEVER).parts[0].state.reached
    assert settled(delivery(2, state=claimed), OK, NEVER).state.reached
    assert not settled(delivery(2), OK, NEVER).state.reached
    split = settled(delivery(3, state=claimed), OK, LATER, NEVER)
    assert [part.state.reached for part in split.parts] == [True, True]
    later = JobState(dedupe="order 1", reached=True, rcpt=["r0@example.org"])
    assert settled(delivery(2, state=later), NEVER).state.reached


def test_later_and_never_part_ways() -> None:
    record = settled(delivery(3), OK, LATER, NEVER)
    assert type(record) is Split
    later, never = record.parts
    assert later.fate == ("retry", 60_000)
    assert later.state.rcpt == ["r1@example.org"]
    assert never.fate == "dead"
    assert never.state.rcpt == ["r2@example.org"]
    assert never.state.reason == "RCPT: 550 No such user"


def test_what_is_left_shrinks_with_each_try() -> None:
    state = JobState(tries=1, rcpt=["r1@example.org", "r2@example.org"])
    record = settled(delivery(3, state=state), LATER, OK)
    assert record.state == JobState(tries=2, rcpt=["r1@example.org"], last="451 Not now")
    assert record.due_in_ms == 120_000


@pytest.mark.parametrize(("tries", "fate"), [(1, Retry), (2, Dead)])
def test_the_last_try_is_followed_by_death(tries: int, fate: type) -> None:
    record = settled(delivery(state=JobState(tries=tries), retries=2), LATER)
    assert type(record) is fate


def test_the_seeds_schedule() -> None:
    waits, state = [], FRESH
    while True:
        record = settled(delivery(state=state), LATER, retries="4", retry_base_s="1")
        if type(record) is Dead:
            break
        waits.append(record.due_in_ms)
        state = record.state
    assert waits == [1000, 2000, 4000, 8000]


def test_a_mail_that_is_too_old_is_dead_with_the_last_reply() -> None:
    record = settled(delivery(first_seen_ms=NOW_MS - 433_000_000), LATER)
    assert type(record) is Dead
    assert record.state.reason == "RCPT: 451 Not now"


def test_a_mail_that_a_person_put_back_is_young_again() -> None:
    state = JobState(retried_ms=NOW_MS - 1000)
    record = settled(delivery(state=state, first_seen_ms=NOW_MS - 433_000_000), LATER)
    assert type(record) is Retry


def test_unknown_is_tried_once_more_then_dead_as_a_possible_duplicate() -> None:
    first = settled(delivery(), UNKNOWN)
    assert type(first) is Retry
    assert (first.state.tries, first.state.unknown) == (0, 1)
    second = settled(delivery(state=first.state), UNKNOWN)
    assert type(second) is Dead
    assert second.state.reason == "maybe_duplicate: end of data: timed out"


def test_unknown_is_held_where_the_settings_say_so() -> None:
    record = settled(delivery(), UNKNOWN, unknown="hold")
    assert type(record) is Dead


def test_a_state_keeps_what_it_knew() -> None:
    state = JobState(tries=3, unknown=1, route="default")
    record = settled(delivery(state=state), LATER)
    assert record.state == msgspec.structs.replace(state, tries=4, last="451 Not now")


def test_a_wait_that_the_host_asks_for_is_kept_to() -> None:
    asked = Outcome(Fate.LATER, Blame.MESSAGE, "RCPT", "451 Greylisted, retry in 10 minutes", 451)
    assert settled(delivery(), asked).due_in_ms == 600_000
    assert settled(delivery(2), asked, LATER).due_in_ms == 600_000  # one due time for both
    old = JobState(tries=5)
    assert settled(delivery(state=old), asked).due_in_ms == 60_000 * 2**5  # the schedule's is more


def test_a_refusal_for_good_asks_for_nothing() -> None:
    dead = Outcome(Fate.NEVER, Blame.MESSAGE, "RCPT", "550 blocked, retry in 2 hours", 550)
    record = settled(delivery(2), dead, LATER)
    assert type(record) is Split
    assert record.parts[0].fate == ("retry", 60_000)


def test_a_recipient_that_waits_for_a_better_login_counts_no_try() -> None:
    again = Outcome(Fate.AGAIN, Blame.HOST, "RCPT", "530 Log in first", 530)
    record = settled(delivery(2), OK, again)
    assert type(record) is Retry
    assert record.state == JobState(rcpt=["r1@example.org"], last="530 Log in first")
    record = settled(delivery(3), OK, again, NEVER)
    assert type(record) is Split
    assert [part.state.rcpt for part in record.parts] == [["r1@example.org"], ["r2@example.org"]]
