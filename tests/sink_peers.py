"""Who talks to the sink in its tests: the standard library's client, and a bare socket."""

import smtplib
import socket
from collections.abc import Callable

import gevent
import pytest

from geomail.sink import Sink

SEVERAL = ["a@y.example", "b@y.example"]
LETTER = "Subject: one\r\nMessage-ID: <1@x.example>\r\n\r\n.dot\r\n"
DEADLINE_S = 20.0
ENVELOPE = "MAIL FROM:<a@x>\r\nRCPT TO:<{}>\r\n"


class Bare:
    """A connection that sees what comes, and that nothing comes."""

    def __init__(self, sink: Sink) -> None:
        self.socket = socket.create_connection(sink.address, timeout=DEADLINE_S)
        self.received = b""

    def until(self, ending: bytes) -> bytes:
        """Return what comes up to `ending`, which has to come."""
        while ending not in self.received:
            block = self.socket.recv(4096)
            assert block, f"the end, after {self.received!r}"
            self.received += block
        head, _, self.received = self.received.partition(ending)
        return head + ending

    def rest(self) -> bytes:
        """Return what comes before the end."""
        while block := self.socket.recv(4096):
            self.received += block
        return self.received

    def hello(self) -> None:
        """Read the greeting, say EHLO, read the answer."""
        self.until(b"\r\n")
        self.socket.sendall(b"EHLO me\r\n")
        self.until(b"250 ENHANCEDSTATUSCODES\r\n")

    def is_silent(self) -> None:
        """Hear nothing for a moment, and no end either."""
        self.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            self.socket.recv(1)
        self.socket.settimeout(DEADLINE_S)

    def mail(self, recipient: str) -> None:
        """Send a mail from the greeting up to the final dot, answered by all but the last reply."""
        self.hello()
        self.socket.sendall(ENVELOPE.format(recipient).encode() + b"DATA\r\n")
        self.until(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        self.socket.sendall(LETTER.encode() + b".\r\n")


def client_of(sink: Sink) -> smtplib.SMTP:
    host, port = sink.address
    return smtplib.SMTP(host, port, local_hostname="me.example", timeout=DEADLINE_S)


def wait_until(is_so: Callable[[], bool]) -> None:
    with gevent.Timeout(DEADLINE_S):
        while not is_so():
            gevent.sleep(0.005)
