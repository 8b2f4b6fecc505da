"""A host of a scenario, in a process of its own: `python sink_process.py JSON`.

Either the sink, with every mail it takes written to a file before it is answered (so that no kill
hides one), or a rude host: it speaks line by line, each answer in a write of its own, and hangs up
where it is told to. Prints its port; SIGTERM ends it.
"""

import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent.event
import msgspec
from gevent import socket
from gevent.server import StreamServer

from geomail.sink import Sink
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy


class Mail(msgspec.Struct):
    """One mail that a host has taken."""

    at: float
    id: str
    sender: str
    to: list[str]
    content: bytes = b""


class Orders(msgspec.Struct, omit_defaults=True):
    """What a host is to be."""

    record: str
    port: int = 0
    keeps: bool = False  # the content too
    greeting: tuple[int, str] | None = None
    cert: str | None = None
    key: str | None = None
    implicit_tls: bool = False
    logins: dict[str, str] | None = None
    tokens: dict[str, str] | None = None
    mechanisms: str = "PLAIN LOGIN"
    mails_per_connection: int | None = None
    max_connections: int | None = None
    says_421: bool = False
    delay_s: float = 0.0
    policy: dict[str, Any] = {}
    hangs_up_at: str | None = None  # a verb, or "greeting": then a rude host
    crowd: str | None = None  # a file that gets the number of connections whenever it changes
    poison: str = ""  # hangs up only on conversations in which this has been said


def _recorder(orders: Orders) -> Callable[[str, tuple[str, ...], bytes], None]:
    file = os.open(orders.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    encode = msgspec.json.Encoder().encode

    def note(sender: str, recipients: tuple[str, ...], content: bytes) -> None:
        head = content[: content.find(b"\r\n\r\n")].lower()
        begin = head.find(b"\r\nmessage-id:")
        value = content[begin + 13 :].split(b"\r\n", 1)[0].strip() if begin >= 0 else b""
        kept = content if orders.keeps else b""
        mail = Mail(time.time(), value.decode("utf-8", "replace"), sender, [*recipients], kept)
        os.write(file, encode(mail) + b"\n")

    return note


class CrowdedSink(Sink):
    """Writes down how many connections there are, the time first."""

    crowd = -1

    def _converse(self, sock: socket.socket, peer: object) -> None:
        self._note(self.connections + 1)
        try:
            super()._converse(sock, peer)
        finally:
            self._note(self.connections)

    def _note(self, connections: int) -> None:
        os.write(self.crowd, f"{time.time():.6f} {connections}\n".encode())


def _sink(orders: Orders) -> Sink:
    tls = None
    if orders.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(orders.cert, orders.key)
    greeting = Answer(orders.greeting[0], "", orders.greeting[1]) if orders.greeting else None
    kind = Sink
    if orders.crowd:
        kind = CrowdedSink
        CrowdedSink.crowd = os.open(orders.crowd, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return kind(
        ("127.0.0.1", orders.port),
        on_mail=_recorder(orders),
        policy=Policy(greeting=greeting, mechanisms=orders.mechanisms, **orders.policy),
        tls=tls,
        implicit_tls=orders.implicit_tls,
        logins=orders.logins,
        tokens=orders.tokens,
        mails_per_connection=orders.mails_per_connection,
        max_connections=orders.max_connections,
        says_421=orders.says_421,
        delay_s=orders.delay_s,
    )


class RudeHost:
    """Takes mail line by line; hangs up at a verb."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._note = _recorder(orders)
        self._server = StreamServer(("127.0.0.1", orders.port), self._converse)

    @property
    def address(self) -> tuple[str, int]:
        """Return where it listens."""
        return "127.0.0.1", int(self._server.server_port or 0)

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def _converse(self, sock: socket.socket, _peer: object) -> None:
        with sock, sock.makefile("rb") as lines:
            try:
                self._answer_all(sock, lines)
            except OSError:
                return

    def _answer_all(self, sock: socket.socket, lines: Any) -> None:
        said = ""
        sender, recipients = "", list[str]()
        if self._is_enough("greeting", said):
            return
        sock.sendall(b"220 rude\r\n")
        while line := lines.readline():
            said += line.decode()
            verb = line[:4].decode().upper()
            if self._is_enough(verb, said):
                return
            if verb == "MAIL":
                said, sender, recipients = line.decode(), _path(line), []
            elif verb == "RCPT":
                recipients.append(_path(line))
            sock.sendall(b"354 go on\r\n" if verb == "DATA" else b"250 fine\r\n")
            if verb == "DATA":
                content = b"".join(iter(lines.readline, b".\r\n"))
                self._note(sender, tuple(recipients), content)
                sock.sendall(b"250 taken\r\n")

    def _is_enough(self, verb: str, said: str) -> bool:
        return verb == self._orders.hangs_up_at and self._orders.poison in said


def _path(line: bytes) -> str:
    return line.partition(b"<")[2].partition(b">")[0].decode()


def main() -> None:
    """Be the host that the first argument describes, until SIGTERM."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    ended = gevent.event.Event()
    gevent.signal_handler(signal.SIGTERM, ended.set)
    host = RudeHost(orders) if orders.hangs_up_at else _sink(orders)
    host.start()
    sys.stdout.write(f"{host.address[1]}\n")
    sys.stdout.flush()
    ended.wait()


if __name__ == "__main__":
    main()
