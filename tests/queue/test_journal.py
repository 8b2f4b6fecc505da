"""The journal: what it keeps on disk, for how long, and where the disk is full."""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from journals import GONE, LEFT, begun, files, slot

from geomail import metrics
from geomail.queue import (
    Dead,
    Done,
    JobState,
    Part,
    Record,
    Retry,
    Split,
    journal,
)
from geomail.queue.entries import Entry, record_of
from geomail.queue.journal import Journal, replay
from geomail.queue.record_file import bodies, frame

pytest_plugins = ("queue_fixtures",)
Raw = Any


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


@pytest.mark.parametrize("is_made_again", [False, True])
def test_moved_away_it_begins_anew(tmp_path: Path, is_made_again: bool) -> None:
    """Else the next file would lie where no journal names its worker, and nobody reads it."""
    folder = tmp_path / "journal"
    book = begun(folder)
    book.append("queue:email", Done(slot(0)))
    folder.rename(tmp_path / "old")
    if is_made_again:
        folder.mkdir()
    book.tidy()
    book.append("queue:email", Done(slot(1)))
    assert [entry.index for entry in book.entries()] == [0, 1]
    assert len(journal._read_names(folder / "w1.journal")) == 1
    book.remove()
    assert files(folder) == []


def test_a_file_in_the_folders_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "journal"
    book = begun(folder)
    shutil.rmtree(folder)
    folder.write_text("somebody else's")
    book.tidy()
    book.append("queue:email", Done(slot(0)))
    assert not book.is_open
    assert "journal_not_written" in caplog.text
    folder.unlink()
    book.enlist("queue:email", "w1")
    book.append("queue:email", Done(slot(1)))
    assert [entry.index for entry in book.entries()] == [1]


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
