"""A session: one SMTP conversation pumped over one connection, from connect to close.

The conversation (smtp.client) decides what is said; this room moves bytes and keeps time. Its own
promises: bytes leave in as few writes as the conversation gave them in; what the kernel took is
told to the conversation at once, so that "unknown" is exact; while a write can't go on, what the
server says is read, so that no two ends wait for each other; after a broken write, what the
server still said is read before the connection is given up (its 5xx explains); and no wait is
without end.

Time is kept by command, not by read (RFC 5321 section 4.5.3.2): a deadline belongs to the reply
that is awaited and moves only when a whole reply was taken, or to a block that is written and moves
only when some of it was taken, so a server that drips bytes gains nothing. It is a number on the
session; one watchdog a hub calls `expire()` on sessions that are past theirs, which costs nothing a
message, where a gevent.Timeout costs 1.4 us. Connecting alone keeps its own time.
"""

import socket as sockets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf

import gevent.socket
from gevent.ssl import SSLSocket

from geomail.delivery.session.connect import Connecting
from geomail.delivery.session.terms import Terms
from geomail.delivery.session.trust import said
from geomail.delivery.session.wires import PlainWire, TlsWire
from geomail.errors import ConfigError
from geomail.relays import Pipeline
from geomail.smtp.client import Client
from geomail.smtp.events import Awaited, Cause, Event, HandshakeWanted, Lost, Phase, Policy, Ready

__all__ = ["Session", "Terms"]

_NEVER = -1
_LOST = Phase.LOST  # a global: 6 ns instead of 90


class Session:
    """One connection to one host, from connect to close."""

    __slots__ = (
        "_connecting",
        "_due",
        "_due_limit_s",
        "_is_cut",
        "_is_expired",
        "_lateness",
        "_limit_s",
        "_refusal",
        "_replies",
        "_socket",
        "_wait",
        "_wire",
        "client",
        "deadline",
        "terms",
    )

    def __init__(
        self,
        terms: Terms,
        *,
        in_clear: bool = False,
        pipeline: Pipeline | None = None,
        chunking: str = "off",
    ) -> None:
        """Prepare a session; `pipeline`: what was learnt, where it is less than the relay's.

        `chunking`: off, prove, or on where the host has proved lately that it swallows a chunk.
        """
        self.terms = terms
        self._refusal: Lost | None = None
        try:
            policy = terms.policy(
                in_clear=in_clear, pipeline=pipeline or terms.relay.pipeline, chunking=chunking
            )
        except ConfigError as error:
            policy = Policy(terms.helo)
            self._refusal = Lost(Cause.LOGIN, None, str(error))
        self.client = Client(policy, under_tls=terms.member.tls == "implicit")
        self.deadline = inf
        self._wire: PlainWire | TlsWire | None = None
        self._socket: gevent.socket.socket | None = None
        self._connecting: Connecting | None = None
        self._is_cut = False  # a write has failed: what is written behind it would be misread
        self._is_expired = False
        self._wait, self._limit_s, self._lateness = "", 0.0, ""
        self._replies = _NEVER  # how many had come when the reply that is awaited became the oldest
        self._due, self._due_limit_s = inf, inf

    def open(self) -> Lost | None:
        """Connect and speak up to the first MAIL; return None, or why it can't be done."""
        lost = self._refusal or self._connect()
        if lost is None and self.client.under_tls:
            lost = self._start_tls(None)
        if lost is not None:
            return lost
        is_ready = False
        for event in self.exchange():
            if isinstance(event, Ready):
                is_ready = True  # a reply too many may still follow
            elif isinstance(event, Lost):
                return self._explained(event)
            elif isinstance(event, HandshakeWanted):
                lost = self._start_tls(Awaited.STARTTLS)
                if lost is not None:
                    return lost
                self.client.tls_started()
        if is_ready:
            self._keep_session()
            return None
        return Lost(Cause.OUT_OF_STEP, None, "the conversation ended before it began")

    # ---- one turn after the other

    def exchange(self) -> Iterator[Event]:
        """Write what there is to say, then yield what the server answers until all of it has come.

        A Lost event is the last one. Nothing is begun before the last one has come.
        """
        client = self.client
        while True:
            rest = self._write(client.output())
            if rest is not None:
                yield from self._write_rest(rest)
                rest = None  # a large mail is not kept while its answer is awaited
            if client.is_lost or not client.awaited:
                break
            yield from self._take()
        self._rest()

    def turn(self) -> list[Event]:
        """Write what there is to say, read once, and return what the server answered.

        Does not wait where nothing is awaited, nor when answers came while it was writing. What is
        still awaited goes on waiting in the next turn, within the same deadline. A Lost event is
        the last one.
        """
        client = self.client
        events: list[Event] = []
        out = client.output()
        rest = self._write(out) if out else None
        if rest is not None:
            events.extend(self._write_rest(rest))
        out, rest = b"", None  # a large mail is not kept while its answer is awaited
        if not events and client.awaited and client.phase is not _LOST:
            events = self._take()
        if not client.awaited or client.phase is _LOST:
            self._rest()
        return events

    def _take(self) -> list[Event]:
        """Read once, and go on waiting for a reply whose time began when it became the oldest."""
        client, wire, received = self.client, self._wire, b""
        if client.replies != self._replies:
            self._replies = client.replies
            self._due_limit_s = self.terms.limits_s[client.awaited[0]]
            self._due = time.monotonic() + self._due_limit_s
        self._wait, self._limit_s, self.deadline = "no answer", self._due_limit_s, self._due
        try:
            if wire is not None:
                received = wire.read()
        except OSError:
            pass  # as the end
        if received or not self._is_expired:
            return client.receive(received)
        return client.cut(Cause.TIMEOUT, self._lateness)

    def _rest(self) -> None:
        self.deadline = inf
        self._replies = _NEVER

    # ---- what is asked from outside

    def tls_version(self) -> str | None:
        """Return the version of TLS that is spoken, or None."""
        return self._socket.version() if isinstance(self._socket, SSLSocket) else None

    def is_resumed(self) -> bool:
        """Return whether the TLS handshake took up an earlier session."""
        return isinstance(self._socket, SSLSocket) and bool(self._socket.session_reused)

    def is_stale(self) -> bool:
        """Return whether an idle connection has something to read: a 421 or its end."""
        return self._wire is None or self._wire.is_readable()

    def watch_idle(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once, from the hub, when this idle connection becomes stale."""
        if self._wire is not None:
            self._wire.watch(callback)

    def unwatch_idle(self) -> None:
        """End the watch, whether it has called or not; before anything is said again."""
        if self._wire is not None:
            self._wire.unwatch()

    def expire(self) -> None:
        """End whatever wait is under way: its deadline has passed, or nobody wants it any more."""
        is_late = time.monotonic() >= self.deadline
        self._is_expired = True
        self._lateness = f"{self._wait} within {self._limit_s:g} s" if is_late else "given up"
        self.deadline = inf
        if self._connecting is not None:
            self._connecting.cancel()
        if self._socket is not None:
            with suppress(OSError):
                # SSLSocket's own shutdown() would drop the TLS state under a reader's feet.
                gevent.socket.socket.shutdown(self._socket, sockets.SHUT_RDWR)

    def close(self) -> None:
        """Say QUIT where it can be heard, wait for the answer briefly, and close."""
        if self._wire is not None and not self.client.is_lost:
            self.client.quit()
            if self.client.phase is Phase.LEAVING:
                for _event in self.exchange():
                    pass
        self.abandon()

    def abandon(self) -> None:
        """Close the connection as it is, without a word."""
        self.deadline = inf
        if self._wire is not None:
            if not self.terms.trust.has_ticket:
                self._keep_session()
            self._wire.close()
            self._wire = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ---- the connection

    def _connect(self) -> Lost | None:
        terms = self.terms
        source = terms.relay.source_address
        self._connecting = connecting = Connecting(
            terms.member.host,
            terms.member.port,
            within_s=terms.connect_s,
            source=source,
            directory=terms.directory,
        )
        try:
            plain = self._socket = connecting.run()
        finally:
            self._connecting = None
        if plain is None:
            return Lost(Cause.CONNECT, None, connecting.why)
        plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._wire = PlainWire(plain.fileno())
        return None

    def _start_tls(self, phase: Awaited | None) -> Lost | None:
        trust, plain = self.terms.trust, self._socket
        if plain is None or self._wire is None:
            return Lost(Cause.TLS, phase, "no connection")
        self._wire.close()
        self._allow(self.terms.connect_s, "no TLS handshake")
        try:
            # First ours, then the handshake: wrapping leaves the plain socket without a descriptor,
            # and the watchdog has to reach the one that waits.
            self._socket = wrapped = trust.wrap(plain)
            wrapped.do_handshake()
        except (OSError, ValueError) as error:
            trust.session = None
            return Lost(Cause.TLS, phase, self._no_tls(error, phase))
        self.deadline = inf
        self._wire = TlsWire(wrapped)
        return None

    def _keep_session(self) -> None:
        """Keep what others may resume: the host is well; or at the end, where it came late."""
        if isinstance(self._wire, TlsWire) and isinstance(self._socket, SSLSocket):
            self.terms.trust.keep(self._socket)

    def _no_tls(self, error: OSError | ValueError, phase: Awaited | None) -> str:
        text = self._lateness if self._is_expired else said(error)
        if phase is not None:
            return text
        is_clear = isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER"
        hint = "; it begins in clear: try smtp+starttls://" if is_clear else ""
        return f"{self.terms.where}: {text}{hint}"

    # ---- bytes

    def _write(self, out: bytes) -> memoryview | None:
        """Write what the kernel takes at once; return what is left, None where all has left."""
        wire = self._wire
        if not out or wire is None or self._is_cut:
            return None
        try:
            sent = wire.write(out)
        except OSError:
            # Not yet the end: what the server said before it hung up is read first.
            self._is_cut = True
            return None
        self.client.wrote(sent)
        if sent == len(out):
            return None
        self._allow(self.terms.block_s, "nothing was read")
        return memoryview(out)[sent:]

    def _write_rest(self, rest: memoryview) -> Iterator[Event]:
        """Write `rest` as the server takes it, and yield what it answers meanwhile."""
        wire, client = self._wire, self.client
        try:
            while rest and wire is not None:
                received = wire.read_now()
                if received is None:
                    wire.wait()
                    if sent := wire.write(rest):
                        client.wrote(sent)
                        rest = rest[sent:]
                        self._allow(self.terms.block_s, "nothing was read")
                elif received:
                    yield from client.receive(received)
                    if client.is_lost:
                        return
                else:
                    break
        except OSError:
            pass
        self._is_cut = len(rest) > 0

    # ---- time

    def _allow(self, limit_s: float, wait: str) -> None:
        """Begin a wait; `wait` is what is missing when it ends."""
        self._wait, self._limit_s = wait, limit_s
        self.deadline = time.monotonic() + limit_s

    def _explained(self, lost: Lost) -> Lost:
        hint = self.terms.hint
        if hint is not None and lost.phase is Awaited.GREETING:
            return Lost(lost.cause, lost.phase, f"{lost.text}; {hint}", lost.reply)
        return lost
