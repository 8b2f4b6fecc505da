"""Many hosts in one program: each with an address, a limit and a pace of its own.

    python bench/many_hosts.py

Reads its hosts from the first line of standard input, a list in JSON (farm.Plan has the fields),
answers with the port of each, and from then on each line with one: `count` gives what every host
has counted, `arrivals` every mail that was taken: when, by which, and the number in `demo+N@`. It
ends when its standard input does. Times are those of CLOCK_MONOTONIC, which all processes share.

    serve     takes mail, with PIPELINING; the connection after `takes` hears 421, and is closed
    refuse    has the port, and doesn't listen
    time-out  listens, and never accepts: its backlog is full, so whoever connects waits in vain
    hang      takes the content, and says nothing any more

What a host that serves takes its time for (`delay_s`) is told by `per`:

    flight    whatever came in one piece is answered together, so much later
    reply     every reply comes so long after the one before it
    mail      only the answer to a content takes that long, on its connection
    turn      the same, but the host does one mail after the other, over all its connections

One thread, one epoll, one heap of what is to be said when; no gevent, no objects a mail: the core
is shared with Redis, and 10,000 flights a second have to fit into half of it. Not promised:
anything for a client that pipelines what was not asked for, or that reads too slowly (it is cut).
"""

import gc
import heapq
import json
import os
import re
import resource
import select
import socket
import sys
import time
from array import array
from contextlib import suppress
from typing import Any

_BLOCK = 262_144
_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 256
_CATCHES_UP_S = 0.05  # of the time in which this process had no core, a host is not robbed
_GREETING = b"220 many.example ESMTP\r\n"
_TOO_MANY = b"421 4.7.0 too many connections\r\n"
_EHLO = b"250-many.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_OK, _GO_ON, _TAKEN = b"250 2.0.0 Ok\r\n", b"354 go on\r\n", b"250 2.0.0 taken\r\n"
_REPLIES = {
    b"EHLO": _EHLO,
    b"HELO": _OK,
    b"MAIL": _OK,
    b"RCPT": _OK,
    b"DATA": _GO_ON,
    b"RSET": _OK,
    b"NOOP": _OK,
    b"QUIT": b"221 2.0.0 bye\r\n",
}
_UNKNOWN = b"500 5.5.2 what?\r\n"
_NUMBER = re.compile(rb"\+(\d+)@")
_NO_MAIL = -1
_END, _EMPTY = b"\r\n.\r\n", b".\r\n"

Answer = tuple[bytes, int]  # a reply, and the number of the mail that it takes


class Host:
    """One host: its plan and its counts."""

    def __init__(self, index: int, plan: dict[str, Any]) -> None:
        self.index = index
        self.name: str = plan["name"]
        self.does: str = plan["does"]
        self.per: str = plan["per"]
        self.takes: int = plan["takes"]
        self.delay_s: float = plan["delay_s"]
        self.free_at = 0.0
        self.connections = self.refused = self.live = self.peak = self.mails = self.busy = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((plan["address"], plan["port"]))
        self._fillers: list[socket.socket] = []
        if self.does == "time-out":
            self._fill()
        elif self.does != "refuse":
            self.socket.listen(_BACKLOG)
            self.socket.setblocking(False)

    @property
    def port(self) -> int:
        """Return where it is."""
        return int(self.socket.getsockname()[1])

    def counted(self) -> dict[str, int]:
        """Return the counts."""
        names = ("connections", "refused", "live", "peak", "mails", "busy")
        return {name: getattr(self, name) for name in names}

    def _fill(self) -> None:
        """Connect until one more is not answered: from then on the kernel drops what comes."""
        self.socket.listen(0)
        while True:
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(self.socket.getsockname())
            self._fillers.append(filler)
            if not select.select([], [filler], [], 0.2)[1]:
                return


class Connection:
    """One connection of a client, and what of it is not answered yet."""

    __slots__ = (
        "free_at",
        "host",
        "is_content",
        "is_gone",
        "is_leaving",
        "is_mute",
        "number",
        "rest",
        "socket",
    )

    def __init__(self, sock: socket.socket, host: Host) -> None:
        self.socket = sock
        self.host = host
        self.rest = b""
        self.number = 0
        self.free_at = 0.0
        self.is_content = self.is_gone = self.is_leaving = self.is_mute = False

    def read(self, data: bytes) -> list[Answer]:
        """Return the answers to all that has come whole."""
        if self.rest:
            data = self.rest + data
        answers: list[Answer] = []
        at = 0
        while not self.is_mute:
            end = self._end_of_content(data, at) if self.is_content else data.find(b"\r\n", at) + 2
            if end < 2:
                break
            if self.is_content:
                self.is_content = False
                self.is_mute = self.host.does == "hang"
                if not self.is_mute:
                    answers.append((_TAKEN, self.number))
            else:
                answers.append((self._obey(data[at:end]), _NO_MAIL))
            at = end
        self.rest = data[at:]
        return answers

    def _end_of_content(self, data: bytes, at: int) -> int:
        if data.startswith(_EMPTY, at):
            return at + len(_EMPTY)
        found = data.find(_END, at)
        return found + len(_END) if found >= 0 else -1

    def _obey(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT":
            found = _NUMBER.search(line)
            self.number = int(found[1]) if found else 0
        elif verb == b"DATA":
            self.is_content = True
        elif verb == b"QUIT":
            self.is_leaving = True
        return _REPLIES.get(verb, _UNKNOWN)


class Program:
    """All hosts, their connections, and the loop that answers."""

    def __init__(self, hosts: list[Host]) -> None:
        self._hosts = hosts
        self._poll = select.epoll()
        self._listeners: dict[int, Host] = {}
        self._connections: dict[int, Connection] = {}
        # (when, which came first, to whom, what, the mails that it takes)
        self._due: list[tuple[float, int, Connection, bytes, list[int]]] = []
        self._said = 0
        self._arrived_at, self._arrived = array("d"), array("q")
        self._arrived_where = array("H")
        self._asked = b""

    def run(self) -> None:
        """Answer until standard input ends."""
        stdin = sys.stdin.fileno()
        self._poll.register(stdin, select.EPOLLIN)
        for host in self._hosts:
            if host.does in ("serve", "hang"):
                self._listeners[host.socket.fileno()] = host
                self._poll.register(host.socket.fileno(), select.EPOLLIN)
        connections, listeners = self._connections, self._listeners
        while True:
            for fd, _what in self._events():
                connection = connections.get(fd)
                if connection is not None:
                    self._hear(connection)
                elif fd in listeners:
                    self._accept(listeners[fd])
                elif fd == stdin and not self._obey(os.read(stdin, 4096)):
                    return
            self._say_what_is_due()

    def _events(self) -> list[tuple[int, int]]:
        if not self._due:
            return self._poll.poll()
        wait_s = self._due[0][0] - time.monotonic()
        if wait_s > 0:
            # epoll's own clock counts milliseconds, and rounds up.
            select.select([self._poll], [], [], wait_s)
        return self._poll.poll(0)

    # ---- what comes

    def _accept(self, host: Host) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _whence = host.socket.accept()
            except BlockingIOError:
                return
            host.connections += 1
            sock.setblocking(False)
            if host.takes and host.live >= host.takes:
                host.refused += 1
                self._send_off(sock)
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host.live += 1
            host.peak = max(host.peak, host.live)
            connection = self._connections[sock.fileno()] = Connection(sock, host)
            self._poll.register(sock.fileno(), select.EPOLLIN)
            self._say(connection, _GREETING, [])

    def _send_off(self, sock: socket.socket) -> None:
        with suppress(OSError):
            sock.send(_TOO_MANY)
            sock.shutdown(socket.SHUT_WR)
        sock.close()

    def _hear(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        answers = connection.read(data)
        if answers:
            self._answer(connection, answers)

    def _answer(self, connection: Connection, answers: list[Answer]) -> None:
        host = connection.host
        if not host.delay_s or host.per == "flight":
            text = b"".join([reply for reply, _ in answers])
            taken = [number for _, number in answers if number != _NO_MAIL]
            if host.delay_s:
                self._say_later(connection, time.monotonic() + host.delay_s, text, taken)
            else:
                self._say(connection, text, taken)
            return
        self._answer_in_turn(connection, answers)

    def _answer_in_turn(self, connection: Connection, answers: list[Answer]) -> None:
        """Answer one by one; what is due in one moment is said in one piece."""
        text, when = b"", max(time.monotonic(), connection.free_at)
        taken: list[int] = []
        for reply, number in answers:
            due = self._due_at(connection.host, when, is_mail=number != _NO_MAIL)
            if due > when and text:
                self._say_later(connection, when, text, taken)
                text, taken = b"", []
            text, when = text + reply, due
            if number != _NO_MAIL:
                taken.append(number)
        connection.free_at = when
        self._say_later(connection, when, text, taken)

    def _due_at(self, host: Host, when: float, *, is_mail: bool) -> float:
        if host.per == "reply" or (host.per == "mail" and is_mail):
            return when + host.delay_s
        if host.per == "turn" and is_mail:
            host.free_at = max(when - _CATCHES_UP_S, host.free_at) + host.delay_s
            return host.free_at
        return when

    # ---- what is said

    def _say_later(
        self, connection: Connection, when: float, text: bytes, taken: list[int]
    ) -> None:
        self._said += 1
        connection.host.busy += 1
        heapq.heappush(self._due, (when, self._said, connection, text, taken))

    def _say_what_is_due(self) -> None:
        due = self._due
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, connection, text, taken = heapq.heappop(due)
            connection.host.busy -= 1
            self._say(connection, text, taken)

    def _say(self, connection: Connection, text: bytes, taken: list[int]) -> None:
        if connection.is_gone:
            return
        try:
            connection.socket.send(text)
        except OSError:
            self._close(connection)
            return
        host = connection.host
        for number in taken:
            host.mails += 1
            self._arrived_at.append(time.monotonic())
            self._arrived_where.append(host.index)
            self._arrived.append(number)
        if connection.is_leaving and text.endswith(_REPLIES[b"QUIT"]):
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if not connection.is_gone:
            connection.is_gone = True
            connection.host.live -= 1
            del self._connections[connection.socket.fileno()]
            connection.socket.close()

    # ---- what is asked

    def _obey(self, data: bytes) -> bool:
        *lines, self._asked = (self._asked + data).split(b"\n")
        for line in lines:
            _tell(self._counts() if line == b"count" else self._arrivals())
        return bool(data)

    def _counts(self) -> dict[str, dict[str, int]]:
        return {host.name: host.counted() for host in self._hosts}

    def _arrivals(self) -> list[list[Any]]:
        return [list(self._arrived_at), list(self._arrived_where), list(self._arrived)]


def _tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be the hosts that the first line describes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Byte by byte: what is behind the first line is for the loop.
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    hosts = [Host(index, plan) for index, plan in enumerate(json.loads(line))]
    _tell({host.name: host.port for host in hosts})
    gc.freeze()
    gc.disable()  # nothing here is in a cycle
    Program(hosts).run()


if __name__ == "__main__":
    main()
