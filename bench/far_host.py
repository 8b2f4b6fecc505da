"""A delay line: what lies between a host and a client that are far from each other.

    python bench/far_host.py RTT_MS PORT

Listens on a free port of 127.0.0.1, says which on its standard output, and passes all that comes on
to PORT and back, each way RTT_MS / 2 late. It ends when its standard input does.

It delays, and nothing else: what is read is held and passed on in order, however much is under way,
so that a client that has several flights in the air finds them all in the air. Every piece has the
same way to go, so one queue for all connections is already in order of time. Not imitated: losses,
slow start, and the client's own connect, which the kernel answers at once (the host is reached
half a round trip later). The wait is a select() on the epoll's descriptor, for epoll's own clock
counts milliseconds, and the half of a short round trip would be rounded up to one.
"""

import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress

_BLOCK = 262_144


class _End:
    """One end of a connection: its socket, and what the kernel has not taken yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other: _End | None = None
        self.unsent = bytearray()
        self.watches = 0
        self.is_read_out = False  # the last has come from it
        self.is_ending = False  # the last for it has come, and may still be unsent
        self.is_told = False  # the last was sent to it


class DelayLine:
    """Connections, what is under way on them, and the loop that moves it."""

    def __init__(self, delay_s: float, port: int) -> None:
        self._delay_s = delay_s
        self._host = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._poll = select.epoll()
        self._ends: dict[int, _End] = {}
        # (when it arrives, from which end, what); b"" is a stream's end, None a connection's begin.
        self._under_way: deque[tuple[float, _End, bytes | None]] = deque()

    @property
    def port(self) -> int:
        """Return where it listens."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Pass on until standard input ends."""
        self._listener.setblocking(False)
        stdin, door = sys.stdin.fileno(), self._listener.fileno()
        for fd in (stdin, door):
            self._poll.register(fd, select.EPOLLIN)
        while True:
            select.select([self._poll], [], [], self._wait_s())
            self._arrive()
            for fd, _what in self._poll.poll(0):
                if fd == stdin:
                    return
                if fd == door:
                    self._accept()
                elif fd in self._ends:
                    self._move(self._ends[fd])

    def _wait_s(self) -> float | None:
        if not self._under_way:
            return None
        return max(0.0, self._under_way[0][0] - time.monotonic())

    def _arrive(self) -> None:
        under_way, now = self._under_way, time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, source, piece = under_way.popleft()
            if piece is None:
                self._reach(source)
            elif source.other is not None:
                self._hand_over(source.other, piece)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            self._send_off(_End(self._listener.accept()[0]), None)

    def _reach(self, client: _End) -> None:
        try:
            host = _End(socket.create_connection(self._host))
        except OSError:
            client.sock.close()
            return
        client.other, host.other = host, client
        for end in (client, host):
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.sock.fileno()] = end
            self._watch(end)

    def _move(self, end: _End) -> None:
        if end.unsent:
            self._flush(end)
        if not end.is_read_out:
            self._read(end)

    def _read(self, end: _End) -> None:
        try:
            piece = end.sock.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            end.is_read_out = True
            self._watch(end)
        self._send_off(end, piece)

    def _send_off(self, source: _End, piece: bytes | None) -> None:
        self._under_way.append((time.monotonic() + self._delay_s, source, piece))

    def _hand_over(self, end: _End, piece: bytes) -> None:
        if end.is_told:
            return
        end.is_ending = not piece
        end.unsent += piece
        self._flush(end)

    def _flush(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.unsent) if end.unsent else 0
            del end.unsent[:sent]
            if end.is_ending and not end.unsent:
                end.is_told = True
                end.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:  # it has gone: so much for what it was to be sent
            end.is_told = True
            end.unsent.clear()
        self._watch(end)
        self._close_if_over(end)

    def _watch(self, end: _End) -> None:
        """Watch for what the end can still do: one that can do nothing would tell it all day."""
        watches = (select.EPOLLIN * (not end.is_read_out)) | (select.EPOLLOUT * bool(end.unsent))
        if watches == end.watches:
            return
        if not watches:
            self._poll.unregister(end.sock)
        elif not end.watches:
            self._poll.register(end.sock, watches)
        else:
            self._poll.modify(end.sock, watches)
        end.watches = watches

    def _close_if_over(self, end: _End) -> None:
        other = end.other
        if other is None or not (end.is_told and other.is_told):
            return
        for each in (end, other):
            if self._ends.pop(each.sock.fileno(), None) is not None:
                each.sock.close()


def main(rtt_ms: str, port: str) -> None:
    """Say the port, and pass on."""
    line = DelayLine(float(rtt_ms) / 2000, int(port))
    print(line.port, flush=True)
    line.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
