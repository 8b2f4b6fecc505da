"""A pid file: held by one, read by anybody, and by no reader kept from its next owner."""

import fcntl
import os
import threading
from pathlib import Path

from geomail.pidfile import PidFile


def test_a_held_file_is_not_taken(tmp_path: Path) -> None:
    first, second = PidFile(tmp_path / "run.pid"), PidFile(tmp_path / "run.pid")
    assert first.take()
    first.write(4711)
    assert second.owner() == 4711
    assert not second.take()
    first.remove()
    assert second.owner() is None
    assert second.take()
    second.close()


def test_who_looks_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "run.pid"
    path.write_text("")
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)  # as owner() does, for an instant
    letting_go = threading.Timer(0.05, os.close, [fd])
    letting_go.start()
    held = PidFile(path)
    assert held.take()
    held.close()
    letting_go.join()
