"""A file of records, written through memory: what is appended is the kernel's, without a call.

    <length> <crc> <body>  <length> <crc> <body> …  zeros up to its end

A file has all its room from the start (posix_fallocate), so a full disk is met when it begins and
not in the middle of a copy, where it would be a SIGBUS. Appending is one copy: 0.2 µs, where a
write costs 0.7 by itself and 5 among all that a mail does. The kernel keeps what was copied when we
are killed; a copy that a kill has cut short has a wrong crc. What follows a record that is torn is
not believed. When the file is closed it shrinks to what is in it.

Not promised: anything after the machine itself has died; nor that a file which somebody else cuts
short under us is no SIGBUS, nor on file systems that promise room which they don't have.
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from geomail import log

ROOM = 1 << 20
_HEAD = struct.Struct("<II")
_HEAD_SIZE, _pack = _HEAD.size, _HEAD.pack
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def frame(body: bytes) -> bytes:
    """Return a record as it lies in a file; `body` is not empty."""
    return _HEAD.pack(len(body), crc32(body)) + body


def bodies(path: Path, data: bytes, at: int = 0) -> Iterator[bytes]:
    """Split what `path` has from `at` on into bodies, up to the first record that is torn."""
    while at + _HEAD.size < len(data):
        length, check = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        body = data[at + _HEAD.size : end]
        if length == 0 or end > len(data) or crc32(body) != check:
            break
        yield body
        at = end
    if data[at:].strip(b"\0"):
        log.warning("journal_torn", file=path.name, at=at, ignored_bytes=len(data) - at)


class RecordFile:
    """One new file, open for appending."""

    __slots__ = ("_map", "_path", "_room", "size")

    def __init__(self, path: Path, room: int = ROOM) -> None:
        """Create it with `room` bytes. Raises OSError, and then there is no file."""
        self.size = 0
        self._path = path
        self._room = room
        fd = os.open(path, _FLAGS, 0o600)
        try:
            _reserve(fd, room)
            self._map = mmap.mmap(fd, room)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)

    def append(self, body: bytes) -> bool:
        """Append a record; False where there is no room left for it."""
        start = self.size
        end = start + _HEAD_SIZE + len(body)
        if end > self._room:
            return False
        self._map[start:end] = _pack(len(body), crc32(body)) + body  # as frame()
        self.size = end
        return True

    def content(self) -> bytes:
        """Return all that was appended, also where the file has been deleted."""
        return self._map[: self.size]

    def close(self) -> None:
        """Let go of it; its rest goes back to the disk."""
        self._map.close()
        with suppress(OSError):
            os.truncate(self._path, self.size)


def _reserve(fd: int, room: int) -> None:
    try:
        os.posix_fallocate(fd, 0, room)
    except AttributeError:  # macOS
        _fill(fd, room)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        _fill(fd, room)


def _fill(fd: int, room: int) -> None:
    if os.write(fd, bytes(room)) < room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
