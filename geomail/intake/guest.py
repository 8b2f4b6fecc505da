"""A guest: one connection that reception has let in, how it is read from, and how it is left.

    data = guest.read(most, within_s, is_begun=…)     b"" at the end; TimeoutError
    guest.see_out()                                   our last word is said: let it be read

When everybody is to leave, a guest that waits for the next request, document or command waits only
for a moment, so that what crosses our leaving on the wire is answered too. One that is in the midst
of something (`is_begun`), or has come just now, may go on for some seconds, as long as it does not
pause; a handshake of TLS has as long as a pause. What has come by then is still read, for half a
second more; behind it, it is as if the client had closed.

A connection that is closed with bytes unread, or whose receiving half was shut down, is reset, and
the last answer may be lost with it. So it is ended as RFC 9112, 9.6 says: our half first, then what
still comes is read and dropped, until the client closes or a second has passed.

Promised: an answer that was sent is not taken back by a reset of ours, but for a client that sends
on for more than a second.
"""

import socket
import time
from contextlib import suppress
from ssl import SSLContext, SSLSocket, SSLWantReadError
from typing import Any

import gevent
from gevent.event import Event
from gevent.socket import cancel_wait

_MOMENT_S = 0.3  # for what is on its way while we leave
_FINISH_S, _PAUSE_S = 5.0, 2.0  # for what has begun
_LATEST_S = 5.5  # for who never pauses
_NEW_S = 1.0
_LAST_WORDS_S = 1.0
_HANDSHAKE_S = 10.0
_BLOCK = 64 * 1024


class LeavingError(OSError):
    """Everybody is to leave: a wait has ended."""


class Guest:
    """One connection: `sock`, and `host`, where it comes from ("" for a local socket)."""

    __slots__ = (
        *("_is_seen_out", "_is_shaking", "_leaving", "host", "is_known"),
        "is_sent_away",
        *("_told_at", "since", "sock"),
    )

    def __init__(self, sock: socket.socket, host: str, leaving: Event) -> None:
        self.sock = sock
        self.host = host
        self.since = time.monotonic()
        self.is_known = False
        """Whether it has shown what it is for: a whole job, or who it is."""
        self.is_sent_away = False
        self._is_shaking = False  # hands, for TLS
        self._leaving = leaving
        self._told_at = 0.0  # to leave
        self._is_seen_out = False

    def read(self, most: int, within_s: float, *, is_begun: bool) -> bytes:
        """Return what comes next, b"" at the end. Raises TimeoutError, OSError."""
        if self._leaving.is_set():
            return self._read_last(most, within_s, is_begun=is_begun)
        self.sock.settimeout(within_s)
        try:
            return self.sock.recv(most)
        except LeavingError:
            return self._read_last(most, within_s, is_begun=is_begun)

    def _read_last(self, most: int, within_s: float, *, is_begun: bool) -> bytes:
        now = time.monotonic()
        self._told_at = self._told_at or now
        if now >= self._told_at + _LATEST_S:
            return b""
        is_new = not self.is_known and self._told_at - self.since < _NEW_S
        patience_s = self._told_at - now + (_FINISH_S if is_begun or is_new else _MOMENT_S)
        patience_s = max(0.0, min(patience_s, _PAUSE_S))
        self.sock.settimeout(min(within_s, patience_s))
        try:
            return self.sock.recv(most)
        except (TimeoutError, BlockingIOError, SSLWantReadError):
            if patience_s < within_s:
                return b""
            raise
        finally:
            self.sock.settimeout(within_s)  # for what is answered

    def peek(self) -> bytes | None:
        """Return the first byte that comes, b"" at the end, None when it does not come."""
        self.sock.settimeout(_PAUSE_S if self._leaving.is_set() else _HANDSHAKE_S)
        try:
            return self.sock.recv(1, socket.MSG_PEEK)
        except LeavingError:
            return self.peek()
        except TimeoutError:
            return None

    def encrypt(self, tls: SSLContext, within_s: float = _HANDSHAKE_S) -> None:
        """Go on over TLS, as its server. Raises OSError, also when the handshake takes too long."""
        within_s = min(within_s, _PAUSE_S if self._leaving.is_set() else _HANDSHAKE_S)
        self._is_shaking = True
        # Known before the handshake, so that it can be cut while that lasts.
        self.sock.settimeout(within_s)
        self.sock = secured = tls.wrap_socket(
            self.sock, server_side=True, do_handshake_on_connect=False
        )
        with gevent.Timeout(within_s, ConnectionAbortedError("no TLS handshake in time")):
            secured.do_handshake()  # whose own deadline begins anew with every byte
        self._is_shaking = False

    def wake(self) -> None:
        """End its wait for more, if it is in one, by LeavingError."""
        if self._is_shaking:
            gevent.spawn_later(_PAUSE_S, self._end_handshake)
        elif not (self._told_at or self._is_seen_out):
            self._end_wait()

    def _end_handshake(self) -> None:
        if self._is_shaking:
            self._end_wait()

    def _end_wait(self) -> None:
        waiting: Any = getattr(self.sock, "_read_event", None)
        if waiting is not None:  # else it is closed
            # gevent's shutdown() does the same, but shuts the receiving half down as well: then
            # Linux resets the connection as soon as anything more comes.
            cancel_wait(waiting, LeavingError)

    def end_tls(self) -> None:
        """Say that this is the end, where TLS is spoken, and wait for nothing."""
        if isinstance(self.sock, SSLSocket) and not self._is_seen_out:
            _say_tls_is_over(self.sock)

    def see_out(self) -> None:
        """Say that nothing more comes from us; read what still comes, for a moment, and drop it."""
        if self._is_seen_out:
            return
        self._is_seen_out = True
        see_out(self.sock)


def see_out(sock: socket.socket) -> None:
    """End a connection so that what was said last can be read."""
    until = time.monotonic() + _LAST_WORDS_S
    with suppress(OSError):
        if isinstance(sock, SSLSocket):
            _say_tls_is_over(sock)
        sock.shutdown(socket.SHUT_WR)
        while (left_s := until - time.monotonic()) > 0:
            sock.settimeout(left_s)
            if not sock.recv(_BLOCK):
                return
            gevent.sleep(0)


def _say_tls_is_over(sock: SSLSocket) -> None:
    """Send close_notify, without which a client can't tell the end from a cut (RFC 8446, 6.1)."""
    sock.settimeout(0.0)
    with suppress(OSError, ValueError):
        sock.unwrap()
