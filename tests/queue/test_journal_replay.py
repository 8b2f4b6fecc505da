"""The journal: what was answered before a kill is settled before anybody can send it again."""

import os
import time
from pathlib import Path
from typing import Any

from journals import GONE, LEFT, begun, files, slot, write_of
from redis_servers import NewQueue, RedisServer, dump

from geomail.queue import (
    FRESH,
    Dead,
    Done,
    JobState,
    Link,
    Part,
    Queue,
    Record,
    Release,
    Retry,
    Split,
)
from geomail.queue.journal import replay, say_again

pytest_plugins = ("queue_fixtures",)
Raw = Any


def test_dead_workers_are_settled_and_then_reaped(
    queue: Queue, new_queue: NewQueue, raw: Raw, tmp_path: Path
) -> None:
    queue.push([b"%d" % number for number in range(6)])
    slots = queue.take(6).slots
    book = begun(tmp_path, queue.worker)
    write_of(book, queue, Done(slots[0]), Retry(slots[1], 60_000, LEFT), Dead(slots[2], GONE))
    parts = [Part(LEFT, ("retry", 60_000)), Part(GONE, "dead")]
    write_of(book, queue, Split(slots[3], parts))
    book.close()
    successor = new_queue()
    assert replay(tmp_path, [successor]) == 2
    assert files(tmp_path) == []
    now = dump(raw)
    assert sorted(now["delayed"]) == [slots[1].id.encode(), f"{slots[3].id}/1".encode()]
    assert sorted(now["dead"]) == [slots[2].id.encode(), f"{slots[3].id}/2".encode()]
    assert [one.payload for one in successor.take(9).slots] == [b"4", b"5"]
    assert not queue.beat()


def test_who_is_left_counts_where_no_outcome_followed(
    queue: Queue, new_queue: NewQueue, raw: Raw, tmp_path: Path
) -> None:
    queue.push([b"%d" % number for number in range(4)])
    slots = queue.take(4).slots
    book = begun(tmp_path, queue.worker)
    for going in slots[:3]:
        for left in (["b@x.org", "c@x.org"], ["c@x.org"]):
            going.state = JobState(rcpt=left)
            book.note(queue.name, going)
    write_of(book, queue, Done(slots[1]), Retry(slots[2], 60_000, LEFT))
    assert book.say_again(queue) == 2  # while we live we know it ourselves
    assert len(dump(raw)["delayed"]) == 1
    book.close()
    successor = new_queue()
    assert replay(tmp_path, [successor]) == 1
    back = successor.take(9).slots
    assert sorted((one.payload, one.state.rcpt) for one in back if one.payload == b"0") == [
        (b"0", ["c@x.org"])
    ]
    assert sorted(one.payload for one in back) == [b"0", b"3"]
    assert list(dump(raw)["delayed"]) == [slots[2].id.encode()]


def test_replay_may_run_twice_and_half(
    queue: Queue, new_queue: NewQueue, raw: Raw, tmp_path: Path
) -> None:
    queue.push([b"%d" % number for number in range(5)])
    slots = queue.take(5).slots
    book = begun(tmp_path, queue.worker)
    write_of(book, queue, Done(slots[0]), Retry(slots[1], 0, LEFT), Dead(slots[2], GONE))
    first = dump(raw)
    entries = list(book.entries())
    book.close()
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = new_queue()
    say_again(entries[:2], {queue.worker: other})
    assert dump(raw) != first
    replay(tmp_path, [other])
    once = dump(raw)
    for path, data in kept.items():
        path.write_bytes(data)
    assert replay(tmp_path, [other]) == 0
    assert dump(raw) == once
    assert len(other.take(9).slots) == 3  # two that came back, one that is due


def test_what_was_reaped_already_is_still_not_sent_again(
    queue: Queue, new_queue: NewQueue, tmp_path: Path
) -> None:
    queue.push([b"a", b"b"])
    slots = queue.take(2).slots
    book = begun(tmp_path, queue.worker)
    write_of(book, queue, Done(slots[0]))
    book.close()
    other = new_queue()
    assert other.reap([queue.worker]) == 2
    assert replay(tmp_path, [other]) == 0
    assert [one.payload for one in other.take(9).slots] == [b"b"]


def test_journal_of_the_living_is_left_alone(
    queue: Queue, new_queue: NewQueue, tmp_path: Path
) -> None:
    queue.push([b"a"])
    book = begun(tmp_path, queue.worker)
    write_of(book, queue, Done(queue.take(1).slots[0]))
    assert replay(tmp_path, [new_queue()]) == 0
    assert queue.beat()
    assert len(files(tmp_path)) == 2


def test_lock_ends_with_the_process(queue: Queue, new_queue: NewQueue, tmp_path: Path) -> None:
    queue.push([b"a", b"b"])
    slots = queue.take(2).slots
    child = os.fork()
    if child == 0:
        book = begun(tmp_path, queue.worker)
        book.append(queue.name, Done(slots[0]))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    other = new_queue()
    assert replay(tmp_path, [other]) == 1
    assert [one.payload for one in other.take(9).slots] == [b"b"]


def test_every_registration_of_a_process_is_its_own(
    queue: Queue, new_queue: NewQueue, tmp_path: Path
) -> None:
    queue.push([b"a", b"b", b"c"])
    book = begun(tmp_path, queue.worker)
    old = queue.take(1).slots[0]
    queue.register()
    new = queue.take(2).slots
    write_of(book, queue, Done(new[0]), Done(old))  # the new name is noted with its first outcome
    book.close()
    other = new_queue()
    assert replay(tmp_path, [other]) == 1
    assert [one.payload for one in other.take(9).slots] == [b"c"]
    assert not other.counts().in_flight - 1


def test_journal_of_another_redis_stays_for_two_days(queue: Queue, tmp_path: Path) -> None:
    book = begun(tmp_path, "of-another")
    book.append(queue.name, Done(slot(0, worker="of-another")))
    book.close()
    assert replay(tmp_path, [queue]) == 0
    assert len(files(tmp_path)) == 2
    old = time.time() - 3 * 86_400
    os.utime(tmp_path / "of-another.journal", (old, old))
    assert replay(tmp_path, [queue]) == 0
    assert len(files(tmp_path)) == 2  # begun long ago, written to of late
    os.utime(tmp_path / "of-another.0.records", (old, old))
    assert replay(tmp_path, [queue]) == 0
    assert files(tmp_path) == []


def test_journal_of_a_list_that_is_not_ours_stays(
    queue: Queue, new_queue: NewQueue, tmp_path: Path
) -> None:
    other = new_queue(name="queue:other")
    other.push([b"a"])
    other.take(1)
    book = begun(tmp_path, queue.worker)
    book.enlist(other.name, other.worker)
    book.close()
    assert replay(tmp_path, [new_queue()]) == 0
    assert len(files(tmp_path)) == 2
    assert other.beat()
    assert replay(tmp_path, [new_queue(), new_queue(name="queue:other")]) == 1
    assert files(tmp_path) == []


def test_file_that_is_no_journal_is_left_alone(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "x.journal").write_bytes(b"geomail journal 9\nwho knows")
    assert replay(tmp_path, [queue]) == 0
    assert files(tmp_path) == ["x.journal"]


def test_removed_when_nothing_is_left(tmp_path: Path) -> None:
    book = begun(tmp_path)
    book.append("queue:email", Done(slot(0)))
    book.remove()
    assert files(tmp_path) == []


# ---- a Redis that forgot


def test_said_again_to_a_redis_that_was_rolled_back(queue: Queue, raw: Raw, tmp_path: Path) -> None:
    queue.push([b"a", b"b", b"c"])
    slots = queue.take(3).slots
    queue.settle([Release(slots[2], FRESH)])
    [touched] = queue.take(1).slots
    book = begun(tmp_path, queue.worker)
    before = {key: raw.dump(key) for key in raw.keys("*")}
    outcomes: list[Record] = [Done(slots[0]), Retry(slots[1], 60_000, LEFT), Done(touched)]
    write_of(book, queue, *outcomes)
    queue.settle(outcomes)
    after = dump(raw)
    raw.flushall()
    for key, value in before.items():
        raw.restore(key, 0, value)
    assert say_again(book.entries(), {queue.worker: queue}) == 3
    now = dump(raw)
    now["delayed"] = after["delayed"] = None  # counted from now
    assert now == after
    assert queue.beat()
    assert "reconciled" not in queue.counts().stats


def test_another_life_of_redis_has_another_run_id(own_server: RedisServer) -> None:
    queue = Queue(Link(own_server.url))
    first = queue.run_id()
    assert first == queue.run_id() != ""
    own_server.kill()
    own_server.start()
    assert queue.run_id() not in ("", first)
    queue.close()
