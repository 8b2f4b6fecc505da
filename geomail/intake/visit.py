"""One connection to the HTTP door: requests come in, answers go out, and who is too slow is left.

    head = visit.next_head()            None: the client has gone, or was silent for too long
    for content in visit.body(head):    in pieces, as they come
    visit.answer(answer, …)             or a Stream: pieces of unknown number

A client may be silent for `idle_s` between two requests; a head has as long to become whole. Of a
body each wait uses up what is left of `idle_s`, to which every byte that comes adds a thousandth of
a second: a drip holds no connection. A piece that can't be written within `idle_s` ends it too: a
client that reads nothing before it has sent everything has room for some ten thousand answers, in
the buffers of both systems.

Nothing is held but the piece in hand: how much of a body is kept is for the caller to say.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from ssl import SSLWantReadError, SSLWantWriteError

import gevent
import msgspec

from geomail.intake.bodies import body_of
from geomail.intake.guest import Guest
from geomail.intake.heads import END, Fault, Head, fault_so_far, read_head
from geomail.intake.limits import Share
from geomail.intake.messages import Answer

_HEAD_PIECE, _PIECE = 16 * 1024, 64 * 1024
_SKIPPED = 64 * 1024
_SLOWEST = 1000  # bytes a second
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_encode = msgspec.json.encode


class TooSlowError(ConnectionError):
    """The client has let us wait for too long, in the midst of a request."""


class GoneError(ConnectionError):
    """The client has gone in the midst of a request."""


class Visit:
    """A client's connection; `share` is for what is held of its jobs."""

    def __init__(self, guest: Guest, share: Share, idle_s: float) -> None:
        self.guest = guest
        self.host = guest.host
        self.share = share
        self._sock = sock = guest.sock
        self._idle_s = idle_s
        self._held = b""  # of the next request
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def next_head(self) -> Head | Fault | None:
        """Wait for the next request."""
        held = self._begun_head()
        if not held:
            return None
        until = time.monotonic() + self._idle_s
        while (end := held.find(END)) < 0:
            fault = fault_so_far(held)
            if fault is not None:
                return fault
            try:
                more = self._more(until - time.monotonic())
            except TimeoutError:
                return Fault(408, f"the head of a request has to come within {self._idle_s:g} s")
            if not more:
                return None
            held += more
        self._held = held[end + len(END) :]
        return read_head(held[:end])

    def _begun_head(self) -> bytes:
        """Return how the next request begins, b"" if none does. Empty lines before it are passed
        over (RFC 9112, 2.2).
        """
        until = time.monotonic() + self._idle_s
        held = self._held.lstrip(b"\r\n")
        while not held:
            try:
                more = self._more(until - time.monotonic(), is_begun=False)
            except TimeoutError:
                return b""
            if not more:
                return b""
            held = more.lstrip(b"\r\n")
        return held

    def body(self, head: Head) -> Iterator[bytes]:
        """Yield the body of a request in pieces, and b"" whenever the client lets us wait for more.

        Raises BodyError, TooSlowError and GoneError.
        """
        body = body_of(head)
        if not body.is_whole and head.waits and not self._held:
            self._send(_CONTINUE)
        left_s = self._idle_s
        data: bytes | None
        data, self._held = self._held, b""
        while True:
            content = body.feed(data)
            if content:
                yield content
            if body.is_whole:
                self._held = body.rest
                return
            most = body.wants(_PIECE)
            data = self._at_once(most)
            if not data:
                yield b""
            if data is None:
                data, left_s = self._waited(most, left_s)
            if not data:
                raise GoneError("the client has gone in the midst of a body")

    def _waited(self, most: int, left_s: float) -> tuple[bytes, float]:
        """Return what comes next, and what is left of the patience; raises TooSlowError."""
        began = time.monotonic()
        try:
            data = self._more(left_s, most)
        except TimeoutError:
            raise TooSlowError(
                f"less than {_SLOWEST:,} bytes a second came for {self._idle_s:g} s"
            ) from None
        gained_s = len(data) / _SLOWEST - (time.monotonic() - began)
        return data, min(self._idle_s, left_s + gained_s)

    def skip_body(self, head: Head) -> bool:
        """Read a body that nobody wants, if it is small; return whether it was."""
        if head.length is None or head.length > _SKIPPED or (head.length and head.waits):
            return False
        for _ in self.body(head):
            pass
        return True

    def answer(self, answer: Answer, head: Head | None, *, keeps: bool) -> None:
        """Send an answer; `keeps`: the connection stays."""
        said = _encode(answer.body) + b"\n"
        fields = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(said))]
        fields += [(name.encode(), value.encode()) for name, value in answer.fields]
        start = _rendered(answer.status, fields, head, keeps=keeps)
        self._send(start if head and head.method == "HEAD" else start + said)

    def leave(self) -> None:
        """Say that nothing more comes from us, and let the client read what has come."""
        self.guest.see_out()

    def _more(self, within_s: float, most: int = _HEAD_PIECE, *, is_begun: bool = True) -> bytes:
        """Return what comes next, b"" at the end; raises TimeoutError."""
        data = self.guest.read(most, max(0.001, within_s), is_begun=is_begun)
        gevent.sleep(0)  # a socket that is never empty would let nobody else have a turn
        return data

    def _at_once(self, most: int) -> bytes | None:
        """Return what has come already, None if that is nothing."""
        self._sock.settimeout(0.0)
        try:
            data = self._sock.recv(most)
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return None
        gevent.sleep(0)
        return data

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(self._idle_s)
        self._sock.sendall(data)


class Stream:
    """An answer in pieces of unknown number: status and head go with the first."""

    def __init__(self, visit: Visit, head: Head, content_type: bytes, *, keeps: bool) -> None:
        self.has_begun = False
        self.keeps = keeps and not head.is_1_0  # there the end of the connection is the end of it
        self._visit = visit
        self._head = head
        self._content_type = content_type

    def write_all(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, each when it is there."""
        for piece in pieces:
            self.write(piece)

    def write(self, piece: bytes) -> None:
        """Send a piece."""
        if not self._head.is_1_0:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self._visit._send(self._start() + piece)

    def end(self) -> None:
        """Say that it was whole."""
        if not self._head.is_1_0:
            self._visit._send(b"0\r\n\r\n")

    def _start(self) -> bytes:
        if self.has_begun:
            return b""
        self.has_begun = True
        fields = [(b"Content-Type", self._content_type)]
        if not self._head.is_1_0:
            fields.append((b"Transfer-Encoding", b"chunked"))
        return _rendered(200, fields, self._head, keeps=self.keeps)


def _rendered(
    status: int, fields: list[tuple[bytes, bytes]], head: Head | None, *, keeps: bool
) -> bytes:
    if not keeps:
        fields.append((b"Connection", b"close"))
    elif head is not None and head.is_1_0:
        fields.append((b"Connection", b"keep-alive"))
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"%bDate: %b\r\n%b\r\n" % (_status_line(status), _date(int(time.time())), lines)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


@lru_cache(maxsize=1)
def _date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()
