"""Holders: who holds connections, and whether he still lives, as far as this machine can tell.

A holder is one process under a random name. It has a file of that name in the data folder, locked
by flock(2) while it lives: however it dies, the kernel gives the lock back. Whoever gets the lock
of another's file knows that he is dead, at once, and what he held is free. Of holders on other
machines, or with other data folders, nothing is known; their leases end. Without a folder that can
be written ours does too. Not promised: anything on file systems without flock.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from geomail import log

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_KEPT_S = 3600.0


class Holder:
    """This process as a holder."""

    def __init__(self, folder: Path | None) -> None:
        """Take a name, and lock its file in `folder`."""
        self.name = secrets.token_hex(8)
        self._folder = folder
        self._lock: int | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / self.name, _FLAGS, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._tidy(folder)
        except OSError as error:
            hint = "what we hold when we are killed is free when its lease has run out"
            log.warning("no_lock_for_limits", folder=folder, why=str(error), hint=hint)

    def touch(self) -> None:
        """Show that we are in use, to those who tidy up."""
        if self._lock is not None:
            with suppress(OSError):  # a disk that turned read-only keeps nobody from sending
                os.utime(self._lock)

    def dead_of(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that lived on this machine and don't any more."""
        return [name for name in names if self._has_died(name)]

    def leave(self) -> None:
        """Give up the name: nothing is held any more."""
        if self._lock is None or self._folder is None:
            return
        with suppress(OSError):
            (self._folder / self.name).unlink()
        os.close(self._lock)
        self._lock = None

    def _tidy(self, folder: Path) -> None:
        """Take away files of the dead that no key names any more."""
        long_ago = time.time() - _KEPT_S
        for path in folder.iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < long_ago and self._has_died(path.name):
                    path.unlink()

    def _has_died(self, name: str) -> bool:
        if self._folder is None or name == self.name or not name.isalnum():
            return False
        try:
            lock = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(lock)
        return True
