"""The gate: no answer before Redis has it, few pushes for many, and a refusal in good time."""

import time
from typing import Any

import gevent
import pytest
from callers import NewGate, mail, until

from geomail.errors import PayloadError
from geomail.intake.gate import Refused
from geomail.intake.limits import Rates, Room
from geomail.queue import Queue, embedded

pytest_plugins = ("door_fixtures",)


def test_what_is_submitted_is_in_redis_and_has_the_ids(new_gate: NewGate, queue: Queue) -> None:
    gate = new_gate()
    ids = gate.submit([mail(1), mail(2)])
    slots = queue.take(10).slots
    assert [(slot.id, slot.payload) for slot in slots] == list(
        zip(ids, [mail(1), mail(2)], strict=True)
    )
    assert gate.outcome(ids[0]) == {"outcome": "waiting"}
    assert gate.submit([]) == []


def test_many_share_few_pushes(new_gate: NewGate, queue: Queue, raw: Any) -> None:
    gate = new_gate()
    gate.submit([mail()])
    before = raw.info("commandstats")["cmdstat_evalsha"]["calls"]
    pushes = [gevent.spawn(gate.submit, [mail(number)]) for number in range(300)]
    for number in range(300):
        gate.unheard.take([mail(number)])
    gevent.joinall(pushes, timeout=20, raise_error=True)
    until(lambda: queue.counts().waiting == 601)
    assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 30
    ids = {push.get(block=False)[0] for push in pushes}
    taken = queue.take(1000).slots
    assert len(ids) == 300
    assert ids < {slot.id for slot in taken}
    assert sum(slot.state.told for slot in taken) == 301
    assert gate.room.held == 0


def test_a_payload_that_admission_would_refuse_is_told_why(new_gate: NewGate) -> None:
    gate = new_gate()
    gate.check(mail())
    with pytest.raises(PayloadError, match="nobody"):
        gate.check(b'{"to":"nobody"}')


def test_while_redis_is_away_it_refuses_and_then_takes_again(
    new_gate: NewGate, redis_server: embedded.Server, raw: Any
) -> None:
    gate = new_gate(patience_s=0.5)
    assert gate.submit([mail()])
    raw.client_pause(2000)
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        gate.submit([mail()])
    assert time.monotonic() - began < 20
    assert refused.value.retry_after_s > 0
    assert gate.is_away
    until(lambda: not gate.is_away)
    assert gate.submit([mail()])


def test_a_full_redis_is_away_until_it_takes_jobs_again(new_gate: NewGate, raw: Any) -> None:
    gate = new_gate(patience_s=0.5)

    def looks() -> int:
        return int(raw.info("commandstats")["cmdstat_eval"]["calls"])

    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(Refused, match="OOM"):
            gate.submit([mail()])
        enough = looks() + 3
        until(lambda: looks() >= enough)
        assert gate.is_away
    finally:
        raw.config_set("maxmemory", 0)
    until(lambda: not gate.is_away)
    assert gate.submit([mail()])


def test_a_closed_gate_refuses(new_gate: NewGate) -> None:
    gate = new_gate()
    waiting = gevent.spawn(gate.submit, [mail()])
    gevent.sleep(0)
    gate.close()
    assert waiting.get(timeout=20)
    with pytest.raises(Refused, match="about to end"):
        gate.submit([mail()])


def test_pressure_follows_what_waits(new_gate: NewGate, queue: Queue, raw: Any) -> None:
    gate = new_gate(high_water=10)
    key = "{queue:email}:pressure"
    until(lambda: raw.get(key) == b"ok")
    queue.push([mail()] * 5)
    gate.submit([mail()] * 5)
    until(lambda: raw.get(key) == b"high")
    until(lambda: gate.pressure == "high")
    assert gate.depth == 10
    raw.ltrim("queue:email", 0, 3)
    until(lambda: gate.depth == 9)
    assert gate.pressure == "ok"  # nine tenths are enough
    raw.ltrim("queue:email", 0, 2)
    until(lambda: raw.get(key) == b"ok")


def test_a_key_of_another_type_is_left_alone(new_gate: NewGate, raw: Any) -> None:
    raw.lpush("{queue:email}:pressure", "somebody's")
    gate = new_gate(high_water=1)
    gate.submit([mail()])
    until(lambda: gate.pressure == "high")
    assert raw.lrange("{queue:email}:pressure", 0, -1) == [b"somebody's"]


def test_room_is_shared_and_waited_for() -> None:
    room = Room(100)
    one, two = room.share(), room.share()
    assert one.hold(80)
    assert not two.hold(30)
    waiting = gevent.spawn(two.hold, 60, patience_s=20)
    gevent.sleep(0.01)
    assert not waiting.ready()
    one.hold(0)
    assert waiting.get(timeout=20)
    assert (room.held, two.bytes) == (60, 60)


def test_of_many_that_wait_for_each_other_one_goes_first() -> None:
    room = Room(100)
    shares = [room.share() for _ in range(4)]
    assert all(share.hold(25) for share in shares)
    assert shares[1].hold(50)
    assert not shares[0].hold(26)
    waiting = [gevent.spawn(share.hold, 50, patience_s=20) for share in shares[2:]]
    gevent.sleep(0.01)
    assert shares[1].hold(60)
    shares[1].hold(0)
    assert [each.get(timeout=20) for each in waiting] == [True, True]
    assert room.held == 125
    for share in shares:
        share.hold(0)
    assert room.held == 0


def test_rates_are_by_address() -> None:
    rates = Rates(10)
    assert rates.spend("a", 10, 100.0) == 0
    assert rates.debt_s("a", 100.0) == pytest.approx(0.1)
    assert rates.spend("a", 5, 100.0) == pytest.approx(0.5)
    assert rates.spend("b", 1, 100.0) == 0
    assert rates.debt_s("a", 101.0) == 0
    assert rates.spend("2001:db8::1", 15, 100.0) == rates.spend("2001:db8::2", 0, 100.0)
    assert rates.spend("a", 1, 1000.0) == 0
    assert Rates(0).spend("a", 1_000_000, 0.0) == 0
    for number in range(20_000):
        rates.spend(str(number), 1, 100.0)
    assert rates.spend("19999", 10, 100.0) > 0


def test_what_cannot_be_pushed_is_kept_and_said(
    new_gate: NewGate, raw: Any, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    raw.set("{queue:email}:pushed", "of another type")
    gate = new_gate()
    gate.unheard.take([mail(1), mail(2)])
    until(lambda: "jobs_wait jobs=2" in caplog.text)
    raw.delete("{queue:email}:pushed")
    until(lambda: queue.counts().waiting == 2 and gate.room.held == 0)
    raw.set("{queue:email}:pushed", "of another type")
    gate.unheard.take([mail(3)])
    gate.close()
    assert "jobs_lost jobs=1" in caplog.text
    raw.delete("{queue:email}:pushed")
