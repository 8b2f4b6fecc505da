"""The delivery log on a disk that is full, and one that fills: said seldom, and no line is torn."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from geomail import job
from geomail.carriers.task import Task
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job.kinds import HttpTask
from geomail.queue import JobState, Link, Queue, Slot
from geomail.worker.delivery_log import DeliveryLog


def test_a_full_disk_is_said_seldom(caplog: pytest.LogCaptureFixture) -> None:
    log = DeliveryLog("/dev/full")
    for _ in range(100):
        note(log, 3)
    assert caplog.text.count("delivery_log_lost") == 1
    assert "lines_so_far=3 path=/dev/full" in caplog.text


def test_a_line_that_the_disk_cut_short_spoils_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    log = DeliveryLog(str(path))
    note(log, 1)
    line = path.stat().st_size
    with at_most(2 * line + 10):
        note(log, 4)
        note(log, 1)
    assert "lines_so_far=3" in caplog.text
    note(log, 2)
    note(log, 1)
    found = path.read_text().splitlines()
    assert len(found) == 6
    assert len(found.pop(2)) == 10
    assert all(json.loads(each)["id"] == "a.1.0" for each in found)


def note(log: DeliveryLog, lines: int) -> None:
    for _ in range(lines):
        log.note_task(task(), Outcome(Fate.DELIVERED, Blame.NOBODY, "url", "200 OK"))
    log.write()


@cache
def task() -> Task:
    queue = Queue(Link("redis://127.0.0.1:1"), "nobody's")  # asked for nothing
    payload = b'{"url":"http://127.0.0.1/x"}'
    request = job.decode(payload)
    assert isinstance(request, HttpTask)
    slot = Slot("a", 1, 0, "a.1.0", 0, 0, JobState(), payload)
    return Task(queue, slot, job=request, route="url/x:80")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let no file become larger, as a disk that is full would."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
