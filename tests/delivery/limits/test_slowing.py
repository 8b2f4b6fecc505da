"""Slowing: cut to half, once a second; back by tenths; never faster than its rate."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from geomail.delivery.limits.slowing import Pulse, Slowing


def test_half_and_half_again_once_a_second() -> None:
    slowing = Slowing(10.0, rate=80.0)
    assert slowing.rate(10.0) == 40.0
    assert not slowing.cut(10.9)
    assert slowing.rate(10.9) == 40.0
    assert slowing.cut(11.0)
    assert slowing.rate(11.0) == 20.0


def test_back_by_tenths_until_it_is_whole() -> None:
    slowing = Slowing(5.0, rate=80.0)
    assert slowing.rate(10.0) == 40.0  # nothing was tried yet
    slowing.spend(10.0)
    assert slowing.rate(12.9) == 40.0
    assert slowing.rate(13.0) == pytest.approx(44.0)
    assert slowing.rate(16.0) == pytest.approx(48.4)
    assert not slowing.is_over(33.9)
    assert slowing.is_over(34.0)


def test_what_a_host_had_lately() -> None:
    pulse = Pulse(0.0)
    for tenth in range(100):
        pulse.note(tenth / 10, tenth * 5)
    assert pulse.rate(9.9, 495, since=0.0) == pytest.approx(50, rel=0.1)
    assert pulse.rate(9.9, 495, since=9.8) > 500
    assert pulse.rate(9.9, 495, since=9.9) < 2000


def test_there_is_a_slowest() -> None:
    slowing = Slowing(0.0, rate=0.0)
    assert slowing.rate(0.0) == 1.0
    for now in range(1, 10):
        slowing.cut(float(now))
    assert slowing.rate(9.0) == pytest.approx(0.1)
    assert slowing.wait_s(9.0) <= 10.0


@given(
    rate=st.floats(2.0, 1000),
    cuts=st.sets(st.integers(0, 30), max_size=5),
    steps=st.lists(st.floats(0.001, 2.0), max_size=100),
)
def test_never_faster_than_the_first_rate(rate: float, cuts: set[int], steps: list[float]) -> None:
    slowing, now, spent = Slowing(0.0, rate=rate), 0.0, list[float]()
    for at, step in enumerate(steps):
        now += step
        if at in cuts:
            slowing.cut(now)
        while slowing.wait_s(now) == 0.0 and len(spent) < 10_000:
            slowing.spend(now)
            spent.append(now)
        assert slowing.rate(now) <= rate
    for first in spent:
        assert sum(first <= each < first + 1.0 for each in spent) <= rate * 1.1 + 2
