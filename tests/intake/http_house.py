"""An HTTP door in the test's own process, over a real Redis, and clients that speak to it."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import gevent
import msgspec

from geomail import config
from geomail.intake import listening
from geomail.intake.gate import Gate
from geomail.intake.http import HttpDoor
from geomail.queue import Link, Queue

MAIL = {"to": "ann@example.org", "from": "shop@example.com", "text": "x"}
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}
WITHIN_S = 20.0


def until(is_so: Callable[[], object], what: str = "") -> None:
    """Wait until `is_so()`; fail when it is not within WITHIN_S."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what or is_so}"
        gevent.sleep(0.005)


def lines(*jobs: object) -> bytes:
    """Return a body with a job a line."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in jobs)


class Answer(msgspec.Struct):
    """What a client has read."""

    status: int
    fields: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Return the body, which is one value."""
        return json.loads(self.content)

    @property
    def lines(self) -> list[Any]:
        """Return the values of the lines."""
        return [json.loads(line) for line in self.content.splitlines()]


class House:
    """A door, what is behind it, and how it is spoken to."""

    def __init__(self, url: str, settings: dict[str, str], tls: ssl.SSLContext | None) -> None:
        flags = {"--redis": url, "--http": "127.0.0.1:0"}
        self.settings = config.load(
            flags, {f"GEOMAIL_{k.upper()}": v for k, v in settings.items()}, places=()
        )
        self.url = url
        self.queue = Queue(Link(url), "queue:email")
        self.gate = Gate(Link(url, patience_s=1.0), self.settings)
        self.gate.start()
        self.door = HttpDoor(self.gate, self.settings, tls)
        listener = listening.bind("http", ("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.door.start(listener)

    def close(self) -> None:
        """Close door and gate."""
        self.door.stop(0.1)
        self.gate.close()
        self.queue.close()

    def dial(self) -> socket.socket:
        """Connect, for a talk of bytes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S)

    def talk(self, said: bytes) -> bytes:
        """Say bytes, and nothing more; return all that is answered until the door hangs up."""
        with self.dial() as sock:
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request, by a client of its own."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            return ask(client, method, path, body, headers)
        finally:
            client.close()

    def post(self, body: object, headers: dict[str, str] | None = None) -> Answer:
        """Send jobs."""
        return self.ask("POST", "/v1/messages", body, JSON | (headers or {}))

    def waiting(self) -> int:
        """Return how many jobs wait."""
        return self.queue.counts().waiting


def ask(
    client: HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request on a connection; maps are written as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body)
    client.request(method, path, body, headers or {})  # type: ignore[arg-type]
    return read(client.getresponse())


def read(response: HTTPResponse) -> Answer:
    """Read an answer to its end."""
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


def read_bytes(said: bytes) -> Answer:
    """Read an answer that is alone on its connection."""
    start, _, content = said.partition(b"\r\n\r\n")
    first, *fields = start.decode().lower().split("\r\n")
    return Answer(int(first.split()[1]), dict(line.split(": ") for line in fields), content)


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes."""
    found = b""
    while piece := sock.recv(65536):
        found += piece
    return found


Open = Callable[..., House]


@contextmanager
def opening(url: str) -> Iterator[Open]:
    """Give a function that opens a door with settings; all are closed at the end."""
    with ExitStack() as stack:

        def open_one(*, tls: ssl.SSLContext | None = None, **settings: str) -> House:
            house = House(url, settings, tls)
            stack.callback(house.close)
            return house

        yield open_one
