"""What a status means, and when a host wants to be asked again."""

import pytest
from hypothesis import given, strategies

from geomail.carriers.verdict import again_in_s, judge_status
from geomail.delivery.outcome import Blame, Fate

_NOW_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("Fri, 14 Nov 2999 22:00:00 GMT", 86_400),
        ("9" * 400, 86_400),
        *(
            (bad, None)
            for bad in ("", "soon", "-1", "1.5", "\u0661", "Tue, 99 Nov 2023 22:14:20 GMT")
        ),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert again_in_s(text, now_s=_NOW_S) == seconds


def test_nothing_asked() -> None:
    assert again_in_s(None, now_s=_NOW_S) is None


@given(strategies.text())
def test_any_text_is_a_time_or_nothing(text: str) -> None:
    found = again_in_s(text, now_s=_NOW_S)
    assert found is None or 0 <= found <= 86_400


def test_every_status_means_something() -> None:
    for status in range(200, 1000):
        outcome = judge_status(status, "")
        is_later = status in (408, 425, 429) or status >= 500
        fate = Fate.DELIVERED if status < 300 else Fate.LATER if is_later else Fate.NEVER
        assert (outcome.fate, outcome.code, outcome.text) == (fate, status, str(status))
        assert outcome.blame is (Blame.NOBODY if status < 300 else Blame.MESSAGE)
