"""Tokens: each is spent at most once, not before its time, and not long after it."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from geomail.delivery.limits.rate import Tokens


def test_a_token_is_spent_when_its_time_has_come() -> None:
    tokens = Tokens(0.01)
    assert not tokens.spend(5.0)
    tokens.add(10.0, 3, 9.9)
    assert (tokens.held(9.9), tokens.due(9.9), tokens.next_s(9.9)) == (3, 0, 10.0)
    assert not tokens.spend(9.99)
    assert tokens.spend(10.001)
    assert tokens.due(10.001) == 0
    assert tokens.next_s(10.001) == pytest.approx(10.01)
    assert tokens.due(10.05) == 2
    assert [tokens.spend(10.05) for _ in range(3)] == [True, True, False]
    assert tokens.next_s(10.05) == math.inf


def test_a_late_token_is_void_and_counted() -> None:
    tokens = Tokens(0.01)
    tokens.add(10.0, 10, 9.9)
    assert tokens.due(10.2) == 0
    assert (tokens.held(10.2), tokens.unused) == (0, 10)
    tokens = Tokens(60.0)
    tokens.add(10.0, 1, 9.9)
    assert tokens.spend(15.9)


def test_a_token_is_taken_back() -> None:
    tokens = Tokens(1.0)
    tokens.add(10.0, 1, 9.0)
    assert tokens.spend(10.0)
    tokens.refund(10.0)
    assert tokens.spend(10.0)
    assert not tokens.spend(10.0)


def test_asked_for_is_what_waits_and_no_more_than_a_tenth_of_a_second_ahead() -> None:
    tokens = Tokens(0.01)
    assert tokens.to_ask_for(9.9, 0) == 0
    assert tokens.to_ask_for(9.9, 3) == 3
    assert tokens.to_ask_for(9.9, 300) == 10
    tokens.add(9.9, 10, 9.9)
    assert tokens.to_ask_for(9.9, 300) == 10
    tokens.add(10.0, 10, 9.9)
    assert tokens.to_ask_for(9.9, 300) == 0
    assert Tokens(10.0).to_ask_for(0.0, 5) == 1


def test_who_lets_tokens_go_void_asks_for_what_he_has_spent() -> None:
    tokens = Tokens(0.01)
    assert tokens.to_ask_for(9.9, 100) == 10
    tokens.add(9.9, 10, 9.9)
    assert [tokens.spend(9.92) for _ in range(4)] == [True, True, True, False]
    assert tokens.to_ask_for(10.5, 100) == 3
    tokens.unused = 0
    tokens.add(10.5, 3, 10.5)
    assert tokens.spend(10.52)
    assert tokens.to_ask_for(10.5, 100) == 6


def test_worth_is_about_two_seconds_of_grants() -> None:
    tokens = Tokens(0.01)
    now = 0.0
    while now < 20.0:
        tokens.add(now, 10, now)
        now += 0.1
    assert 180 < tokens.worth(now) < 220
    assert tokens.worth(now + 20) < 1


grants = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 20)), max_size=20)
steps = st.lists(st.floats(0, 0.3), max_size=200)


@given(interval_s=st.sampled_from([0.001, 0.01, 0.1, 1.0]), grants=grants, steps=steps)
def test_in_no_second_go_more_than_what_1_1_seconds_are_worth(
    interval_s: float, grants: list[tuple[float, int]], steps: list[float]
) -> None:
    tokens = Tokens(interval_s)
    at, made = 0.0, 0
    for pause, n in grants:
        tokens.add(at + pause, n, 0.0)
        at += pause + n * interval_s
        made += n
    now, spent = 0.0, list[float]()
    for step in steps:
        now += step
        assert tokens.due(now) + tokens.unused + len(spent) <= made
        while tokens.spend(now):
            spent.append(now)
    assert len(spent) + tokens.unused + tokens.held(now) == made
    for first in spent:
        within = sum(first <= each < first + 1.0 for each in spent)
        assert within <= math.ceil(1.1 / interval_s + 1e-6) + 1
