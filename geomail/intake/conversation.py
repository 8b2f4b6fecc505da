"""A server's conversation on a socket: bytes between a client and its Server, TLS when it asks.

The SMTP door and the sink serve their clients with this loop; what becomes of a mail is theirs.
What has come is read to its end before anything is answered, so that the replies to a pipelined
group leave in one write, and a client that doesn't read them isn't read from either.

Promised: nothing that was sent behind STARTTLS is run, and a handshake begins when all that was
said before is written. Not promised: deadlines. Whoever has some shuts the socket down, and `run`
ends then as it does when the client goes.
"""

from abc import ABC, abstractmethod
from ssl import SSLContext

from gevent import socket

from geomail.smtp.server import Event, Mail, Server

BLOCK = 65536


class Conversation(ABC):
    """What is said on one socket, from the greeting to the end."""

    __slots__ = ("_server", "_sock", "_tls")

    def __init__(self, sock: socket.socket, server: Server, tls: SSLContext | None) -> None:
        self._sock = sock
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = server
        self._tls = tls

    def run(self) -> None:
        """Serve the client until one of the two has had enough. Raises OSError."""
        self._write()
        while not self._server.is_closed and (data := self._read()):
            self._hear(data)

    def close(self) -> None:
        """Close the socket, which TLS may have replaced."""
        self._sock.close()

    @abstractmethod
    def _take(self, mail: Mail) -> list[Event]:
        """Deal with a mail, let the server go on, and return what happened then."""

    def _read(self) -> bytes:
        return self._sock.recv(BLOCK)

    def _hear(self, data: bytes) -> None:
        self._follow(self._server.receive(data))
        self._write()

    def _follow(self, events: list[Event]) -> None:
        while events:
            event = events[-1]
            events = self._take(event) if isinstance(event, Mail) else self._encrypt()

    def _encrypt(self) -> list[Event]:
        self._write()
        self._start_tls()
        self._server.tls_started()
        return []

    def _start_tls(self) -> None:
        if self._tls:
            # Known before the handshake, so that it can be shut down while that lasts.
            self._sock = self._tls.wrap_socket(
                self._sock, server_side=True, do_handshake_on_connect=False
            )
            self._sock.do_handshake()

    def _write(self) -> bool:
        """Write what there is to say; return whether there was anything."""
        output = self._server.output()
        if not output:
            return False
        # Replies are short: sendall() would ask for the size of the buffer first, 3 us a mail.
        sent = self._sock.send(output)
        if sent < len(output):
            self._sock.sendall(output[sent:])
        return True
