"""Jobs and workers that are unlike others: twins, giants, crowds, and clocks that are wrong."""

import base64
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from scenarios.at_rest import check
from scenarios.stage import Stage, mail, once_each, until, users

TAG = "{queue:email}:"
WRONG_CLOCK = """
import time
right = time.time
time.time = lambda: right() + {seconds}
"""
# Jobs as a door or a retry would have left them: `due` ms from now, first and last number.
FILL_DELAYED = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for n = ARGV[2], ARGV[3] do
  local id = 'ffffffffffffffff.1.' .. n
  local payload = '{"to":["u' .. n .. '@example.org"],"subject":"mail","text":"hello"}'
  redis.call('HSET', KEYS[1], id, '0 ' .. now .. ' {}\\n' .. payload)
  redis.call('ZADD', KEYS[2], now + ARGV[1], id)
end
"""


def fill_delayed(stage: Stage, *, due_in_ms: int, first: int, last: int) -> None:
    """Have Redis make delayed jobs number `first` to `last`, all due in one millisecond."""
    keys = (TAG + "jobs", TAG + "delayed")
    stage.redis.eval(FILL_DELAYED, 2, *keys, due_in_ms, first, last)


def test_identical_payloads_are_as_many_mails(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, id=None)] * 2 + [mail(1, id="same")] * 3)
    stage.burst(relay=host)
    assert host.arrivals() == {"u0@example.org": 2, "u1@example.org": 3}
    assert len({taken.id for taken in host.mails}) == 5
    check(stage, pushed=5, delivered=5)


def test_nothing_at_all_is_a_dead_letter(stage: Stage) -> None:
    host = stage.host()
    stage.push([b"", mail(0), b"", mail(1)])
    stage.burst(relay=host)
    once_each(host.arrivals(), users(2))
    check(stage, pushed=4, delivered=2)
    assert all(letter.reason.startswith("empty payload") for letter in stage.dead())


def test_a_giant_travels_alone_and_the_others_do_not_wait(stage: Stage) -> None:
    host = stage.host(keeps=True)
    content = base64.b64encode(b"x" * 15_000_000).decode()
    giant = mail("giant", attachments=[{"filename": "x.bin", "content": content}])
    stage.push([*map(mail, range(25)), giant, *(mail(n) for n in range(25, 50))])
    stage.worker(relay=host)
    host.has_taken(51)
    until(stage.is_clean)
    once_each(host.arrivals(), [*users(50), "ugiant@example.org"])
    sizes = {mail.to[0]: len(mail.content) for mail in host.mails}
    assert sizes["ugiant@example.org"] > 20_000_000


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_an_hour_off(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    host = stage.host(delay_s=0.005)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WRONG_CLOCK.format(seconds=seconds))
    right = stage.worker(relay=host)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hooks))
        wrong = stage.worker(relay=host, max_age_s=600, data=stage.folder / "elsewhere")
    for worker in (right, wrong):
        worker.says("running")
    hour = time.strftime("T%H:", time.gmtime(time.time() + seconds))
    assert hour in wrong.stderr  # it does have another clock
    now = time.time()
    jobs = [mail(n, expires_at=now + 600) for n in range(500)]
    jobs += [mail(n, send_at=now + 1) for n in range(500, 600)]
    stage.push(jobs)
    until(stage.is_clean)
    once_each(host.arrivals(), users(600))
    early = [
        one for one in host.mails if int(one.to[0][1:].split("@")[0]) >= 500 and one.at < now + 1
    ]
    assert not early
    assert not stage.counts().stats.get("reaped")
    assert "lease_lost" not in right.stderr + wrong.stderr


def test_ten_thousand_due_in_one_millisecond(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    host = stage.host()
    for worker in [stage.worker(relay=host, data=stage.folder / f"{n}") for n in range(2)]:
        worker.says("running")
    fill_delayed(stage, due_in_ms=500, first=0, last=9_999)
    check(stage, pushed=10_000, delivered=0)
    stage.push([mail("fresh")])
    began = time.monotonic()
    host.has_taken(10_001)
    with capsys.disabled():
        sys.stdout.write(f"10,000 due at once were gone in {time.monotonic() - began:.1f} s\n")
    until(stage.is_clean)
    once_each(host.arrivals(), [*users(10_000), "ufresh@example.org"])


def test_beside_a_million_delayed(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.redis.config_set("appendonly", "no")
    for first in range(0, 1_000_000, 100_000):
        fill_delayed(stage, due_in_ms=86_400_000, first=first, last=first + 99_999)
    stage.redis.config_resetstat()
    host = stage.host()
    stage.push(map(mail, range(2_000)))
    worker = stage.worker(relay=host)
    host.has_taken(2_000)
    until(lambda: stage.counts().in_flight == 0)
    stats = stage.redis.info("commandstats")["cmdstat_evalsha"]
    with capsys.disabled():
        sys.stdout.write(f"{stats['usec'] / 2_000:.1f} µs of Redis a mail, a million delayed\n")
    assert stage.counts().delayed == 1_000_000
    once_each(Counter(host.arrivals()), users(2_000))
    worker.kill()
