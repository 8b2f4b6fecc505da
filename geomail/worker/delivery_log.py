"""The delivery log: one JSON line an outcome, in a file that others may rotate.

Lines are kept until Redis has had the outcomes, then written as one block. Promised: a line for
each recipient that a host has answered for, and for each task. Not promised: each only once; a
worker that is killed may leave some out, and say others twice.
"""

import json
import os
import time
from collections.abc import Iterable

from geomail import log, metrics
from geomail.carriers.task import Task
from geomail.delivery.delivery import Delivery
from geomail.delivery.lane import Lane
from geomail.delivery.outcome import Outcome
from geomail.errors import ConfigError
from geomail.intake.seldom import Seldom
from geomail.queue import Slot


class DeliveryLog:
    """A file with one JSON line an outcome; nothing at all without a path."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self.is_wanted = path is not None  # there is a file to write to
        self._lines: list[str] = []
        self._file: int | None = None
        self._is_torn = False  # the file ends within a line of ours
        self._lost = 0
        self._say_lost = Seldom(log.error, "delivery_log_lost")
        self.reopen()

    def reopen(self) -> None:
        """Open the file anew, after it was rotated. Raises ConfigError where it can't be opened."""
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            fresh = os.open(self._path, flags, 0o640)
        except OSError as error:
            raise ConfigError(f"can't write {self._path}: {error.strerror}") from None
        if self._file is not None:
            os.close(self._file)
        self._file = fresh
        self._is_torn = False

    def note(self, delivery: Delivery, pairs: Iterable[tuple[str, Outcome]], lane: Lane) -> None:
        """Keep a line for each recipient until the next `write()`."""
        slot, label, to = delivery.slot, delivery.email.label, (delivery.route, lane.name)
        for recipient, outcome in pairs:
            self._keep(slot, label, recipient, outcome, to)

    def note_task(self, task: Task, outcome: Outcome) -> None:
        """Keep a line for what became of a task."""
        relay, _, host = task.route.partition("/")
        self._keep(task.slot, task.job.label, task.target, outcome, (relay, host or None))

    def write(self) -> None:
        """Write the lines kept, as one block; a full disk is said, and delivers on."""
        if not self._lines or self._file is None:
            return
        lines, self._lines = self._lines, []
        block = ("\n".join(lines) + "\n").encode()
        torn, self._is_torn = b"\n" if self._is_torn else b"", False
        try:
            written, why = os.write(self._file, torn + block) - len(torn), "the disk is full"
        except OSError as error:
            written, why = -len(torn), error.strerror or str(error)
        if written < len(block):
            self._lose(block, written, why)

    def _lose(self, block: bytes, written: int, why: str) -> None:
        """Say that a block, or its end, is lost; what comes next begins on a line of its own."""
        lost = block.count(b"\n", max(0, written))
        self._is_torn = written < 0 or block[max(0, written - 1) : written] not in (b"", b"\n")
        self._lost += lost
        metrics.count("delivery_log_lost", lost)
        self._say_lost(lines_so_far=self._lost, path=self._path, why=why)

    def _keep(
        self,
        slot: Slot,
        label: str | None,
        recipient: str,
        outcome: Outcome,
        to: tuple[str, str | None],
    ) -> None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": slot.id,
            "label": label,
            "to": recipient,
            "outcome": outcome.fate.value,
            "relay": to[0],
            "host": to[1],
            "phase": outcome.phase,
            "reply": outcome.text,
            "tries": slot.state.tries + 1,
            "maybe_duplicate": outcome.maybe_duplicate or None,
        }
        self._lines.append(
            json.dumps({key: value for key, value in line.items() if value is not None})
        )
