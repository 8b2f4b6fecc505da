"""Dead letters: listed, shown, put back, dropped; and the counts that people look at."""

from typing import Any

import pytest
from redis_servers import dump

from geomail.queue import FRESH, Dead, Done, JobState, Park, Queue, Retry

pytest_plugins = ("queue_fixtures",)
Raw = Any


def bury(queue: Queue, *reasons: str) -> list[str]:
    ids = []
    for reason in reasons:
        queue.push([reason.encode() * 2])
        slot = queue.take(1).slots[0]
        queue.settle([Dead(slot, JobState(tries=3, reason=reason, last=reason, unknown=1))])
        ids.append(slot.id)
    return ids


def test_list_newest_first_and_by_reason(queue: Queue, raw: Raw) -> None:
    ids = bury(queue, "550 no such user", "552 full", "550 gone")
    raw.zadd("{queue:email}:dead", {ids[1]: 5.0, ids[2]: 7.0})
    found = queue.dead_list(10)
    assert [letter.id for letter in found] == [ids[0], ids[2], ids[1]]
    assert [letter.id for letter in queue.dead_list(1, "550")] == [ids[0]]
    assert [letter.id for letter in queue.dead_list(9, "FULL")] == [ids[1]]
    assert found[2].died_at_ms == 5
    assert found[0].size == len("550 no such user") * 2
    assert found[0].payload is None


def test_show(queue: Queue) -> None:
    [name] = bury(queue, "no")
    letter = queue.dead_show(name)
    assert letter is not None
    assert (letter.payload, letter.reason, letter.state.tries) == (b"nono", "no", 3)
    assert queue.dead_show("nobody.1.0") is None


def test_retry_gives_all_tries_and_a_new_age(queue: Queue) -> None:
    [name] = bury(queue, "no")
    assert queue.dead_retry([name, "nobody.1.0"]) == 1
    assert queue.dead_retry([name]) == 0
    batch = queue.take(1)
    assert batch.slots[0].id == name
    assert batch.slots[0].state == JobState(retried_ms=batch.slots[0].state.retried_ms)
    assert batch.now_ms - (batch.slots[0].state.retried_ms or 0) < 10_000


def test_bulk_moves(queue: Queue, raw: Raw) -> None:
    queue.push([b"%d" % number for number in range(350)])
    slots = queue.take(350).slots
    queue.settle([Dead(s, JobState(reason=f"r{s.index % 2}")) for s in slots])
    assert queue.dead_retry() == 0
    assert queue.dead_drop() == 0
    assert len(queue.dead_list(1000)) == 350
    assert queue.dead_retry(reason="r1") == 175
    assert queue.dead_drop(every=True) == 175
    counts = queue.counts()
    assert (counts.dead, counts.front) == (0, 175)
    assert raw.hlen("{queue:email}:jobs") == 175


def test_large_letters_are_moved_a_few_at_a_time(queue: Queue) -> None:
    queue.push([b"x" * 700_000] * 5)
    while slots := queue.take(2).slots:
        queue.settle([Dead(slot, JobState(reason="no")) for slot in slots])
    assert queue.dead_retry(every=True) == 5


def test_letter_without_a_job_disappears(queue: Queue, raw: Raw) -> None:
    [name] = bury(queue, "no")
    raw.delete("{queue:email}:jobs")
    assert queue.dead_list(5) == []
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"1"}}
    assert queue.dead_retry([name]) == 0


def test_letter_says_when_nobody_gave_a_reason(queue: Queue) -> None:
    queue.push([b"a"])
    queue.settle([Dead(queue.take(1).slots[0], FRESH)])
    assert queue.dead_list(1)[0].reason == "no reason was given"


def test_counts(queue: Queue) -> None:
    queue.push([b"%d" % number for number in range(10)])
    slots = queue.take(6).slots
    queue.settle(
        [
            Done(slots[0]),
            Retry(slots[1], 60_000, FRESH),
            Dead(slots[2], FRESH),
            Park([slots[3]], "relay", 9, FRESH),
        ]
    )
    queue.wait(0.1)
    counts = queue.counts()
    assert (counts.list, counts.arrive, counts.pushed, counts.front) == (3, 1, 0, 0)
    assert (counts.delayed, counts.dead, counts.parked, counts.suspects) == (1, 1, {"relay": 1}, 0)
    assert (counts.in_flight, counts.waiting) == (2, 4)
    assert counts.next_due_ms is not None
    assert 0 < counts.next_due_ms - counts.now_ms <= 60_000
    held = counts.workers[queue.worker]
    assert (held.jobs, held.fenced) == (2, False)
    assert 25_000 < held.lease_left_ms <= 30_000
    assert counts.stats == {"taken": 6, "delivered": 1, "retried": 1, "dead": 1, "parked": 1}


def test_counts_of_nothing(queue: Queue) -> None:
    counts = queue.counts()
    assert (counts.waiting, counts.in_flight, counts.next_due_ms, counts.stats) == (0, 0, None, {})


def test_since_when_the_list_is_not_empty(queue: Queue, raw: Raw) -> None:
    queue.push([b"a", b"b"])
    assert queue.counts().not_empty_since_ms is None
    [slot] = queue.take(1).slots
    counts = queue.counts()
    assert counts.not_empty_since_ms == slot.first_seen_ms
    raw.hset("{queue:email}:stats", ".since", 5)
    queue.beat()
    assert queue.counts().not_empty_since_ms == 5
    queue.take(1)
    assert queue.counts().not_empty_since_ms is None
    queue.push([b"c"])
    queue.beat()
    since = queue.counts().not_empty_since_ms
    assert since is not None
    assert since >= slot.first_seen_ms


def test_present_rate(queue: Queue, raw: Raw) -> None:
    stats = "{queue:email}:stats"
    assert queue.counts().delivered_per_minute == 0
    queue.push([b"a"] * 30)
    now_ms = queue.counts().now_ms
    raw.hset(stats, mapping={"delivered": 100, ".looks": f"{now_ms - 40_000} 40 {now_ms} 100"})
    counts = queue.counts()
    assert counts.delivered_per_minute == pytest.approx(90, rel=0.1)
    assert counts.drained_in_minutes == pytest.approx(1 / 3, rel=0.1)
    raw.hset(stats, ".looks", f"{now_ms - 90_000} 40 {now_ms - 60_000} 70")
    assert queue.counts().delivered_per_minute == pytest.approx(30, rel=0.2)
    queue.beat()
    looks = raw.hget(stats, ".looks").split()
    assert (looks[:2], looks[3]) == ([b"%d" % (now_ms - 60_000), b"70"], b"100")
    queue.beat()
    assert raw.hget(stats, ".looks").split() == looks
    raw.hset(stats, "delivered", 1)
    counts = queue.counts()
    assert (counts.delivered_per_minute, counts.drained_in_minutes) == (0, None)


def test_possible_duplicates_are_counted(queue: Queue) -> None:
    queue.push([b"a", b"b"])
    one, two = queue.take(2).slots
    for _ in ("once", "and once more"):
        queue.settle([Retry(one, 0, JobState(unknown=1)), Retry(two, 0, JobState(tries=1))])
    counts = queue.counts()
    assert (counts.maybe_duplicates, counts.stats["retried"]) == (1, 2)


def test_reasons_are_counted_together(queue: Queue) -> None:
    bury(queue, *(f"rcpt: 550 5.1.1 <u{n}@x.org>: no such user" for n in range(3)))
    bury(queue, "data: 554 5.7.1 spam, ref 4f2a9c77e1", "data: 554 5.7.1 spam, ref 99aa12345")
    bury(queue, "older than 432000 s: nobody answers")
    assert queue.dead_reasons() == {
        "rcpt: 550 5.1.1 …: no such user": 3,
        "data: 554 5.7.1 spam, ref …": 2,
        "older than 432000 s: nobody answers": 1,
    }
    assert list(queue.dead_reasons(sample=3).values()) == [2, 1]


def test_old_letters_expire(queue: Queue, raw: Raw) -> None:
    ids = bury(queue, "old", "older", "new")
    now_ms = queue.counts().now_ms
    age_ms = {ids[0]: 2, ids[1]: 3}
    raw.zadd(
        "{queue:email}:dead", {job: now_ms - days * 86_400_000 for job, days in age_ms.items()}
    )
    assert queue.expire_dead(0) == 0
    assert queue.expire_dead(4) == 0
    assert queue.expire_dead(1.5) == 2
    assert [letter.id for letter in queue.dead_list(9)] == [ids[2]]
    assert queue.counts().stats["expired"] == 2
    assert raw.hlen("{queue:email}:jobs") == 1


def test_expiry_is_bounded(queue: Queue, raw: Raw) -> None:
    queue.push([b"%d" % number for number in range(1100)])
    while slots := queue.take(1000).slots:
        queue.settle([Dead(slot, FRESH) for slot in slots])
    for member in raw.zrange("{queue:email}:dead", 0, -1):
        raw.zadd("{queue:email}:dead", {member: 5})
    raw.zadd("{queue:email}:dead", {"nobody.1.0": 4})
    assert queue.expire_dead(1) == 999
    assert queue.expire_dead(1) == 101
    assert queue.counts().dead == 0
