"""A host's health: what one failure means, what two mean, and what makes them good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.host.health import PATIENCE_S, Health, Trouble

NOW = 1000.0
MIDDLE = 0.5


def healthy(most: int = 20) -> Health:
    """Return the health of a host that has just answered a mail."""
    health = Health("host:25", "relay", most=most, backoff_base_s=1.0, backoff_cap_s=60.0)
    answer(health, NOW)
    return health


def answer(health: Health, now: float) -> None:
    """Have the host answer a mail."""
    health.heard_at = now
    if now >= health.calm_until:
        health.recover(now, is_used=False, live=1)
        health.news()


def fail(
    health: Health,
    now: float,
    trouble: Trouble = Trouble.LOSS,
    *,
    proved: int = 0,
    asked_s: float = 0.0,
    began: float | None = None,
) -> float | None:
    """Have an attempt fail while `proved` others are there."""
    return health.fail(
        "no",
        trouble,
        began=now if began is None else began,
        now=now,
        proved=proved,
        chance=MIDDLE,
        at_least_s=asked_s,
    )


@pytest.mark.parametrize("trouble", [Trouble.LOSS, Trouble.REFUSAL])
def test_the_second_failure_closes_it(trouble: Trouble) -> None:
    health = healthy()
    again_in_s = fail(health, NOW, trouble)
    assert again_in_s is not None
    assert again_in_s < 0.1
    assert not health.backoff.is_closed(NOW)
    assert health.is_probing
    assert health.window.size == 1
    assert fail(health, NOW + 1, trouble) == 1.0
    assert health.backoff.is_closed(NOW + 1.5)
    assert not health.may_connect(NOW + 1.5)
    assert fail(health, NOW + 3, trouble) == 2.0


def test_a_success_in_between_makes_it_good() -> None:
    health = healthy()
    for second in range(20):
        fail(health, NOW + 2 * second)
        answer(health, NOW + 2 * second + 1)
    assert health.is_well
    assert health.backoff.failures == 0


def test_those_that_were_under_way_together_fail_together() -> None:
    health = healthy()
    fail(health, NOW + 1)
    assert fail(health, NOW + 1.1, began=NOW) is None
    assert health.strikes == 1


def test_what_the_host_says_itself_closes_it_at_once() -> None:
    assert fail(healthy(), NOW, Trouble.VERDICT, proved=5) == 1.0
    assert fail(healthy(), NOW, Trouble.REFUSAL, asked_s=300.0) == 300.0
    assert fail(healthy(), NOW, Trouble.VERDICT, asked_s=86_400.0) == 3600.0


def test_who_is_in_does_not_open_it_for_those_who_are_sent_away() -> None:
    health = healthy()
    fail(health, NOW, Trouble.VERDICT, proved=5)
    answer(health, NOW + 0.5)
    assert health.backoff.is_closed(NOW + 0.6)
    answer(health, NOW + 1.5)
    assert health.is_well


def test_a_connection_that_is_refused_while_others_work_cuts_the_window() -> None:
    health = healthy()
    health.window.size = 8
    again_in_s = fail(health, NOW, Trouble.REFUSAL, proved=5)
    assert again_in_s is not None
    assert not health.backoff.is_closed(NOW)
    assert not health.is_probing
    assert not health.may_connect(NOW + again_in_s / 2)
    assert health.may_connect(NOW + again_in_s)
    health.heard_at = NOW + 1
    assert not health.recover(NOW + 1, is_used=True, live=5)
    assert health.news() == 5
    assert health.news() is None
    assert (health.window.size, health.is_well) == (5, True)


def test_what_a_host_asks_for_while_others_work_is_for_more_than_those() -> None:
    health = healthy()
    health.window.size = 8
    assert fail(health, NOW, Trouble.REFUSAL, proved=5, asked_s=300.0) == 0.25
    assert fail(health, NOW, Trouble.REFUSAL, proved=5, asked_s=300.0, began=NOW - 1) is None
    assert health.strikes == 1
    assert health.may_connect(NOW + 0.25)
    answer(health, NOW + 1)
    assert not health.recover(NOW + 299, is_used=True, live=5)
    assert health.recover(NOW + 301, is_used=True, live=5)


def test_others_that_are_silent_do_not_work() -> None:
    health = healthy()
    later = NOW + PATIENCE_S
    fail(health, later, Trouble.REFUSAL, proved=5)
    assert health.is_probing
    assert health.window.ceiling is None


def test_pauses_grow_while_nothing_is_heard() -> None:
    health = healthy()
    pauses = [fail(health, NOW + at, Trouble.REFUSAL, proved=5) for at in (0, 1, 2, 4, 8)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_it_is_calm_when_a_success_changes_nothing() -> None:
    health = healthy(most=2)
    assert health.calm_until > NOW + 1e9
    fail(health, NOW)
    assert health.calm_until == 0.0


def test_what_was_learnt_elsewhere_is_known() -> None:
    health = healthy()
    health.know(3, NOW)
    for _ in range(10):
        health.recover(NOW, is_used=True, live=health.window.size)
    assert health.window.size == 3


steps = st.lists(
    st.tuples(
        st.sampled_from([*Trouble, None]),
        st.floats(0.0, 100.0),
        st.integers(0, 30),
        st.sampled_from((0.0, 0.0, 60.0)),
    ),
    max_size=60,
)


@given(steps)
def test_there_is_always_a_next_try(
    history: list[tuple[Trouble | None, float, int, float]],
) -> None:
    health, now = healthy(), NOW
    for trouble, pause_s, proved, asked_s in history:
        now += pause_s
        if trouble is None:
            answer(health, now)
            continue
        again_in_s = fail(health, now, trouble, proved=proved, asked_s=asked_s)
        assert again_in_s is None or 0.0 < again_in_s <= 3600.0
        assert health.window.size >= 1
        assert health.may_connect(now + 3601.0)
        assert health.is_well == (health.strikes == 0)
    answer(health, now + 3601.0)
    assert health.is_well
    assert health.may_connect(now + 3601.0)
