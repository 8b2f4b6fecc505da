"""The cache against a plain model, and at its bound."""

from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.dns.cache import Cache

STEPS = st.lists(
    st.tuples(st.sampled_from("pgt"), st.sampled_from("abcde"), st.integers(1, 5)), max_size=60
)


@given(steps=STEPS, most=st.integers(1, 4))
def test_it_is_a_map_that_forgets_what_is_old_or_not_used(
    steps: list[tuple[str, str, int]], most: int
) -> None:
    cache: Cache[int] = Cache(most)
    model: dict[str, tuple[int, int]] = {}  # in the order of use
    now = 0
    for verb, name, number in steps:
        if verb == "t":
            now += number
        elif verb == "p":
            model.pop(name, None)
            model[name] = (now + number, number)
            if len(model) > most:
                del model[next(iter(model))]
            cache.put(name, number, now + number)
        else:
            until, value = model.pop(name, (0, 0))
            expected = value if now < until else None
            if expected is not None:
                model[name] = (until, value)
            assert cache.get(name, now) == expected
        assert len(cache) == len(model)
