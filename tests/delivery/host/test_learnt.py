"""What a host can't bear is taken back for an hour, and never more than the owner has allowed."""

import pytest

from geomail.delivery.host.learnt import Learnt
from geomail.relays import Pipeline

HOUR = 3600.0


def test_pipelining_goes_down_step_by_step_and_comes_back() -> None:
    learnt = Learnt()
    assert learnt.pipeline(0.0, "overlap") == "overlap"
    assert learnt.pipeline_less(0.0, "overlap") == "message"
    assert learnt.pipeline_less(1.0, "overlap") == "off"
    assert learnt.pipeline_less(2.0, "overlap") is None
    assert learnt.pipeline(HOUR, "overlap") == "off"
    assert learnt.pipeline(HOUR + 1.0, "overlap") == "overlap"


@pytest.mark.parametrize("wanted", ["off", "message", "overlap"])
def test_pipelining_is_never_more_than_wanted(wanted: Pipeline) -> None:
    learnt = Learnt()
    learnt.pipeline_less(0.0, "overlap")
    assert learnt.pipeline(1.0, wanted) == ("off" if wanted == "off" else "message")


def test_chunking_is_proved_for_an_hour() -> None:
    learnt = Learnt()
    assert learnt.chunking(0.0, "on") == "prove"
    learnt.chunking_proved(0.0)
    assert learnt.chunking(HOUR - 1.0, "on") == "on"
    assert learnt.chunking(HOUR, "on") == "prove"
    assert learnt.chunking(0.0, "off") == "off"


def test_chunking_that_failed_is_off_for_an_hour_and_then_proved_anew() -> None:
    learnt = Learnt()
    learnt.chunking_proved(0.0)
    assert learnt.chunk_no_more(1.0)
    assert not learnt.chunk_no_more(1.0)
    assert learnt.chunking(HOUR, "on") == "off"
    assert learnt.chunking(HOUR + 1.0, "on") == "prove"
