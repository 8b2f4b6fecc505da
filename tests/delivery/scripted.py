"""A mail host that does on a real socket what a test tells it, and a sender to try it with."""

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import gevent
from gevent.server import StreamServer

from geomail import config
from geomail.delivery.outcome import Blame, Fate, Outcome, judge, judge_loss
from geomail.delivery.session.transport import Session, Terms
from geomail.letter import Letter
from geomail.smtp.events import ContentWanted, Finished, Lost, Transaction

EHLO = b"250-mx.example\r\n250 PIPELINING\r\n"
ENVELOPE = b"250 ok\r\n250 ok\r\n354 go\r\n"
HELLO = Letter("a@a.example", ("b@b.example",), b"Subject: 1\r\n\r\nHello\r\n", False, False)


class Peer:
    """The host's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard = b""

    def say(self, data: bytes) -> None:
        """Write all of `data`."""
        self.sock.sendall(data)

    def hear(self, end: bytes) -> bytes:
        """Read up to `end`; return what came before it. Raises EOFError."""
        while end not in self.heard:
            block = self.sock.recv(65536)
            if not block:
                raise EOFError(self.heard)
            self.heard += block
        found, _, self.heard = self.heard.partition(end)
        return found

    def read(self, size: int) -> bytes:
        """Read `size` bytes. Raises EOFError."""
        while len(self.heard) < size:
            block = self.sock.recv(65536)
            if not block:
                raise EOFError(self.heard)
            self.heard += block
        found, self.heard = self.heard[:size], self.heard[size:]
        return found

    def greet(self, *, ehlo: bytes = EHLO) -> None:
        """Say what is said before the first MAIL."""
        self.say(b"220 mx.example\r\n")
        self.hear(b"\r\n")
        self.say(ehlo)

    def take_envelope(self, answers: bytes = ENVELOPE) -> None:
        """Read a group that ends in DATA, and answer it."""
        self.hear(b"DATA\r\n")
        self.say(answers)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Make the handshake, as the server."""
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def wait_for_end(self) -> None:
        """Read until the client has closed."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass

    def reset(self) -> None:
        """Close so that the client gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], object]


class Host:
    """Listens on a free port of 127.0.0.1 and plays `script` for each connection."""

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self.errors: list[Exception] = []
        self._script = script
        self._server = StreamServer(("127.0.0.1", port), self._play)

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self._server.server_port or 0)

    def _play(self, sock: socket.socket, _address: object) -> None:
        peer = Peer(sock)
        try:
            self._script(peer)
        except (EOFError, OSError) as error:
            self.errors.append(error)
        finally:
            peer.sock.close()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.stop(timeout=0)


def terms(
    url: str,
    *,
    tls: str = "may",
    limits: Mapping[str, float] | None = None,
    relay: Mapping[str, Any] | None = None,
    ca_file: str | None = None,
    **more_limits: float,
) -> Terms:
    """Return the terms with the host at `url`.

    `limits` are deadlines by their settings' names; `relay` what else its table may say.
    """
    given = {**(limits or {}), **more_limits}
    variables = {f"GEOMAIL_{name.upper()}": str(value) for name, value in given.items()}
    variables["GEOMAIL_HELO"] = "client.example"
    settings = config.load({"--relay": [url]}, variables, places=())
    said = {"ca_file": ca_file, "tls_required": tls == "required", **(relay or {})}
    made = replace(settings.relays["default"], **said)
    return Terms(made.members[0], made, settings)


@contextmanager
def watched(session: Session) -> Iterator[Session]:
    """Keep the session's deadlines, as the lanes' watchdog does, and close it at the end."""

    def watch() -> None:
        while True:
            gevent.sleep(0.005)
            if time.monotonic() > session.deadline:
                session.expire()

    watchdog = gevent.spawn(watch)
    try:
        with gevent.Timeout(20, AssertionError("a wait without an end")):
            yield session
    finally:
        watchdog.kill()
        session.abandon()


class Sent:
    """What became of letters over one connection: their outcomes, and how it ended."""

    def __init__(self, session: Session, letters: Sequence[Letter]) -> None:
        self.session = session
        self.outcomes: dict[int, list[Outcome]] = {}
        self.lost: Lost | None = None
        self._waiting = list(enumerate(letters))
        self._deliver()

    def one(self, number: int = 0) -> Outcome:
        """Return the outcome of a letter with one recipient."""
        (outcome,) = self.outcomes[number]
        return outcome

    def _deliver(self) -> None:
        client, wanted = self.session.client, None
        while self._waiting or wanted is not None:
            is_idle = wanted is None
            if wanted is not None:
                client.content(wanted)
            if self._waiting and (is_idle or client.overlaps):
                number, letter = self._waiting.pop(0)
                client.begin(letter, number)
            wanted = self._exchange()
            if self.lost is not None:
                return

    def _exchange(self) -> Transaction | None:
        wanted = None
        for event in self.session.exchange():
            if isinstance(event, ContentWanted):
                wanted = event.transaction
            elif isinstance(event, Finished):
                self._note(event.transaction, judge(event.transaction))
            elif isinstance(event, Lost):
                self._end(event)
        return wanted

    def _end(self, lost: Lost) -> None:
        self.lost = lost
        client = self.session.client
        for left in client.unfinished:
            is_whole, has_delivered = client.sent_whole(left), client.delivered > 0
            found = judge_loss(lost, left, is_sent_whole=is_whole, has_delivered=has_delivered)
            self._note(left, found)

    def _note(self, transaction: Transaction, outcomes: list[Outcome]) -> None:
        assert isinstance(transaction.owner, int)
        assert transaction.owner not in self.outcomes
        self.outcomes[transaction.owner] = outcomes


def send(made: Terms, *letters: Letter) -> Sent:
    """Open a connection, which has to work, and send letters over it."""
    with watched(Session(made)) as session:
        assert session.open() is None
        sent = Sent(session, letters or [HELLO])
        session.close()
        return sent


def refused(made: Terms, *, in_clear: bool = False) -> Lost:
    """Open a connection that has to fail; return why it did."""
    with watched(Session(made, in_clear=in_clear)) as session:
        lost = session.open()
        assert lost is not None
        return lost


def said(outcome: Outcome) -> tuple[Fate, Blame, str]:
    """Return what decides in an outcome."""
    return outcome.fate, outcome.blame, outcome.phase


def silent(peer: Peer) -> None:
    """Say nothing until the client has gone."""
    peer.wait_for_end()


def text(size: int) -> Letter:
    """Make a letter with so many lines."""
    return Letter("", ("b@b.example",), (b"." * 70 + b"\r\n") * size, False, False)
