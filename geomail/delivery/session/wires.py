"""Wires: bytes in and out of one connection, in clear or under TLS, without ever blocking a write.

A wire writes what the kernel takes now and says how much that was; whoever owns it waits, with
`wait()`, and reads meanwhile what the other end has to say: a server whose replies nobody reads
stops reading. What `write()` says it took is in the kernel whole, under TLS too, so a message's
last byte has left exactly when it is counted.

A wire waits before it reads: a reply is never there yet, and a read in vain costs a system call and
an exception (18 us a round trip with settimeout, sendall and recv; 12.5 us so). A TLS record is at
most one block, so after a read nothing is left in OpenSSL that the descriptor doesn't tell of.

An idle wire tells a watcher when the server says something or hangs up. Under TLS that means
decrypted bytes: session tickets (TLS 1.3) make a descriptor readable and mean nothing. What was
found so is kept, and is what the next `read()` returns.
"""

import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent.ssl import SSLSocket
from greenlet import getcurrent

_BLOCK = 16384
_BLOCKS_AT_ONCE = 64
_READ, _WRITE = 1, 2


class Wire(ABC):
    """What both kinds share: waiting, and what was read ahead."""

    __slots__ = ("_ahead", "_fd", "_hub", "_news", "_reader")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hub = gevent.get_hub()
        self._reader = self._hub.loop.io(fd, _READ)
        self._ahead: bytes | None = None
        self._news: Any = None  # a call under way that tells of what was read ahead

    @abstractmethod
    def read(self) -> bytes:
        """Wait for bytes; b"" is the end. Raises OSError."""

    @abstractmethod
    def read_now(self) -> bytes | None:
        """Return what has come, None where nothing has, b"" at the end. Raises OSError."""

    @abstractmethod
    def write(self, data: bytes | memoryview) -> int:
        """Write what can be written now; return how many bytes that was. Raises OSError."""

    def wait(self) -> None:
        """After a write that fell short: wait until it may go on, or something can be read."""
        self._wait_for(_READ | _WRITE)

    def _wait_for(self, events: int) -> None:
        watcher = self._hub.loop.io(self._fd, events)
        try:
            self._hub.wait(watcher)
        finally:
            watcher.close()

    def is_readable(self) -> bool:
        """Return whether the server has said something or hung up; nothing of it is lost."""
        if self._ahead is None:
            try:
                self._ahead = self.read_now()
            except OSError:
                self._ahead = b""
        return self._ahead is not None

    def watch(self, callback: Callable[[], object]) -> None:
        """Call `callback()` from the hub, once, when it `is_readable()`; nobody reads till then."""
        if self._ahead is None:
            self._reader.start(self._look, callback)
        else:
            self._news = self._hub.loop.run_callback(callback)

    def _look(self, callback: Callable[[], object]) -> None:
        if self.is_readable():
            self._reader.stop()
            callback()

    def unwatch(self) -> None:
        """Take the watcher away, whether it was called or not."""
        self._reader.stop()
        if self._news is not None:
            self._news.stop()
            self._news = None

    def close(self) -> None:
        """Let go of the descriptor, which stays its socket's."""
        self.unwatch()
        self._reader.close()


class PlainWire(Wire):
    """Reads and writes a non-blocking descriptor itself."""

    __slots__ = ()

    def read(self) -> bytes:
        """Wait for bytes; b"" is the end. Raises OSError."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        reader = self._reader
        while True:
            # As hub.wait() does, without its Waiter, who tells a waking from another's: here a read
            # in vain tells. 0.2 us less.
            reader.start(getcurrent().switch)
            try:
                self._hub.switch()
            finally:
                reader.stop()
            try:
                return os.read(self._fd, _BLOCK)
            except BlockingIOError:
                continue

    def read_now(self) -> bytes | None:
        """Return what has come, None where nothing has, b"" at the end. Raises OSError."""
        try:
            return os.read(self._fd, _BLOCK)
        except BlockingIOError:
            return None

    def write(self, data: bytes | memoryview) -> int:
        """Write what can be written now; return how many bytes that was. Raises OSError."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0


class TlsWire(Wire):
    """Reads and writes a TLS socket after its handshake."""

    __slots__ = ("_awaited_by_read", "_awaited_by_write", "_socket")

    def __init__(self, socket: SSLSocket) -> None:
        super().__init__(socket.fileno())
        socket.settimeout(0.0)  # the waiting is done here
        self._socket = socket
        self._awaited_by_read = _READ
        self._awaited_by_write = _READ | _WRITE

    def read(self) -> bytes:
        """Wait for bytes; b"" is the end. Raises OSError."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        while True:
            self._hub.wait(self._reader)
            received = self.read_now()
            if received is not None:
                return received
            if self._awaited_by_read == _WRITE:
                self._wait_for(_WRITE)

    def read_now(self) -> bytes | None:
        """Return what has come, None where nothing has, b"" at the end. Raises OSError."""
        try:
            received: bytes = self._socket.read(_BLOCK)
        except ssl.SSLWantReadError:
            self._awaited_by_read = _READ
            return None
        except ssl.SSLWantWriteError:  # an answer of TLS's own, and the kernel's buffer is full
            self._awaited_by_read = _WRITE
            return None
        return received

    def write(self, data: bytes | memoryview) -> int:
        """Write what can be written now; return how many bytes that was. Raises OSError."""
        sent = 0
        self._awaited_by_write = _READ | _WRITE
        try:
            if len(data) <= _BLOCK:
                return self._socket.write(data)
            view = memoryview(data)[: _BLOCK * _BLOCKS_AT_ONCE]  # others want the hub too
            while sent < len(view):
                sent += self._socket.write(view[sent : sent + _BLOCK])
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._awaited_by_write = _READ
        except OSError:
            if not sent:  # else it comes again, and what has left is told first
                raise
        return sent

    def wait(self) -> None:
        """After a write that fell short: wait until it may go on, or something can be read."""
        self._wait_for(self._awaited_by_write)
