"""Journals to be filled, torn and replayed, and slots to fill them with."""

from pathlib import Path
from typing import Any

from geomail.queue import (
    FRESH,
    JobState,
    Queue,
    Slot,
)
from geomail.queue.journal import Journal

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
