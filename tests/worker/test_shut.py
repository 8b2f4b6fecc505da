"""What is met for a relay that takes nothing: parked at a glance, and judged when it is taken."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hired import Place, mail, until, url

from geomail import job
from geomail.queue import FRESH, JobState, Park, Slot
from geomail.sink import Sink
from geomail.worker import admission
from geomail.worker.shut import Shut

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 20.0
STATE = JobState(route="sick")


def slot(payload: bytes, state: JobState = FRESH) -> Slot:
    return Slot("w", 1, 0, "w.1.0", 0, 0, state, payload)


class Relay:
    """As much of a route as is asked about here."""

    name = "sick"
    is_held = False

    def __init__(self, opens_in_s: float) -> None:
        self._opens_in_s = opens_in_s

    def opens_in_s(self, _now: float) -> float:
        return self._opens_in_s


class House:
    """A relay, and which relays are `mx`."""

    def __init__(self, relay: Relay) -> None:
        self.routes = {"sick": relay}
        self.directs: dict[str, Relay] = {}
        self.guests: dict[str, Relay] = {}


def noted(opens_in_s: float) -> Shut:
    shut = Shut(House(Relay(opens_in_s)))  # type: ignore[arg-type]
    shut.note(Park(slot(mail(1, relay="sick")), "sick", 7, STATE), 100.0)
    return shut


def test_a_mail_for_a_relay_that_is_shut_is_parked() -> None:
    shut = noted(5.0)
    record = shut.park(slot(mail(1, relay="sick")), None)
    assert record is not None
    assert (record.route, record.retry_in_ms, record.state) == ("sick", 7, STATE)
    assert shut.park(slot(mail(1)), "sick") is not None
    for payload in (mail(1), mail(1, relay="well"), mail(1, relay="sick", dedupe_key="k"), b"{"):
        assert shut.park(slot(payload), None) is None
    assert shut.park(slot(mail(1, relay="sick"), JobState(tries=1)), None) is None


def test_a_relay_that_backs_off_is_trusted_to_do_so_for_a_moment() -> None:
    shut = noted(5.0)
    shut.begin(100.1)
    assert shut.relays
    shut.begin(101.0)
    assert not shut.relays


def test_a_relay_that_is_full_may_have_room_in_the_next_batch() -> None:
    shut = noted(0.0)
    assert shut.relays
    shut.begin(100.0)
    assert not shut.relays


def test_what_tasks_find_closed_says_nothing_of_mails() -> None:
    house = House(Relay(5.0))
    house.guests = house.routes
    shut = Shut(house)  # type: ignore[arg-type]
    shut.note(Park(slot(b'{"url":"http://x.org/"}'), "sick", 7, STATE), 100.0)
    assert not shut.relays


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file with relays of these URLs."""

    def write(**relays: str) -> Path:
        file = tmp_path / "geomail.toml"
        file.write_text("".join(f'[relay.{n}]\nurl = "{to}"\n' for n, to in relays.items()))
        return file

    return write


def test_of_a_closed_relay_hardly_a_mail_is_read(
    place: Place, sink: Sink, configured: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def decode(payload: bytes) -> job.Job:
        read.append(payload)
        return job.decode(payload)

    monkeypatch.setattr(admission, "decode", decode)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        file = configured(well=url(sink), sick=f"smtp://127.0.0.1:{nobody.getsockname()[1]}")
        pairs = [(mail(n, relay="well"), mail(f"s{n}", relay="sick")) for n in range(1000)]
        place.push(*(each for pair in pairs for each in pair))
        place.worker(file=file, backoff_base_s=60, backoff_cap_s=60)
        until(lambda: sink.count == 1000, within_s=WITHIN_S)
        until(lambda: place.counts().parked.get("sick") == 1000, within_s=WITHIN_S)
    assert sum(b'"sick"' in payload for payload in read) < 300


def test_what_was_parked_unread_is_judged_when_it_may_go(
    place: Place, sink: Sink, configured: Callable[..., Path]
) -> None:
    with Sink() as other:
        place.desk.hold("relay", "sick", on=True)
        place.worker(file=configured(well=url(sink), sick=url(other)))
        place.push(*[mail(n, relay="sick") for n in range(50)])
        place.push(mail("bad", relay="sick", to=["no address"]), mail("well", relay="well"))
        until(lambda: sink.count == 1, within_s=WITHIN_S)
        until(lambda: place.counts().parked.get("sick") == 51, within_s=WITHIN_S)
        place.desk.hold("relay", "sick", on=False)
        until(lambda: place.counts().dead == 1 and other.count == 50, within_s=WITHIN_S)
    assert "no address" in place.desk.dead_list(1)[0].reason


def test_what_another_list_met_is_looked_for_in_this_one_too(
    place: Place, sink: Sink, configured: Callable[..., Path]
) -> None:
    lists = {"queue": ["queue:one", "queue:two"]}
    worker = place.hire(file=configured(well=url(sink), sick="smtp://127.0.0.1:1"), **lists)
    one, two = worker.queues
    worker.admission._shut.relays["sick"] = float("inf"), 7, STATE
    for queue in (one, two):
        worker.admission.admit_batch(queue, [slot(mail(1, relay="sick"))])
    assert worker.admission.parked.lists() == [one, two]
    worker.admission.parked.forget(two, "sick")
    worker.admission.admit_batch(two, [slot(mail(2, relay="sick"))])
    assert two in worker.admission.parked.lists()
