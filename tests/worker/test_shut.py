"""What is met for a relay that takes nothing: parked at a glance, and judged when it is taken."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hired import Place, mail, until, url

from geomail import job
from geomail.queue import FRESH, TOLD, JobState, Park, Slot
from geomail.sink import Sink
from geomail.worker import admission
from geomail.worker.shut import Shut

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 20.0
LIST: Any = None


def slot(payload: bytes, state: JobState = FRESH) -> Slot:
    return Slot("w", 1, 0, "w.1.0", 0, 0, state, payload)


class Lane:
    """As much of a lane as is asked about here."""

    def __init__(self) -> None:
        self.is_full = True

    def has_place(self, _now: float) -> bool:
        return not self.is_full


class Relay:
    """As much of a route."""

    name = "sick"
    is_held = False

    def __init__(self, opens_in_s: float) -> None:
        self.opens_at = 100.0 + opens_in_s
        self.lanes = (Lane(),)

    def opens_in_s(self, now: float) -> float:
        return max(0.0, self.opens_at - now)

    def last_error(self) -> str:
        return "no"


class House:
    """A relay, and which relays are `mx`."""

    has_several_lists = False

    def __init__(self, relay: Relay) -> None:
        self.routes = {"sick": relay}
        self.directs: dict[str, Relay] = {}
        self.guests: dict[str, Relay] = {}


def noted(opens_in_s: float) -> tuple[Shut, Relay]:
    relay = Relay(opens_in_s)
    shut = Shut(House(relay))  # type: ignore[arg-type]
    shut.begin(LIST, 100.0)
    shut.note("sick", 100.0)
    return shut, relay


def test_a_mail_for_a_relay_that_is_shut_is_parked() -> None:
    shut, _ = noted(5.0)
    first, second = slot(mail(1, relay="sick")), slot(mail(2))
    assert shut.takes(first, None)
    assert shut.takes(second, "sick")
    for payload in (mail(1), mail(1, relay="well"), mail(1, relay="sick", dedupe_key="k"), b"{"):
        assert not shut.takes(slot(payload), None)
    assert not shut.takes(slot(b"{"), "sick")
    assert not shut.takes(slot(mail(1, relay="sick"), JobState(tries=1)), None)
    state = JobState(route="sick", last="no")
    assert list(shut.end()) == [Park([first, second], "sick", 5000, state)]
    assert list(shut.end()) == []


def test_a_name_elsewhere_in_a_mail_is_not_its_relay() -> None:
    shut, _ = noted(5.0)
    odd = mail(1, headers={"relay": "sick"}), mail(1, relay="well", headers={"relay": "sick"})
    for payload in (*odd, mail(1, relay="well", text='"relay":"sick"')):
        assert not shut.takes(slot(payload), None)
        assert not shut.takes(slot(payload), "well")
    assert shut.takes(slot(mail(1, headers={"relay": "sick"})), "sick")
    assert shut.takes(slot(b'{"relay" : "sick", "to":"a@b.c"}'), None)


def test_what_a_door_brought_is_parked_so_too() -> None:
    shut, _ = noted(0.0)
    plain, told = slot(mail(1, relay="sick")), slot(mail(2, relay="sick"), TOLD)
    assert shut.takes(plain, None)
    assert shut.takes(told, None)
    states = [JobState(route="sick", last="no"), JobState(route="sick", last="no", told=True)]
    assert [(park.slots, park.state) for park in shut.end()] == [
        ([plain], states[0]),
        ([told], states[1]),
    ]


def test_a_relay_that_backs_off_is_trusted_to_do_so_for_a_moment() -> None:
    shut, relay = noted(5.0)
    relay.opens_at, relay.lanes[0].is_full = 100.0, False
    shut.begin(LIST, 100.1)
    assert shut.relays
    shut.begin(LIST, 101.0)
    assert not shut.relays


def test_a_relay_that_is_full_is_looked_at_before_each_batch() -> None:
    shut, relay = noted(0.0)
    for now in (100.0, 100.1):
        shut.begin(LIST, now)
        assert shut.relays
    relay.lanes[0].is_full = False
    shut.begin(LIST, 100.2)
    assert not shut.relays


def test_a_relay_that_is_another_one_since_is_forgotten() -> None:
    house = House(Relay(5.0))
    shut = Shut(house)  # type: ignore[arg-type]
    shut.note("sick", 100.0)
    house.routes["sick"] = Relay(5.0)
    shut.begin(LIST, 101.0)
    assert not shut.relays


def test_what_tasks_find_closed_says_nothing_of_mails() -> None:
    house = House(Relay(5.0))
    house.guests = house.routes
    shut = Shut(house)  # type: ignore[arg-type]
    shut.note("sick", 100.0)
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
    worker.lanes.routes["sick"].is_held = True
    worker.admission._shut.note("sick", 0.0)
    for queue in (one, two):
        worker.admission.admit_batch(queue, [slot(mail(1, relay="sick"))])
    assert worker.admission.parked.lists() == [one, two]
    worker.admission.parked.forget(two, "sick")
    worker.admission.admit_batch(two, [slot(mail(2, relay="sick"))])
    assert two in worker.admission.parked.lists()
