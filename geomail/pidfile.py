"""A pid file that can't lie: the process it names lives exactly as long as the file is locked.

A bare pid in a file says nothing once its process has died and the number went to another. So the
file is locked by flock(2), and the kernel lets go of the lock with the last process that holds it,
however that one ends. A lock outlives exec, and is shared with a child that gets the descriptor: so
a server that was started with it is as safely found as the process that took it.

Not promised: anything on file systems without flock (some network mounts).
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geomail.errors import ConfigError, GeomailError

_NOBODY = b"nobody"
_UNSAID_S = 2.0
_LOOK_AGAIN_S = 0.01
_LOOKS = 20  # who reads the file locks it for an instant; who owns it, for life


class PidFile:
    """One pid file: taken by one process at a time, read by anybody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> bool:
        """Lock the file and empty it; return False when a living process holds it.

        Raises ConfigError when the file can't be opened or written.
        """
        try:
            for _ in range(_LOOKS):
                if (fd := self._lock()) >= 0:
                    break
                time.sleep(_LOOK_AGAIN_S)
            self._fd = fd
            if fd >= 0:
                os.ftruncate(fd, 0)
        except OSError as error:
            raise ConfigError(f"can't write {self.path}: {error.strerror}") from None
        return self._fd >= 0

    def write(self, pid: int) -> None:
        """Say whose file it is. Raises ConfigError when the disk is full."""
        try:
            os.pwrite(self._fd, f"{pid}\n".encode(), 0)
        except OSError as error:
            raise ConfigError(f"can't write {self.path}: {error.strerror}") from None

    def fileno(self) -> int:
        """Return the locked descriptor, for a child that is to hold the lock as well."""
        return self._fd

    def close(self) -> None:
        """Let go of this process's part of the lock, and leave the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Take the file away and let go of it; the caller holds the lock."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def owner(self) -> int | None:
        """Return the pid of the living process that holds the file, or None.

        Raises GeomailError when it can't be read, or is held by somebody who doesn't say his pid.
        """
        deadline = time.monotonic() + _UNSAID_S
        while (text := self._held()).strip() == b"" and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)  # locked a moment ago: the pid follows
        if text == _NOBODY:
            return None
        if not text.strip().isdigit():
            raise GeomailError(f"{self.path} is locked, and names no process")
        return int(text)

    def _held(self) -> bytes:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return _NOBODY
        except OSError as error:
            raise GeomailError(f"can't read {self.path}: {error.strerror}") from None
        try:
            return _NOBODY if _try_lock(fd, fcntl.LOCK_SH) else os.pread(fd, 32, 0)
        finally:
            os.close(fd)

    def _lock(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not _try_lock(fd, fcntl.LOCK_EX):
                os.close(fd)
                return -1
            if self._is_current(fd):
                return fd
            os.close(fd)

    def _is_current(self, fd: int) -> bool:
        # Its last owner may have removed the file between our open and our lock.
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(fd), self.path.stat())
        return False


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


@contextmanager
def held(path: str | None) -> Iterator[None]:
    """Hold the file at `path` (None: none) for as long as the block runs.

    Raises GeomailError when another process holds it, ConfigError when it can't be written.
    """
    if path is None:
        yield
        return
    file = PidFile(Path(path))
    if not file.take():
        raise GeomailError(
            f"geomail runs already: {path} names process {file.owner()}"
            " (end it by `geomail stop`, or pass a --pidfile of your own)"
        )
    try:
        file.write(os.getpid())
        yield
    finally:
        file.remove()
