"""An HTTP server on loopback whose answers are written by hand, byte by byte.

What it answers is a function of what was asked and the connection; it returns False to hang up.
What it writes down: each connection, each request.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import gevent.socket
from gevent.server import StreamServer

from geomail.carriers.requests import Requests
from geomail.config import Settings

Connection = gevent.socket.socket


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `connection`: the number of the connection that it came by, from 1."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """Return the only value of a header, None without it."""
        values = [value for each, value in self.headers if each.lower() == name.lower()]
        assert len(values) < 2
        return values[0] if values else None


Answering = Callable[[Asked, Connection], bool | None]


def said(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    """Return a response."""
    lines = (f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def says(status: int = 200, body: bytes = b"", *headers: str) -> Answering:
    """Return what answers each request so."""

    def answer(_asked: Asked, connection: Connection) -> None:
        connection.sendall(said(status, body, *headers))

    return answer


def leads_to(url: str, status: int = 302) -> Answering:
    """Return what redirects each request."""
    return says(status, b"", f"Location: {url}")


class WebHost:
    """The server; `answer` may be changed at any time."""

    def __init__(self, answer: Answering, context: ssl.SSLContext | None, address: str) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.accepts = 0
        self.connections: list[Connection] = []
        self._scheme = "http" if context is None else "https"
        tls: dict[str, Any] = {} if context is None else {"ssl_context": context}
        self._server = StreamServer((address, 0), self._on_connection, **tls)
        self._server.start()

    @property
    def port(self) -> int:
        """Return its port."""
        port = self._server.server_port
        assert port is not None
        return port

    @property
    def is_connected(self) -> bool:
        """True while it serves any connection."""
        return bool(self.connections)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return a URL that leads here."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def hang_up(self) -> None:
        """End all connections."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(gevent.socket.SHUT_RDWR)

    def stop(self) -> None:
        """Answer no more."""
        self._server.stop()
        self.hang_up()

    def _on_connection(self, connection: Connection, _whence: object) -> None:
        self.accepts += 1
        number = self.accepts
        self.connections.append(connection)
        try:
            with connection, connection.makefile("rb") as stream, suppress(OSError):
                self._serve(stream, connection, number)
        finally:
            self.connections.remove(connection)

    def _serve(self, stream: IO[bytes], connection: Connection, number: int) -> None:
        while line := stream.readline():
            asked = _asked(line, stream, number)
            self.asked.append(asked)
            if self.answer(asked, connection) is False:
                return


def _asked(line: bytes, stream: IO[bytes], number: int) -> Asked:
    method, path, _version = line.decode().split()
    headers = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers.append((name, value.strip()))
    length = next((int(value) for name, value in headers if name == "Content-Length"), 0)
    return Asked(method, path, tuple(headers), stream.read(length), number)


@contextmanager
def web_host(
    answer: Answering | None = None,
    context: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
) -> Iterator[WebHost]:
    """Run a server that answers so; else with 200."""
    host = WebHost(answer or says(), context, address)
    try:
        yield host
    finally:
        host.stop()


@contextmanager
def at_home(**settings: object) -> Iterator[Requests]:
    """Give what makes requests, to this machine too."""
    known = {"url_hosts": ("*",), "url_networks": ("127.0.0.0/8", "::1/128"), **settings}
    requests = Requests(Settings(**known))  # type: ignore[arg-type]
    try:
        yield requests
    finally:
        requests.close()
