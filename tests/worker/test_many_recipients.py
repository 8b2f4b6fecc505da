"""One job whose host takes fewer recipients at a time: one settlement, and a line for everybody."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hired import Place, mail, until, url

from geomail.sink import Sink
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy

pytest_plugins = ("worker_fixtures",)

EVERYBODY = [f"r{n}@example.org" for n in range(7)]


@pytest.mark.parametrize("most", [1, 3])
def test_everybody_gets_it_once_and_has_a_line(place: Place, most: int) -> None:
    arrived: Counter[str] = Counter()
    log = place.folder.parent / "log"
    policy = Policy(max_recipients=most)
    with Sink(policy=policy, on_mail=lambda _, to, __: arrived.update(to)) as host:
        place.worker(host, delivery_log=log)
        place.push(mail("m", to=EVERYBODY))
        until(lambda: place.held() == 0)
        assert arrived == dict.fromkeys(EVERYBODY, 1)
        assert host.count == -(-7 // most)
        stats = place.counts().stats
        assert (stats["delivered"], stats.get("retried", 0), stats.get("split", 0)) == (1, 0, 0)
        until(lambda: log.exists() and len(log.read_text().splitlines()) == 7)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert sorted(line["to"] for line in lines) == EVERYBODY
        assert {line["outcome"] for line in lines} == {"delivered"}


def test_the_rest_goes_on_over_another_connection(place: Place) -> None:
    """The host takes one transaction a connection; nobody gets it twice for that."""
    arrived: Counter[str] = Counter()
    policy = Policy(max_recipients=3, max_mails=1)
    with Sink(policy=policy, on_mail=lambda _, to, __: arrived.update(to)) as host:
        worker = place.worker(host)
        place.push(mail("m", to=EVERYBODY))
        until(lambda: place.held() == 0)
        assert arrived == dict.fromkeys(EVERYBODY, 1)
        assert worker.lane.is_well


def test_what_is_parked_is_for_those_who_are_left(place: Place) -> None:
    """The host leaves at the second transaction, and wants to be left alone: all go to Redis."""
    arrived: Counter[str] = Counter()
    asked: list[str] = []

    def leave_once(address: str) -> Answer | None:
        asked.append(address)
        if len(asked) == 2:
            return Answer(421, "4.7.0", "Enough, come back in 1 second")
        return None

    policy = Policy(max_recipients=3, check_sender=leave_once)
    with Sink(policy=policy, on_mail=lambda _, to, __: arrived.update(to)) as host:
        place.worker(host, lease_s=20)
        place.push(mail("m", to=EVERYBODY))
        until(lambda: sum(place.counts().parked.values()) == 1, within_s=20)
        assert sorted(arrived) == EVERYBODY[:3]
        until(lambda: place.held() == 0, within_s=20)
        assert arrived == dict.fromkeys(EVERYBODY, 1)
        assert place.counts().stats.get("retried", 0) == 0


def test_each_further_transaction_waits_for_its_time(place: Place, tmp_path: Path) -> None:
    times: list[float] = []
    policy = Policy(max_recipients=1)
    with Sink(policy=policy, on_mail=lambda *_: times.append(time.monotonic())) as sink:
        file = tmp_path / "geomail.toml"
        file.write_text(f"[relay.default]\nurl = '{url(sink)}'\nrate = '5/s'\n")
        place.worker(file=file)
        place.push(mail(0, to=[f"u{number}@example.org" for number in range(6)]))
        until(lambda: len(times) == 6, "all of them", within_s=20)
    assert times[-1] - times[0] >= 0.9
