"""An SMTP door for tests: in this process, on a free port, in front of a real Redis."""

import base64
import json
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import trustme

from geomail.config import Settings
from geomail.intake.certificate import tls_of
from geomail.intake.gate import PATIENCE_S, Gate
from geomail.intake.listening import bind
from geomail.intake.smtp import SmtpDoor
from geomail.queue import Done, Link, Queue

DEADLINE_S = 20.0
AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost", "127.0.0.1")
LETTER = b"Subject: one\r\nMessage-ID: <1@x.example>\r\n\r\n.dot\r\n"
ENVELOPE = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"


class Opened:
    """A door that listens, and what has come through it."""

    def __init__(self, door: SmtpDoor, gate: Gate, address: tuple[str, int], url: str) -> None:
        self.door = door
        self.gate = gate
        self.address = address
        self._url = url
        self.bares: list[Bare] = []

    def client(self, **more: Any) -> smtplib.SMTP:
        """Return the standard library's client."""
        host, port = self.address
        more.setdefault("local_hostname", "me.example")
        return smtplib.SMTP(host, port, timeout=DEADLINE_S, **more)

    def bare(self) -> "Bare":
        """Return a bare connection."""
        self.bares.append(Bare(self.address))
        return self.bares[-1]

    def jobs(self) -> list[dict[str, Any]]:
        """Take all jobs, and return them with `raw` decoded, in the order they came."""
        queue = Queue(Link(self._url), self.gate.queue)
        queue.register()
        found: list[dict[str, Any]] = []
        while slots := queue.take(1000, max_bytes=64_000_000).slots:
            found += [{"id": slot.id, **json.loads(slot.payload)} for slot in slots]
            queue.settle([Done(slot) for slot in slots])
        queue.close()
        for each in found:
            each["raw"] = base64.b64decode(each["raw"])
        return found


class Bare:
    """A connection that sees what comes."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=DEADLINE_S)
        self.received = b""

    def until(self, ending: bytes) -> bytes:
        """Return what comes up to `ending`, which has to come."""
        while ending not in self.received:
            block = self.socket.recv(65536)
            assert block, f"the end, after {self.received!r}"
            self.received += block
        head, _, self.received = self.received.partition(ending)
        return head + ending

    def rest(self) -> bytes:
        """Return what comes before the end."""
        while block := self.socket.recv(65536):
            self.received += block
        return self.received

    def say(self, *blocks: bytes) -> None:
        """Send."""
        for block in blocks:
            self.socket.sendall(block)

    def hello(self) -> None:
        """Read the greeting, say EHLO, read the answer."""
        self.until(b"\r\n")
        self.hello_again()

    def hello_again(self) -> None:
        """Say EHLO, read the answer."""
        self.say(b"EHLO me.example\r\n")
        assert self.codes(1) == [250]

    def codes(self, count: int) -> list[int]:
        """Return the codes of the next replies."""
        return [int(self._reply()[:3]) for _ in range(count)]

    def _reply(self) -> bytes:
        line = self.until(b"\r\n")
        return self._reply() if line[3:4] == b"-" else line

    def encrypt(self) -> None:
        """Go on over TLS."""
        self.socket = trusting().wrap_socket(self.socket, server_hostname="localhost")


@contextmanager
def opened(
    url: str,
    *,
    patience_s: float = PATIENCE_S,
    host: str = "127.0.0.1",
    kind: type[SmtpDoor] = SmtpDoor,
    **settings: Any,
) -> Iterator[Opened]:
    """Open a door with these settings, and close it."""
    made = Settings(redis=url, helo="door.example", **settings)
    gate = Gate(Link(url, patience_s=patience_s), made)
    door = kind(gate, made, tls_of(made))
    gate.start()
    listener = bind("smtp", (host, 0))
    address = listener.getsockname()[:2]
    door.start(listener)
    made_here = Opened(door, gate, address, url)
    try:
        yield made_here
    finally:
        for bare in made_here.bares:
            bare.socket.close()
        door.stop(DEADLINE_S)
        gate.close()


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts the door's certificate."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def wait_until(is_so: Callable[[], bool]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not is_so():
            gevent.sleep(0.005)
