"""A host that says "too much mail" is slowed down for, and gets its speed back when it takes it."""

import time

import pytest
from hired import Place, mails, until

from geomail import metrics
from geomail.sink import Sink
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy

pytest_plugins = ("worker_fixtures",)
TOO_MUCH = Answer(450, "4.7.1", "Error: too much mail from 127.0.0.1")


class Meter:
    """Accepts so many MAILs a second, evenly, with a little in hand."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.accepted = self.refused = 0
        self._next = 0.0

    def __call__(self, _sender: str) -> Answer | None:
        now = time.monotonic()
        if now < self._next:
            self.refused += 1
            return TOO_MUCH
        self._next = max(self._next, now - 0.2) + 1.0 / self.rate
        self.accepted += 1
        return None


def test_a_host_that_says_too_fast_is_approached_slower(place: Place) -> None:
    meter = Meter(rate=40.0)
    with Sink(policy=Policy(check_sender=meter)) as sink:
        worker = place.worker(sink, retry_base_s=1, retry_cap_s=2, retries=100)
        place.push(*mails(300))
        until(lambda: worker.lane.brake is not None, "a brake", within_s=20)
        until(lambda: meter.accepted >= 300, "all of them", within_s=60)
        assert metrics.snapshot()["slowed_down"] >= 1
        assert meter.refused < 300


def test_the_brake_goes_when_the_host_takes_them_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomail.delivery.limits.slowing._STEP_S", 0.1)
    meter = Meter(rate=20.0)
    with Sink(policy=Policy(check_sender=meter)) as sink:
        worker = place.worker(sink, retry_base_s=0.1, retry_cap_s=0.2, retries=100)
        place.push(*mails(50))
        until(lambda: worker.lane.brake is not None, "a brake", within_s=20)
        meter.rate = 1e6
        until(lambda: meter.accepted >= 50, "all of them", within_s=20)
        place.push(*mails(500))
        until(lambda: worker.lane.brake is None, "no brake", within_s=20)
        until(lambda: meter.accepted >= 550, "the rest", within_s=20)
