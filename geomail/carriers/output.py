"""What a child says on its stdout and stderr: log lines with the id of the call in hand.

A child never waits for its words to be logged, and never makes the worker wait: the pipe is read as
it fills, in small pieces, between which others have their turn. Of one call a thousand lines of up
to 2,000 characters are logged, 128 KB at most; the rest is counted, and read with pauses, so that
who writes without end is slowed by its own pipe. A longer line is cut.

Not promised: that a line of two processes of one call is whole; nor whose line it is that a process
of an earlier call writes, which a kept child has left running.
"""

import os

import gevent
from gevent.os import make_nonblocking, nb_read

from geomail import log

_BLOCK, _LARGE_BLOCK = 8192, 65_536
_LINE_MAX = 2000
_LINES_MAX, _BYTES_MAX = 1000, 131_072
_PAUSE_S = 0.01


class Output:
    """The reading end of a child's output, and who reads it."""

    def __init__(self, fd: int, job_id: str | None, *, event: str = "call_said") -> None:
        """Take the reading end `fd`; its lines are logged as `event` with `job_id`."""
        make_nonblocking(fd)
        self.last_line = ""
        self._fd = fd
        self._event = event
        self._rest = b""
        self._id = job_id
        self._lines, self._bytes, self._dropped = _LINES_MAX, _BYTES_MAX, 0
        self._reading = gevent.spawn(self._read)

    def turn_to(self, job_id: str) -> None:
        """Log what comes from now on under another id."""
        self.drain()
        self._id = job_id
        self._lines, self._bytes, self._dropped = _LINES_MAX, _BYTES_MAX, 0
        self.last_line = ""

    def drain(self) -> None:
        """Log what has been written up to now; a line that isn't over ends here."""
        for _ in range(4):  # a pipe holds 64 KB; who still writes is not waited for
            try:
                block = os.read(self._fd, _LARGE_BLOCK)
            except OSError:
                break
            if not block:
                break
            self._take(block)
        self._end_line()
        if self._dropped:
            log.warning("call_said_more", id=self._id, bytes=self._dropped, hint="not logged")
            self._dropped = 0

    def close(self) -> None:
        """Log the rest, and close the pipe."""
        self._reading.kill()
        self.drain()
        os.close(self._fd)

    def _read(self) -> None:
        try:
            while block := nb_read(self._fd, _LARGE_BLOCK if self._dropped else _BLOCK):
                self._take(block)
                gevent.sleep(_PAUSE_S if self._dropped else 0)
        except OSError as error:
            log.error("call_output_broke", id=self._id, why=error)

    def _take(self, block: bytes) -> None:
        if self._dropped:
            self._dropped += len(block)
            self._rest = (self._rest + block)[-_LINE_MAX:]
            return
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self._rest) > _LINE_MAX:
            self._say(self._rest[:_LINE_MAX])
            self._rest = self._rest[_LINE_MAX:]

    def _end_line(self) -> None:
        *_, last = [line for line in self._rest.split(b"\n") if line] or [b""]
        self._rest = b""
        self._say(last)

    def _say(self, line: bytes) -> None:
        text = line[:_LINE_MAX].decode("utf-8", "replace").rstrip()
        if not text:
            return
        self.last_line = text
        self._bytes -= len(line)
        self._lines -= 1
        if self._lines < 0 or self._bytes < 0:
            self._dropped += len(line) + 1
        else:
            log.info(self._event, id=self._id, line=text)
