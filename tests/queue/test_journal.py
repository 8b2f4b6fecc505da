"""The journal: what was answered before a kill is settled before anybody can send it again."""

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from redis_servers import NewQueue, RedisServer, dump

from geomail import metrics
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
    Slot,
    Split,
    journal,
)
from geomail.queue.entries import Entry, record_of
from geomail.queue.journal import Journal, replay, say_again
from geomail.queue.record_file import bodies, frame

pytest_plugins = ("queue_fixtures",)
Raw = Any

LEFT = JobState(tries=1, rcpt=["b@example.org"], last="451 later")
GONE = JobState(tries=1, rcpt=["c@example.org"], reason="content: 550 no")


def slot(index: int, *, worker: str = "w1", seq: int = 1, touched: bool = False) -> Slot:
    """Return a slot that no Redis knows."""
    state = LEFT if touched else FRESH
    return Slot(worker, seq, index, f"{worker}.{seq}.{index}", 0, 0, state, b"", touched)


def begun(folder: Path, worker: str = "w1", queue: str = "queue:email") -> Journal:
    """Return the open journal of a worker."""
    book = Journal(folder)
    book.enlist(queue, worker)
    assert book.is_open
    return book


def files(folder: Path) -> list[str]:
    """Return the names of all files there."""
    return sorted(path.name for path in folder.iterdir())


def write_of(book: Journal, queue: Queue, *records: Any) -> None:
    """Append outcomes, as the settler does before its flight."""
    for record in records:
        book.append(queue.name, record)


# ---- what is on disk


def test_every_kind_of_outcome_comes_back(tmp_path: Path) -> None:
    book = begun(tmp_path)
    split = Split(slot(4), [Part(LEFT, ("retry", 9000)), Part(GONE, "dead")])
    records: list[Record] = [
        Done(slot(0)),
        Done(slot(1, touched=True)),
        Retry(slot(2), 60_000, LEFT),
    ]
    for record in [*records, Dead(slot(3), GONE), split]:
        book.append("queue:email", record)
    assert list(book.entries()) == [
        Entry("w1", 1, 0),
        Entry("w1", 1, 1, "w1.1.1", LEFT),
        Entry("w1", 1, 2, parts=[Part(LEFT, ("retry", 60_000))]),
        Entry("w1", 1, 3, parts=[Part(GONE, "dead")]),
        Entry("w1", 1, 4, is_split=True, parts=split.parts),
    ]
    assert list(map(record_of, book.entries()))[1].slot.state == LEFT


def test_torn_at_every_byte(tmp_path: Path) -> None:
    book = begun(tmp_path)
    file = tmp_path / "w1.0.records"
    for record in (Done(slot(0)), Retry(slot(1), 5, LEFT), Done(slot(2))):
        book.append("queue:email", record)
    whole, entries = file.read_bytes(), list(book.entries())
    ends = list(accumulate(len(frame(body)) for body in bodies(file, whole)))
    whole = whole[: ends[-1]]
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        assert list(book.entries()) == entries[: sum(end <= size for end in ends)]


def test_nothing_is_believed_from_the_first_wrong_byte_on(tmp_path: Path) -> None:
    book = begun(tmp_path)
    for index in range(3):
        book.append("queue:email", Done(slot(index)))
    file = tmp_path / "w1.0.records"
    length = len(frame(next(bodies(file, file.read_bytes()))))
    whole = file.read_bytes()[: 3 * length]
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        assert [entry.index for entry in book.entries()] == list(range(at // length))


def test_zeros_that_a_crashed_machine_leaves_are_no_records(tmp_path: Path) -> None:
    book = begun(tmp_path)
    book.append("queue:email", Done(slot(0)))
    with (tmp_path / "w1.0.records").open("ab") as file:
        file.write(bytes(4096))
    assert len(list(book.entries())) == 1


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    begun(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


# ---- bounded


def test_old_files_go_when_redis_has_had_them_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    book = begun(tmp_path)
    book.append("queue:email", Done(slot(0)))
    book.tidy()
    assert files(tmp_path) == ["w1.0.records", "w1.journal"]
    now_s += 5
    book.tidy()
    book.append("queue:email", Done(slot(1)))
    assert files(tmp_path) == ["w1.0.records", "w1.1.records", "w1.journal"]
    now_s += 1000
    book.tidy()
    assert "w1.0.records" in files(tmp_path)  # Redis does not have it
    book.settled(1)
    for passed_s in (0.0, 9.9):
        now_s += passed_s
        book.tidy()
        assert "w1.0.records" in files(tmp_path)
    now_s += 0.2
    book.tidy()
    assert files(tmp_path) == ["w1.1.records", "w1.2.records", "w1.journal"]
    assert [entry.index for entry in book.entries()] == [1]
    book.settled(2)
    book.tidy()
    now_s += 10
    book.tidy()
    assert files(tmp_path) == ["w1.2.records", "w1.journal"]


def test_without_a_folder_nothing_is_kept() -> None:
    book = Journal(None)
    book.enlist("queue:email", "w1")
    book.append("queue:email", Done(slot(0)))
    book.tidy()
    assert not book.is_open
    assert list(book.entries()) == []
    book.remove()


def test_deleted_under_us_it_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "journal"
    book = begun(folder)
    book.enlist("queue:other", "w2")
    book.append("queue:email", Done(slot(0)))
    assert "journal_deleted" not in caplog.text
    for times, notice in enumerate((lambda: book.settled(0), book.tidy), 1):
        shutil.rmtree(folder)
        book._look_at_s = 0.0
        notice()
        book.append("queue:other", Done(slot(times, worker="w2")))
        assert [entry.index for entry in book.entries()] == list(range(times + 1))
        assert len(journal._read_names(folder / "w1.journal")) == 2
        assert caplog.text.count("journal_deleted") == times


def test_what_is_left_is_said_where_some_of_it_was_deleted(tmp_path: Path) -> None:
    book = begun(tmp_path)
    book.append("queue:email", Done(slot(0)))
    book._begin_file()
    book.append("queue:email", Done(slot(1)))
    (tmp_path / "w1.0.records").unlink()
    assert [entry.index for entry in book.entries()] == [1]


# ---- disks that are full


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_loses_records_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ROOM", 50)
    monkeypatch.setattr(journal, "_FULL_FOR_S", 0.0)
    book = begun(tmp_path)
    lost = metrics.snapshot().get("journal_lost", 0)
    with full_at(49):
        for index in range(10):
            book.append("queue:email", Done(slot(index)))
    kept = [entry.index for entry in book.entries()]
    assert kept == list(range(len(kept)))
    assert 1 <= len(kept) < 10
    book.append("queue:email", Done(slot(11)))
    assert [entry.index for entry in book.entries()] == [*kept, 11]
    assert metrics.snapshot()["journal_lost"] - lost == 10 - len(kept)
    assert caplog.text.count("journal_not_written") == 1
    assert "journal_torn" not in caplog.text


def test_full_files_are_followed_by_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ROOM", 60)
    book = begun(tmp_path)
    book.append("queue:email", Dead(slot(0), JobState(last="x" * 5000)))
    for index in range(1, 100):
        book.append("queue:email", Done(slot(index)))
    assert [entry.index for entry in book.entries()] == list(range(100))
    sizes = [file.stat().st_size for file in sorted(tmp_path.glob("*.records"))]
    assert len(sizes) > 20
    book.settled(50)
    book.tidy()
    settled = [file for file in book._files if file.settled_s is not None]
    assert max(file.last for file in settled) <= 50
    assert max(file.last for file in settled) > 40


def test_full_at_the_start_it_begins_later(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    for size in (0, 5, 30):
        with full_at(size):
            book.enlist("queue:email", "w1")
            book.append("queue:email", Done(slot(0)))
    book.enlist("queue:email", "w1")
    book.append("queue:email", Done(slot(1)))
    assert [entry.index for entry in book.entries()] == [1]
    assert len(journal._read_names(tmp_path / "w1.journal")) == 1


def test_folder_that_cannot_be_made_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    book = Journal(tmp_path / "file" / "journal")
    for _ in range(3):
        book.enlist("queue:email", "w1")
        book.append("queue:email", Done(slot(0)))
        book.tidy()
    assert caplog.text.count("journal_not_written") == 1
    assert replay(tmp_path / "file" / "journal", []) == 0


# ---- replay


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
