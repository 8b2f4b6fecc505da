"""Whose turn it is in a lane: shares by weight, nobody starves, order within a list is kept."""

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.ready import AnyReady, Fifo, Ready, cost_of, places, ready_for

LISTS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class _List:
    name: str


@dataclass(frozen=True, slots=True)
class _Slot:
    weight: int = 1000


@dataclass(frozen=True, slots=True)
class _Mail:
    """As much of a delivery as a ready queue looks at."""

    queue: _List
    number: int = 0
    slot: _Slot = _Slot()
    recipients: tuple[str, ...] = field(default=("bo@example.org",))


def mail(name: str, number: int = 0, *, size: int = 1000, recipients: int = 1) -> _Mail:
    return _Mail(_List(name), number, _Slot(size), ("bo@example.org",) * recipients)


def known(found: _Mail) -> tuple[str, int]:
    return found.queue.name, found.number


def fill(ready: AnyReady[_Mail], **counts: int) -> None:
    for name, count in counts.items():
        for number in range(count):
            ready.append(mail(name, number))


def served(ready: AnyReady[_Mail], count: int) -> list[str]:
    return [known(ready.popleft())[0] for _ in range(count)]


weights = st.fixed_dictionaries({name: st.integers(1, 50) for name in LISTS})


# ---- one list


def test_one_list_has_a_deque() -> None:
    assert isinstance(ready_for({"a": 7}), Fifo)
    assert isinstance(ready_for({"a": 7, "b": 1}), Ready)


@given(st.lists(st.sampled_from(["append", "appendleft", "popleft", "drain"])))
def test_one_list_is_served_in_order_however_it_is_kept(acts: list[str]) -> None:
    kept: list[AnyReady[_Mail]] = [Fifo(), Ready[_Mail]({"a": 3})]
    expected: deque[int] = deque()
    for number, act in enumerate(acts):
        if act == "drain":
            assert [[n for _, n in map(known, each.drain())] for each in kept] == [
                list(expected)
            ] * 2
            expected.clear()
        elif act != "popleft":
            getattr(expected, act)(number)
            for each in kept:
                getattr(each, act)(mail("a", number))
        elif expected:
            assert [known(each.popleft())[1] for each in kept] == [expected.popleft()] * 2
        assert [len(each) for each in kept] == [each.waiting("a") for each in kept]
        assert [bool(each) for each in kept] == [bool(expected)] * 2


def test_an_empty_one_says_so() -> None:
    for ready in (Fifo[_Mail](), Ready[_Mail]({"a": 1, "b": 1})):
        with pytest.raises(IndexError):
            ready.popleft()


# ---- several


@pytest.mark.parametrize(
    ("heavy", "order"), [(1, "abababab"), (3, "abaaabaaab"), (8, "abaaaaaaaabaa")]
)
def test_turns_are_spread_evenly(heavy: int, order: str) -> None:
    ready: AnyReady[_Mail] = ready_for({"b": 1, "a": heavy})
    fill(ready, a=100, b=100)
    assert "".join(served(ready, len(order))) == order


@given(weights, st.integers(1, 400))
def test_full_lists_get_their_shares_to_a_mail(parts: dict[str, int], count: int) -> None:
    ready = Ready[_Mail](parts)
    fill(ready, a=count, b=count, c=count)
    seen: Counter[str] = Counter()
    for _ in range(count):
        seen[known(ready.popleft())[0]] += 1
        had = {name: seen[name] / weight for name, weight in parts.items()}
        for one in LISTS:
            for other in LISTS:
                apart = abs(had[one] - had[other])
                assert apart <= 1 / parts[one] + 1 / parts[other] + 1e-6


@given(weights, st.integers(1, 300), st.integers(0, 300))
def test_what_comes_to_an_empty_list_is_behind_one_mail_of_each_other(
    parts: dict[str, int], full: int, done: int
) -> None:
    ready = Ready[_Mail](parts)
    fill(ready, b=full, c=full)
    served(ready, min(done, full))
    ready.append(mail("a"))
    assert "a" in served(ready, min(len(LISTS), len(ready)))


@given(weights, st.integers(1, 60))
def test_nobody_saves_up(parts: dict[str, int], away: int) -> None:
    ready = Ready[_Mail](parts)
    fill(ready, b=500)
    served(ready, away)
    fill(ready, a=500)
    seen = Counter(served(ready, 100))
    apart = abs(seen["a"] / parts["a"] - seen["b"] / parts["b"])
    assert apart <= 1 / parts["a"] + 1 / parts["b"] + 1e-6


@given(weights)
def test_a_list_that_trickles_gets_no_more_than_its_share(parts: dict[str, int]) -> None:
    ready = Ready[_Mail](parts)
    fill(ready, b=1000)
    seen: Counter[str] = Counter()
    for number in range(500):
        if not ready.waiting("a"):
            ready.append(mail("a", number))  # never more than one at a time
        seen[known(ready.popleft())[0]] += 1
    share = parts["a"] / (parts["a"] + parts["b"])
    assert seen["a"] <= share * 500 + 2


@given(
    weights,
    st.lists(
        st.tuples(st.sampled_from(["append", "appendleft", "popleft"]), st.sampled_from(LISTS))
    ),
)
def test_order_within_a_list_is_kept_and_nothing_is_lost(
    parts: dict[str, int], acts: list[tuple[str, str]]
) -> None:
    ready = Ready[_Mail](parts)
    expected: dict[str, deque[int]] = {name: deque() for name in LISTS}
    for number, (act, name) in enumerate(acts):
        if act == "popleft":
            if ready:
                came, which = known(ready.popleft())
                assert expected[came].popleft() == which
        else:
            getattr(ready, act)(mail(name, number))
            getattr(expected[name], act)(number)
        assert {each: ready.waiting(each) for each in LISTS} == {
            each: len(left) for each, left in expected.items()
        }
        assert len(ready) == sum(map(len, expected.values()))
    left: dict[str, list[int]] = {name: [] for name in LISTS}
    for came, which in map(known, ready.drain()):
        left[came].append(which)
    assert left == {name: list(numbers) for name, numbers in expected.items()}
    assert not ready


@given(weights, st.integers(1, 100))
def test_what_is_given_back_counts_as_never_taken(parts: dict[str, int], count: int) -> None:
    ready, undisturbed = Ready[_Mail](parts), Ready[_Mail](parts)
    for each in (ready, undisturbed):
        fill(each, a=200, b=200, c=200)
    for _ in range(count):
        ready.appendleft(ready.popleft())
        assert known(ready.popleft()) == known(undisturbed.popleft())


def test_what_was_drained_is_charged_to_nobody() -> None:
    ready = Ready[_Mail]({"a": 1, "b": 1})
    fill(ready, a=300)
    assert len(ready.drain()) == 300
    fill(ready, a=10, b=10)
    assert Counter(served(ready, 10)) == {"a": 5, "b": 5}


def test_an_unknown_list_has_the_weight_1() -> None:
    ready = Ready[_Mail]({"a": 3})
    fill(ready, a=100, other=100)
    assert Counter(served(ready, 40)) == {"a": 30, "other": 10}
    assert (ready.share("a"), ready.share("never seen")) == (1.0, 1 / 4)


# ---- what a mail counts for


@pytest.mark.parametrize(
    ("size", "recipients", "cost"),
    [(1, 1, 1), (65_535, 16, 1), (65_536, 1, 2), (10_000_000, 1, 153), (1000, 17, 2), (1, 100, 7)],
)
def test_large_mails_and_many_recipients_count_for_several(
    size: int, recipients: int, cost: int
) -> None:
    assert cost_of(mail("a", size=size, recipients=recipients)) == cost


def test_small_mails_do_not_wait_for_each_large_one() -> None:
    ready = Ready[_Mail]({"a": 1, "b": 1})
    for _ in range(10):
        ready.append(mail("b", size=1_000_000))
    fill(ready, a=100)
    assert Counter(served(ready, 64)) == {"a": 60, "b": 4}


# ---- how many of a list a lane wants


@given(
    st.integers(1, 20_000),
    st.integers(0, 20_000),
    st.lists(st.integers(1, 100), min_size=1, max_size=20),
)
def test_places_are_all_that_is_wanted_and_little_more(
    wanted: int, on_the_wire: int, parts: list[int]
) -> None:
    due = [
        places(wanted=wanted, on_the_wire=on_the_wire, share=part / sum(parts)) for part in parts
    ]
    assert min(due) >= 1
    assert sum(due) >= wanted - on_the_wire
    assert sum(due) <= max(wanted - on_the_wire, wanted // 4, min(16, 2 * wanted)) + len(due) + 1
