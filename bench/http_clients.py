"""Clients of the HTTP door, for bench/doors.py: kept connections that are never without a request.

    python bench/http_clients.py PORT one|many CONNECTIONS COUNT SIZE

`one` sends a job a request and awaits the answer before the next; `many` sends COUNT lines in all,
one request a connection, reading the answers as they come. Bytes are made beforehand, and answers
are only counted, so that little of the time is the clients'. The last line is what was told, as
JSON: jobs that were acknowledged, and the seconds from the first byte to the last answer.
"""

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator

import stand

_PIECE = 256 * 1024
_HEAD = (
    "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    "Content-Type: application/{}\r\nContent-Length: {}\r\n\r\n"
)
_ANSWERED, _TAKEN = b"HTTP/1.1 ", b'{"id":"'


class One:
    """A connection that sends one job a request, `count` times."""

    def __init__(self, sock: socket.socket, job: bytes, count: int) -> None:
        self.taken = 0
        self.sock = sock
        self._request = _HEAD.format("json", len(job)).encode() + job
        self._left = count
        self._said = b""
        self.wants = selectors.EVENT_READ

    def begin(self) -> None:
        """Send the first."""
        self.sock.sendall(self._request)

    def go_on(self) -> bool:
        """Read what has come, send the next; return whether there is more to do."""
        self._said += self.sock.recv(_PIECE)
        if not self._said.endswith(b"}\n"):
            return True
        self.taken += _TAKEN in self._said
        self._said = b""
        self._left -= 1
        if self._left:
            self.sock.sendall(self._request)
        return self._left > 0


class Many:
    """A connection that sends `count` lines in one request."""

    def __init__(self, sock: socket.socket, job: bytes, count: int) -> None:
        self.taken = 0
        self.sock = sock
        self._pieces = _pieces(job + b"\n", count)
        self._left = _HEAD.format("x-ndjson", count * (len(job) + 1)).encode()
        self._tail = b""
        self.wants = selectors.EVENT_READ | selectors.EVENT_WRITE

    def begin(self) -> None:
        """Do not wait for each other."""
        self.sock.setblocking(False)

    def go_on(self) -> bool:
        """Send and read what can be; return whether there is more to do."""
        try:
            while self._left:
                self._left = self._left[self.sock.send(self._left) :] or next(self._pieces, b"")
            self.wants = selectors.EVENT_READ
        except BlockingIOError:
            pass
        try:
            said = self._tail + self.sock.recv(_PIECE)
        except BlockingIOError:
            return True
        self.taken += said.count(_TAKEN)
        self._tail = said[-len(_TAKEN) + 1 :]
        return not said.endswith(b"\r\n0\r\n\r\n")


def main(port: int, way: str, connections: int, count: int, size: int) -> None:
    """Send, and tell."""
    kind = One if way == "one" else Many
    job = stand.mail(4711, stand.text_of(size))
    busy = [kind(_connected(port), job, count // connections) for _ in range(connections)]
    waiting = selectors.DefaultSelector()
    began = time.monotonic()
    for each in busy:
        each.begin()
        waiting.register(each.sock, each.wants, each)
    while waiting.get_map():
        for key, _ in waiting.select(60.0):
            each = key.data
            if not each.go_on():
                waiting.unregister(each.sock)
            elif each.wants != key.events:
                waiting.modify(each.sock, each.wants, each)
    seconds = time.monotonic() - began
    print(json.dumps({"taken": sum(each.taken for each in busy), "seconds": seconds}))


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _pieces(line: bytes, count: int) -> Iterator[bytes]:
    at_once = max(1, _PIECE // len(line))
    piece = line * at_once
    for _ in range(count // at_once):
        yield piece
    yield line * (count % at_once)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
