"""The parent of a worker that is one of several, seen from the worker.

Standard input and output are one socket whose other end geomail.supervisor holds. Lines go over it:
we say `running`, `retiring` and, at the end of a burst, what is `left`; the parent says `stop`,
`now` (leave at once), `reload`, and `reap` when another of its workers has died. However the parent
ends, the kernel closes its end of the socket: that is heard as `stop`, so no worker outlives its
parent by more than its drain.
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import gevent

_STDIN = 0


class Parent:
    """Hears the parent as long as the worker lives."""

    def __init__(self, obey: Callable[[str], None]) -> None:
        """Have `obey` called with each word."""
        self._channel = socket.socket(fileno=os.dup(_STDIN))
        self._obey = obey
        gevent.spawn(self._listen)

    def say(self, word: str) -> None:
        """Tell the parent; when it has gone, nobody."""
        with suppress(OSError):
            sys.stdout.write(f"{word}\n")
            sys.stdout.flush()

    def _listen(self) -> None:
        heard = b""
        with suppress(OSError):
            while block := self._channel.recv(1000):
                *lines, heard = (heard + block).split(b"\n")
                for line in lines:
                    self._obey(line.decode())
        self._obey("stop")
