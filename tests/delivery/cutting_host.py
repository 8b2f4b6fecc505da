"""A mail host that resets its connection at one byte, and knows what it had then.

It converses as geomail's own server does, over one accepted connection; whoever comes again is
refused. Cuts are counted in bytes of the conversation, under TLS those inside it: after so many
that it has received (and not one more is answered), or has sent. What it had is kept with it, so
that it can be held against what the client's end makes of it:

    had       the messages whose content it had whole
    replied   ... and of which it has written the final reply to its last byte
    asked     ... for which it has written 354
"""

import re
import socket
import ssl
import struct
from collections.abc import Iterator

import gevent
import gevent.socket
import msgspec

from geomail.smtp import answers
from geomail.smtp.policy import Policy
from geomail.smtp.server import Mail, Server

_LINES = re.compile(rb"[^\n]*\n")


class Cut(msgspec.Struct, frozen=True):
    """Where to cut: after so many bytes received, or sent; None for never."""

    received: int | None = None
    sent: int | None = None


class Reached(Exception):
    """The byte of the cut has come."""


class CuttingHost:
    """Listens on a free port of 127.0.0.1, for one connection."""

    def __init__(self, cut: Cut, policy: Policy, tls: ssl.SSLContext | None = None) -> None:
        self.cut = cut
        self.received = self.sent = 0
        self.had: list[Mail] = []
        self.heard = [0]  # where its reads ended
        self.spoken = [0]  # where its replies ended
        self._replied_at: list[int] = []
        self._asked_at: list[int] = []
        self._said = 0
        self._tls = tls
        self._server = Server(policy, is_encrypted=tls is not None)
        self._listener = gevent.socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1)
        self.port = int(self._listener.getsockname()[1])
        self._host = gevent.spawn(self._serve)

    @property
    def replied(self) -> int:
        """How many final replies were written to their last byte."""
        return sum(at <= self.sent for at in self._replied_at)

    @property
    def asked(self) -> int:
        """How many replies to DATA were written to their last byte."""
        return sum(at <= self.sent for at in self._asked_at)

    def close(self) -> None:
        """Stop."""
        self._host.kill()
        self._listener.close()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        self._listener.close()
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._converse(sock)
        except Reached:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # theirs was the end
        finally:
            sock.close()

    def _converse(self, sock: gevent.socket.socket) -> None:
        self._say(sock, self._server.output())
        if self.cut.received == 0:
            raise Reached
        while block := sock.recv(self._room()):
            self.received += len(block)
            said = b"".join(self._answers(block))
            if self.received == self.cut.received:
                raise Reached
            self.heard.append(self.received)
            self._say(sock, said)

    def _room(self) -> int:
        limit = self.cut.received
        return 65536 if limit is None else min(65536, limit - self.received)

    def _answers(self, block: bytes) -> Iterator[bytes]:
        """Yield what is said to `block`; keep where the replies end that matter."""
        events = self._server.receive(block)
        while events:
            assert isinstance(events[-1], Mail)
            self.had.append(events[-1])
            yield self._noted(self._server.output())
            events = self._server.answer(answers.OK)
            said = self._server.output()
            self._replied_at.append(self._said + said.index(b"\n") + 1)
            yield self._noted(said)
        yield self._noted(self._server.output())

    def _noted(self, said: bytes) -> bytes:
        for line in _LINES.finditer(said):
            self.spoken.append(self._said + line.end())
            if line[0].startswith(b"354"):
                self._asked_at.append(self._said + line.end())
        self._said += len(said)
        return said

    def _say(self, sock: gevent.socket.socket, said: bytes) -> None:
        if not self._said:
            self._noted(said)
        limit = self.cut.sent
        room = len(said) if limit is None else min(len(said), limit - self.sent)
        sock.sendall(said[:room])
        self.sent += room
        if self.sent == limit:
            raise Reached
