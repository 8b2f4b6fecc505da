"""Admission: when a mail is due, how old it may be, and what no payload can be blamed for."""

import base64
import json
import time
from pathlib import Path

import pytest
from hired import Hired, Place, mail, mails, until

from geomail import job
from geomail.delivery.ready import Fifo
from geomail.queue import FRESH, Slot
from geomail.sink import Sink
from geomail.worker import admission

pytest_plugins = ("worker_fixtures",)
NAMES = ("one", "two")


def test_a_mail_may_be_due_after_the_greatest_age(place: Place, sink: Sink) -> None:
    place.push(mail("later", send_at=time.time() + 1.2))
    place.worker(sink, max_age_s=0.4)
    until(lambda: place.counts().delayed == 1)
    until(lambda: place.held() == 0)
    assert sink.count == 1


def test_age_counts_from_when_a_mail_is_due(place: Place, sink: Sink) -> None:
    # Due in the past, and older than allowed by then.
    place.push(mail("past", send_at=time.time() - 10, to=["reply+451@x.org"]))
    place.push(mail("due", send_at=time.time() + 0.5, to=["greylist@x.org"]))
    place.worker(sink, max_age_s=0.4)
    until(lambda: place.counts().dead == 1 and sink.count == 1)
    assert "451" in place.desk.dead_list(1)[0].reason


def test_finished_messages_need_no_sender_but_a_reverse_path(place: Place, sink: Sink) -> None:
    raw = base64.b64encode(b"Subject: x\r\n\r\n").decode()
    told: list[dict[str, object]] = [
        {"mail_from": "n@x.org"},
        {"mail_from": "<>"},
        {"return_path": "b@x.org"},
        {},
    ]
    for more in told:
        place.push(json.dumps({"raw": raw, "rcpt_to": ["a@x.org"]} | more).encode())
    place.worker(sink, **{"from": ""})
    until(lambda: sink.count == 3 and place.counts().dead == 1)
    assert "pass --from" in place.desk.dead_list(1)[0].reason


def test_a_fault_of_ours_is_no_dead_letter_and_the_batch_goes_on(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[bytes] = []

    def broken(payload: bytes) -> object:
        if b"n3" in payload and len(met) < 2:
            met.append(payload)
            raise RuntimeError("a bug of ours")
        return job.decode(payload)

    monkeypatch.setattr(admission, "decode", broken)
    place.push(*mails(10))
    place.worker(sink)
    until(lambda: sink.count == 9)
    until(lambda: place.held() == 0)
    assert sink.count == 10
    assert len(met) == 2


@pytest.fixture
def two_relays(tmp_path: Path) -> Path:
    """Return a file of settings with relays that are not there."""
    file = tmp_path / "geomail.toml"
    file.write_text("".join(f'[relay.{name}]\nurl = "smtp://127.0.0.1:1"\n' for name in NAMES))
    return file


def of_two_relays(count: int) -> list[Slot]:
    """Return slots with a mail to one relay, the next one to the other, and so on."""
    relays = NAMES * count
    return [
        Slot("w", 1, index, f"w.1.{index}", 0, int(time.time() * 1000), FRESH, payload)
        for index, payload in enumerate(mail(n, relay=name) for n, name in enumerate(relays))
    ]


def ready(worker: Hired) -> list[list[int]]:
    """Return the indexes of what is ready in each lane, and look whether each knows how many."""
    found = [
        [delivery.slot.index for delivery in lane.ready]
        for lane in worker.lanes.lanes
        if isinstance(lane.ready, Fifo)
    ]
    assert [lane.in_hand for lane in worker.lanes.lanes] == list(map(len, found))
    return found


def test_a_batch_goes_where_each_of_it_would(place: Place, two_relays: Path) -> None:
    together, alone = (place.hire(file=two_relays) for _ in range(2))
    slots = of_two_relays(40)
    together.admission.admit_batch(together.queues[0], slots)
    for slot in of_two_relays(40):
        alone.admission.admit(alone.queues[0], slot)
    assert ready(together) == ready(alone)
    assert 0 < len(ready(together)[0]) < 40
    assert together.lanes.bytes_in_hand == alone.lanes.bytes_in_hand


def test_a_batch_that_is_broken_off_leaves_what_was_admitted_in_its_lanes(
    place: Place, two_relays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.hire(file=two_relays)
    monkeypatch.setattr(admission, "decode", _broken_at_5)
    with pytest.raises(KeyboardInterrupt):
        worker.admission.admit_batch(worker.queues[0], of_two_relays(40))
    assert ready(worker) == [[0, 2, 4], [1, 3]]
    assert worker.settler.backlog == 74  # given back: those behind


def test_a_batch_that_is_broken_off_parks_what_was_met_for_a_relay_that_is_shut(
    place: Place, two_relays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.hire(file=two_relays)
    worker.lanes.routes["one"].hold(on=True)
    queue, door = worker.queues[0], worker.admission
    monkeypatch.setattr(admission, "decode", _broken_at_5)
    with pytest.raises(KeyboardInterrupt):
        door.admit_batch(queue, of_two_relays(40))
    assert door.meetings[queue].in_vain == 3  # 0, which was read, and 2 and 4, at a glance
    assert ready(worker) == [[], [1, 3]]


def test_a_batch_that_is_broken_off_claims_no_key_for_the_next_one(
    place: Place, two_relays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = place.hire(file=two_relays)
    queue, door = worker.queues[0], worker.admission
    keyed = Slot("w", 1, 0, "w.1.0", 0, 0, FRESH, mail("keyed", dedupe_key="once"))
    monkeypatch.setattr(admission, "decode", _broken_at_5)
    with pytest.raises(KeyboardInterrupt):
        door.admit_batch(queue, [keyed, *of_two_relays(3)])
    backlog = worker.settler.backlog
    door.admit_batch(queue, [])
    assert worker.settler.backlog == backlog == 1  # it was given back, once


def _broken_at_5(payload: bytes) -> object:
    if b"n5" in payload:
        raise KeyboardInterrupt
    return job.decode(payload)
