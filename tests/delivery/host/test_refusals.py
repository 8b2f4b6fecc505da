"""Equal refusals in a row: whose they are, and how long anybody waits to know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.host.refusals import Refusals, Ruling

NO = "550 5.7.1 Not today"


def refuse(refusals: Refusals[str], what: str, sender: str, now: float = 0.0) -> tuple[Ruling, str]:
    ruling, released = refusals.refuse(what, sender=sender, text=NO, now=now)
    return ruling, "".join(released)


def test_the_nth_from_two_senders_is_the_hosts() -> None:
    refusals = Refusals[str](5)
    for what, sender in zip("abcd", "xxyx", strict=True):
        assert refuse(refusals, what, sender) == (Ruling.UNDECIDED, "")
    assert refuse(refusals, "e", "x") == (Ruling.HOST, "abcde")
    assert refuse(refusals, "f", "z") == (Ruling.HOST, "f")  # its probe is told the same


def test_the_nth_from_one_sender_is_the_messages() -> None:
    refusals = Refusals[str](3)
    assert [refuse(refusals, what, "x")[0] for what in "ab"] == [Ruling.UNDECIDED] * 2
    assert refuse(refusals, "c", "x") == (Ruling.MESSAGES, "abc")
    assert refuse(refusals, "d", "x") == (Ruling.MESSAGES, "d")
    assert refuse(refusals, "e", "y") == (Ruling.HOST, "e")


def test_a_run_that_ends_releases_what_it_held() -> None:
    refusals = Refusals[str](3)
    refuse(refusals, "a", "x")
    refuse(refusals, "b", "y")
    assert not refusals.ends_with(NO)
    assert refusals.ends_with("550 other")
    assert refusals.end() == ["a", "b"]
    assert refusals.run == 0
    assert refuse(refusals, "c", "x") == (Ruling.UNDECIDED, "")


def test_nobody_is_held_for_longer_than_said() -> None:
    refusals = Refusals[str](5, hold_s=10.0)
    refuse(refusals, "a", "x", now=0.0)
    refuse(refusals, "b", "y", now=4.0)
    assert refusals.overdue(9.9) == []
    assert refusals.overdue(10.0) == ["a"]
    assert refusals.overdue(13.9) == []
    assert refusals.overdue(14.0) == ["b"]
    assert refusals.run > 0  # they still count


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("pq")), max_size=40),
    st.integers(1, 6),
)
def test_everything_that_goes_in_comes_out_once(steps: list[tuple[str, str]], most: int) -> None:
    refusals = Refusals[int](most)
    out: list[int] = []
    for number, (sender, text) in enumerate(steps):
        if refusals.ends_with(text):
            out += refusals.end()
        ruling, released = refusals.refuse(number, sender=sender, text=text, now=float(number))
        assert bool(released) == (ruling is not Ruling.UNDECIDED)
        out += released
        out += refusals.overdue(number - 3.0)
    assert sorted(out + refusals.release()) == list(range(len(steps)))


@pytest.mark.parametrize("most", [1, 2])
def test_a_low_limit_decides_at_once(most: int) -> None:
    refusals = Refusals[str](most)
    found = [refuse(refusals, what, sender)[0] for what, sender in zip("ab", "xy", strict=True)]
    assert found[-1] is Ruling.HOST
