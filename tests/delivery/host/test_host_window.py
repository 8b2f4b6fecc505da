"""The window: where it starts, how it grows, what a refusal does to it, and how it comes back."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from window_model import serve

from geomail.delivery.host.window import START, Window

HOUR = 3600.0


def refuse(window: Window, now: float, *, taken: int) -> None:
    """Refuse a connection that has just begun, while `taken` others carry mail."""
    window.refused(now, taken, began=now)


def grown_to(most: int, *, to: int) -> Window:
    """Return a window that has grown so far."""
    window = Window(most)
    while window.size < to:
        assert window.grow(0.0, window.size)
    return window


def test_it_starts_small_and_rests_at_the_most() -> None:
    window = Window(20)
    assert window.size == START
    assert grown_to(20, to=20).rests_until == inf
    assert Window(1).size == 1


def test_it_waits_for_those_that_are_still_connecting() -> None:
    window = Window(100)
    assert window.grow(0.0, 2)
    assert window.size == 3
    assert not window.grow(0.0, 2)
    assert window.grow(0.0, 3)


def test_a_refusal_cuts_it_to_what_the_host_has_accepted() -> None:
    window = grown_to(20, to=8)
    refuse(window, 100.0, taken=5)
    assert (window.size, window.ceiling) == (5, 5)
    assert not window.grow(101.0, 5)
    assert window.confirm() == 5
    assert window.confirm() is None


def test_one_that_was_accepted_after_all_raises_the_ceiling() -> None:
    window = grown_to(20, to=8)
    refuse(window, 100.0, taken=4)
    window.prove(5)
    assert (window.size, window.ceiling) == (5, 5)


def test_those_of_one_burst_are_one_refusal() -> None:
    window = grown_to(20, to=8)
    for taken in (7, 6, 5):  # counted at MAIL: those before it were accepted for a moment
        window.refused(100.0 + taken / 1000, taken, began=99.0)
    assert window.ceiling == 5


def test_trials_above_the_ceiling_are_ever_rarer() -> None:
    window = grown_to(20, to=8)
    now = 0.0
    refuse(window, now, taken=5)
    waits: list[float] = []
    while len(waits) < 9:
        began = now
        while not window.grow(now, 5):
            now += 1.0
        waits.append(now - began)
        assert window.size == 6
        refuse(window, now, taken=5)
        assert window.size == 5
    assert waits == [60, 120, 240, 480, 960, 1920, HOUR, HOUR, HOUR]


def test_no_trial_comes_before_the_host_has_asked_for_it() -> None:
    window = grown_to(20, to=8)
    window.refused(0.0, 5, began=0.0, asked_s=300.0)
    assert not window.grow(299.0, 5)
    assert window.grow(300.0, 5)


def test_a_trial_that_goes_well_is_followed_by_larger_ones() -> None:
    window = grown_to(1000, to=8)
    refuse(window, 0.0, taken=5)
    sizes = []
    while window.size < 100:
        assert window.grow(60.0, window.size)
        sizes.append(window.size)
    assert sizes == [6, 8, 12, 20, 36, 68, 132]
    refuse(window, 60.0, taken=80)
    assert (window.size, window.ceiling, window.rests_until) == (80, 80, 120.0)


def test_a_single_refusal_below_the_ceiling_is_no_news() -> None:
    window = grown_to(20, to=8)
    refuse(window, 0.0, taken=5)
    for now in (10.0, 11.0):
        refuse(window, now, taken=4)
        assert window.ceiling == 5
    window.prove(5)  # it was only that another one had not ended yet
    for now in (20.0, 21.0):
        refuse(window, now, taken=3)
    assert window.ceiling == 5
    refuse(window, 22.0, taken=3)
    assert (window.ceiling, window.size) == (3, 3)


def test_who_goes_down_refuses_connections_first() -> None:
    window = grown_to(20, to=20)
    refuse(window, 100.0, taken=7)
    window.confirm()
    window.shrink(101.0)
    assert (window.size, window.ceiling) == (1, None)


def test_a_ceiling_outlives_a_failure_of_the_host() -> None:
    window = grown_to(20, to=8)
    refuse(window, 0.0, taken=5)
    window.confirm()
    window.shrink(30.0)
    sizes = [window.size]
    while window.grow(31.0, window.size):
        sizes.append(window.size)
    assert sizes == [1, 2, 3, 4, 5]


def test_what_was_learnt_elsewhere_is_where_it_starts() -> None:
    window = Window(20)
    window.know(5, 0.0)
    while window.grow(1.0, window.size):
        pass
    assert window.size == 5
    assert window.grow(61.0, 5)
    window.know(9, 62.0)
    assert window.ceiling == 5  # it knows better


steps = st.lists(
    st.tuples(
        st.sampled_from(("grow", "refuse", "prove", "confirm", "shrink", "know")),
        st.integers(0, 50),
        st.floats(0.0, 4000.0),
    ),
    max_size=100,
)


@given(st.integers(1, 40), steps)
def test_it_is_never_empty_and_never_too_large(
    most: int, history: list[tuple[str, int, float]]
) -> None:
    window, now = Window(most), 0.0
    for step, number, pause_s in history:
        now += pause_s
        if step == "grow":
            before = window.size
            assert window.grow(now, min(number, window.size)) == (window.size > before)
        elif step == "refuse":
            window.refused(now, min(number, window.size), began=now - number)
        elif step == "prove":
            window.prove(min(number, most))
        elif step == "know":
            window.know(max(1, number), now)
        elif step == "shrink":
            window.shrink(now)
        else:
            window.confirm()
        assert 1 <= window.size <= most
        assert window.ceiling is None or window.ceiling >= 1


# ---- against a host that takes so many


@given(st.integers(1, 60), st.sampled_from((0.001, 0.02, 0.3)))
def test_hardly_a_connection_is_made_in_vain(takes: int, answer_s: float) -> None:
    run = serve(Window(100), takes=takes, answer_s=answer_s, mail_s=1.0, for_s=200.0)
    assert run.live == takes
    assert run.wasted <= 4 + takes


def test_five_of_twenty() -> None:
    run = serve(Window(20), takes=5, answer_s=0.01, mail_s=1.0, for_s=400.0)
    assert run.wasted <= 0.02 * run.mails
    assert run.mails >= 0.95 * 5 * 400


def test_twenty_are_there_at_once() -> None:
    run = serve(Window(20), takes=20, answer_s=0.001, mail_s=0.001, for_s=0.1)
    assert run.full_at_s < 0.03


def test_ten_thousand_are_there_within_half_a_minute() -> None:
    run = serve(Window(10_000), takes=10_000, answer_s=1.0, mail_s=1.0, for_s=31.0)
    assert run.full_at_s < 30.0
