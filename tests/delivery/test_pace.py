"""Back-off doubles, stays below its cap and spreads."""

from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.pace import (
    JITTER,
    LEARNT_S,
    Backoff,
    Habits,
    deliveries_for,
    fair_share,
    is_too_old,
    retry_delay_s,
)

chances = st.floats(0.0, 1.0, exclude_max=True)
seconds = st.floats(0.001, 1e6)
moments = st.floats(0.0, 1e9)
MIDDLE = 0.5


def test_backoff_doubles_up_to_its_cap() -> None:
    backoff = Backoff(1.0, 20.0)
    assert [backoff.fail(0.0, MIDDLE) for _ in range(7)] == [1, 2, 4, 8, 16, 20, 20]
    assert backoff.failures == 7


@given(seconds, seconds, st.lists(chances, min_size=1, max_size=200))
def test_backoff_is_within_its_jitter(base_s: float, cap_s: float, rolls: list[float]) -> None:
    backoff = Backoff(base_s, cap_s)
    for number, chance in enumerate(rolls):
        middle = min(base_s * 2.0**number, cap_s)
        delay = backoff.fail(100.0, chance)
        assert middle * (1 - JITTER) * 0.999 <= delay <= middle * (1 + JITTER) * 1.001
        assert backoff.until == 100.0 + delay


def test_a_host_that_never_answers_is_asked_for_ever() -> None:
    backoff = Backoff(1.0, 300.0)
    for _ in range(5000):
        assert backoff.fail(0.0, MIDDLE) <= 300.0


@given(moments, chances)
def test_a_host_is_closed_until_its_time(now: float, chance: float) -> None:
    backoff = Backoff()
    assert not backoff.is_closed(now)
    backoff.fail(now, chance)
    assert backoff.is_closed(now)
    assert not backoff.is_closed(backoff.until)


@given(st.integers(1, 50), chances)
def test_success_forgets_all(failures: int, chance: float) -> None:
    backoff = Backoff(2.0, 300.0)
    for _ in range(failures):
        backoff.fail(50.0, chance)
    backoff.succeed()
    assert not backoff.is_closed(50.0)
    assert backoff.failures == 0
    assert backoff.fail(50.0, MIDDLE) == 2.0


@given(st.integers(1, 1000), seconds, seconds, chances)
def test_a_retry_waits_no_longer_than_said(
    tries: int, base_s: float, cap_s: float, chance: float
) -> None:
    delay = retry_delay_s(tries, base_s=base_s, cap_s=cap_s, chance=chance)
    most = min(base_s * 2.0 ** min(tries - 1, 60), cap_s)
    assert 0.9 * most * 0.999 <= delay <= most


def test_the_default_schedule_doubles_from_a_minute_to_four_hours() -> None:
    delays = [retry_delay_s(n, base_s=60, cap_s=14_400, chance=0.0) for n in range(1, 11)]
    assert delays == [60, 120, 240, 480, 960, 1920, 3840, 7680, 14_400, 14_400]
    total_s = sum(retry_delay_s(n, base_s=60, cap_s=14_400, chance=0.0) for n in range(1, 21))
    assert 2 * 86_400 <= total_s <= 2.5 * 86_400  # twenty retries are two days


def test_age_is_measured_from_first_seen() -> None:
    assert not is_too_old(1_000, 1_000, max_age_s=5)
    assert not is_too_old(1_000, 6_000, max_age_s=5)
    assert is_too_old(1_000, 6_001, max_age_s=5)


@given(seconds, chances, st.integers(0, 20))
def test_what_a_host_asks_for_is_the_least(asked_s: float, chance: float, failures: int) -> None:
    backoff = Backoff(1.0, 300.0)
    for _ in range(failures):
        backoff.fail(0.0, chance)
    delay = backoff.fail(100.0, chance, at_least_s=asked_s)
    assert delay >= asked_s
    assert backoff.until == 100.0 + delay


@given(st.integers(1, 1000), chances, st.floats(0.0, 86_400.0))
def test_a_retry_is_never_earlier_than_asked(tries: int, chance: float, asked_s: float) -> None:
    own = retry_delay_s(tries, base_s=60, cap_s=14_400, chance=chance)
    delay = retry_delay_s(tries, base_s=60, cap_s=14_400, chance=chance, at_least_s=asked_s)
    assert delay == max(own, asked_s * (1.0 + 0.1 * chance))


def test_an_idle_life_is_learnt_and_forgotten_after_an_hour() -> None:
    habits = Habits()
    assert habits.idle_s(0.0, 60.0) == 60.0
    habits.note_idle_end(100.0, 20.0)
    assert habits.idle_s(101.0, 60.0) == 18.0
    assert habits.idle_s(101.0, 10.0) == 10.0
    assert habits.idle_s(100.0 + LEARNT_S, 60.0) == 60.0


def test_an_end_at_once_teaches_no_idle_life() -> None:
    habits = Habits()
    habits.note_idle_end(100.0, 0.5)
    assert habits.idle_s(100.0, 60.0) == 60.0


def test_two_ends_at_the_same_number_teach_it() -> None:
    habits = Habits()
    ends = [habits.note_end(0.0, number, began=0.0) for number in (7, 5, 7, 7, 7)]
    assert ends == [False, False, False, True, False]
    assert habits.messages(1.0) == 7
    assert habits.messages(LEARNT_S) == 0


def test_ends_in_one_moment_teach_nothing() -> None:
    habits = Habits()
    assert not any(habits.note_end(10.0, 2, began=began) for began in (1.0, 2.0, 9.0))
    assert not habits.note_end(11.0, 2, began=9.5)
    assert habits.note_end(12.0, 2, began=10.1)


def test_a_host_that_says_why_is_believed_at_once() -> None:
    habits = Habits()
    assert habits.note_end(0.0, 50, began=0.0, is_said=True)
    assert habits.messages(1.0) == 50


def test_a_connection_that_carried_nothing_teaches_nothing() -> None:
    habits = Habits()
    for is_said in (False, False, True):
        assert not habits.note_end(0.0, 0, began=0.0, is_said=is_said)
    assert habits.messages(0.0) == 0


@given(st.lists(st.integers(0, 100), max_size=50), st.integers(1, 1000))
def test_a_share_leaves_nothing_over_that_somebody_wants(wants: list[int], places: int) -> None:
    share = fair_share(wants, places)
    had = [min(want, share) for want in wants]
    assert share >= 1
    assert sum(had) <= max(places, sum(want > 0 for want in wants))
    if sum(wants) <= places:
        assert share >= max(wants, default=0)
    else:
        assert sum(had) > places - len(wants) or share == 1


def test_who_wants_little_leaves_the_rest() -> None:
    assert fair_share([2, 100], 20) == 18
    assert fair_share([100, 100], 20) == 10
    assert fair_share([1, 2], 20) == 20
    assert fair_share([5] * 40, 20) == 1
    assert fair_share([], 20) == 20


@given(st.integers(1, 20_000), st.integers(2, 64))
def test_all_connections_have_something_to_send(connections: int, on_wire: int) -> None:
    wanted = deliveries_for(connections, depth=3 * on_wire, on_wire=on_wire)
    assert on_wire * connections < wanted <= 3 * on_wire * connections


def test_many_connections_hold_few_each() -> None:
    assert deliveries_for(1) == 8
    assert deliveries_for(20) == 160
    assert deliveries_for(10_000) < 24_000
