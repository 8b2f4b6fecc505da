"""SASLprep: the examples of RFC 4013, its refusals, and what holds for any text."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.smtp.saslprep import prepared


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 section 3, 1 to 5
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("pass wörd", "pass wörd"),
        ("pass wo\u0308rd", "pass wörd"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("\u0627 1 \u0628", "\u0627 1 \u0628"),
        ("🔑", "🔑"),  # unknown to Unicode 3.2
    ],
)
def test_the_one_spelling(text: str, spelt: str) -> None:
    assert prepared(text) == spelt


@pytest.mark.parametrize(
    "text",
    [
        "\u0007",  # RFC 4013 section 3, 6 and 7
        "\u0627\u0031",
        "",
        "\u00ad",
        "a\x00b",
        "a\x7fb",
        "a\u0085b",
        "a\u200eb",
        "a\ue000b",
        "a\ufffdb",
        "\u0627a\u0628",
        "\U000e0041",
    ],
)
def test_what_has_no_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|forbids"):
        prepared(text)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="forbids"):
        prepared("a\ud800b")


@given(st.text())
def test_a_spelling_is_its_own(text: str) -> None:
    with suppress(ValueError):
        spelt = prepared(text)
        assert spelt
        assert prepared(spelt) == spelt
