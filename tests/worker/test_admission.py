"""Admission: when a mail is due, how old it may be, and what no payload can be blamed for."""

import base64
import json
import time

import pytest
from hired import Place, mail, mails, until

from geomail import job
from geomail.sink import Sink
from geomail.worker import admission

pytest_plugins = ("worker_fixtures",)


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
