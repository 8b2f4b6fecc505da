"""A session: one SMTP conversation pumped over one socket, TLS included.

The conversation (smtp.client) decides what is said; this room moves bytes and keeps time. Its own
promises: bytes leave in as few writes as the conversation gave them in; what the kernel took is
told to the conversation at once, so that "unknown" is exact; after a broken write, what the
server still said is read before the connection is given up (its 5xx explains); and no wait is
without end.

Time is kept by command, not by read (RFC 5321 section 4.5.3.2): a deadline belongs to the reply
that is awaited and moves only when a whole reply was taken, so a server that drips bytes gains
nothing. It is a number on the session; one watchdog a hub calls `expire()` on sessions that are
past theirs, which costs nothing a message, where a gevent.Timeout costs 1.4 us.

The plain wire reads and writes the file descriptor itself, and waits before it reads: a reply is
never there yet, and a read in vain costs a system call and an exception (18 us a round trip with
settimeout, sendall and recv; 12.5 us so).
"""

import os
import select
import socket as sockets
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from math import inf

import gevent
import gevent.select
import gevent.socket
from gevent.ssl import SSLContext, SSLSocket

from geomail.config import Member, Relay, Settings
from geomail.relays import Pipeline
from geomail.smtp.auth import Login
from geomail.smtp.client import Client
from geomail.smtp.events import Awaited, Cause, Event, HandshakeWanted, Lost, Phase, Policy, Ready

_BLOCK = 16384
_HINT_S = 5.0


class Terms:
    """What all sessions with one relay host share: policy, deadlines, address, TLS session."""

    __slots__ = (
        "_context",
        "block_s",
        "connect_s",
        "helo",
        "limits_s",
        "member",
        "relay",
        "tls_session",
    )

    def __init__(self, member: Member, relay: Relay, settings: Settings) -> None:
        self.member = member
        self.relay = relay
        self.helo = relay.helo or settings.helo or _own_name()
        self.connect_s = settings.connect_s
        self.block_s = settings.block_s
        self.limits_s = _limits_s(settings)
        self._context: SSLContext | None = None
        self.tls_session: ssl.SSLSession | None = None
        if member.scheme == "smtp" and member.port == 465:
            # A server that waits for TLS says nothing at all.
            self.limits_s[Awaited.GREETING] = min(_HINT_S, settings.greeting_s)

    @property
    def server_name(self) -> str:
        """Return the name that a certificate has to hold: never with the dot of the DNS's root."""
        return self.member.host.removesuffix(".")

    @property
    def may_fall_back(self) -> bool:
        """True where a failed handshake may be followed by a new connection in clear."""
        return self.member.tls == "may" and not self.relay.tls_required

    def policy(self, *, in_clear: bool, pipeline: Pipeline) -> Policy:
        """Return what the conversation has to insist on; `in_clear`: STARTTLS has just failed."""
        tls = "may" if self.may_fall_back else "must"
        login = None
        if self.member.user is not None:
            login = Login(self.member.user, self.member.password or "")
        return Policy(self.helo, "never" if in_clear else tls, login=login, pipeline=pipeline)

    def context(self) -> SSLContext:
        """Return the TLS settings: verified unless the relay is plain smtp:// without a login."""
        if self._context is None:
            self._context = _context(self.member.verified, self.relay.ca_file)
        return self._context


class Session:
    """One connection to one host, from connect to close."""

    def __init__(
        self, terms: Terms, *, in_clear: bool = False, pipeline: Pipeline | None = None
    ) -> None:
        """Prepare a session; `pipeline`: what was learnt, where it is less than the relay's."""
        self.terms = terms
        self.client = Client(
            terms.policy(in_clear=in_clear, pipeline=pipeline or terms.relay.pipeline),
            under_tls=terms.member.tls == "implicit",
        )
        self.deadline = inf
        self._wire: _PlainWire | _TlsWire | None = None
        self._socket: gevent.socket.socket | None = None
        self._is_expired = False
        self._wait, self._limit_s, self._lateness = "", 0.0, ""
        self._replies = -1  # the greeting is awaited before anything is written

    def open(self) -> Lost | None:
        """Connect and speak up to the first MAIL; return None, or why it can't be done."""
        try:
            self._connect()
            if self.client.under_tls:
                self._start_tls()
        except (OSError, UnicodeError) as error:  # the latter: a name that no DNS can hold
            return self._no_connection(error)
        is_ready = False
        for event in self.exchange():
            if isinstance(event, Ready):
                is_ready = True  # a reply too many may still follow
            elif isinstance(event, Lost):
                return self._explained(event)
            elif isinstance(event, HandshakeWanted):
                try:
                    self._start_tls()
                except OSError as error:
                    return Lost(Cause.TLS, Awaited.STARTTLS, _text(error))
                self.client.tls_started()
        if is_ready:
            return None
        return Lost(Cause.OUT_OF_STEP, None, "the conversation ended before it began")

    def exchange(self) -> Iterator[Event]:
        """Write what there is to say, then yield what the server answers until all of it has come.

        A Lost event is the last one.
        """
        client = self.client
        while not client.is_lost:
            if out := client.output():
                self._write(out)
            if not client.awaited:
                break
            received = self._read()
            if received or not self._is_expired:
                yield from client.receive(received)
            else:
                yield from client.cut(Cause.TIMEOUT, self._lateness)
        self.deadline = inf

    def tls_version(self) -> str | None:
        """Return the version of TLS that is spoken, or None."""
        version = getattr(self._socket, "version", None)
        return str(version()) if version is not None and self.client.under_tls else None

    def is_stale(self) -> bool:
        """Return whether an idle connection has something to read: a 421 or its end."""
        return self._wire is None or self._wire.is_readable()

    def expire(self) -> None:
        """End whatever wait is under way: its deadline has passed."""
        self._is_expired = True
        self._lateness = f"{self._wait} within {self._limit_s:g} s"
        self.deadline = inf
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
            if isinstance(self._wire, _TlsWire):
                self.terms.tls_session = self._wire.session()
            self._wire.close()
            self._wire = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # ---- the socket

    def _connect(self) -> None:
        member = self.terms.member
        plain = gevent.socket.create_connection(
            (member.host, member.port), timeout=self.terms.connect_s
        )
        plain.settimeout(None)
        plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._socket = plain
        self._wire = _PlainWire(plain.fileno())

    def _start_tls(self) -> None:
        plain = self._socket
        if plain is None or self._wire is None:
            raise ConnectionAbortedError("no connection")
        self._wire.close()
        self._allow(self.terms.connect_s, "no TLS handshake")
        try:
            # First ours, then the handshake: wrapping leaves the plain socket without a descriptor,
            # and the watchdog has to reach the one that waits.
            self._socket = wrapped = self.terms.context().wrap_socket(
                plain,
                server_hostname=self.terms.server_name,
                do_handshake_on_connect=False,
                session=self.terms.tls_session,
            )
            wrapped.do_handshake()
        except OSError as error:
            self.terms.tls_session = None
            if self._is_expired:
                raise TimeoutError(self._lateness) from error
            raise
        self.deadline = inf
        self._wire = _TlsWire(wrapped)

    def _write(self, out: bytes) -> None:
        wire = self._wire
        if wire is None:
            return
        self._allow(self.terms.block_s, "nothing was read")
        try:
            sent = wire.write(out)
            self.client.wrote(sent)
            if sent < len(out):
                self._write_rest(memoryview(out)[sent:])
        except OSError:
            # Not yet the end: what the server said before it hung up is read first.
            pass
        if self.client.awaited:
            self._await(self.client.awaited[0])

    def _write_rest(self, rest: memoryview) -> None:
        wire = self._wire
        while rest and wire is not None:
            self._allow(self.terms.block_s, "nothing was read")
            wire.wait_writable()
            sent = wire.write(rest)
            self.client.wrote(sent)
            rest = rest[sent:]

    def _read(self) -> bytes:
        if self.client.replies != self._replies:
            self._await(self.client.awaited[0])
        wire = self._wire
        if wire is None:
            return b""
        try:
            return wire.read()
        except OSError:
            return b""

    def _await(self, awaited: Awaited) -> None:
        self._replies = self.client.replies
        self._allow(self.terms.limits_s[awaited], "no answer")

    def _allow(self, limit_s: float, wait: str) -> None:
        """Begin a wait; `wait` is what is missing when it ends."""
        self._wait, self._limit_s = wait, limit_s
        self.deadline = time.monotonic() + limit_s

    # ---- saying what went wrong

    def _no_connection(self, error: OSError | UnicodeError) -> Lost:
        member = self.terms.member
        where = f"{member.host}:{member.port}"
        if self._socket is not None:
            return Lost(Cause.TLS, None, f"{where}: {_text(error)}")
        text = "no answer to the connect" if isinstance(error, TimeoutError) else _text(error)
        return Lost(Cause.CONNECT, None, f"{where}: {text}")

    def _explained(self, lost: Lost) -> Lost:
        member = self.terms.member
        if member.scheme == "smtp" and member.port == 465 and lost.phase is Awaited.GREETING:
            text = f"{lost.text}; port 465 speaks TLS from the first byte: try smtps://"
            return Lost(lost.cause, lost.phase, text, lost.reply)
        return lost


class _PlainWire:
    """Reads and writes a non-blocking file descriptor, which stays its socket's."""

    __slots__ = ("_fd", "_hub", "_reader")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hub = gevent.get_hub()
        self._reader = self._hub.loop.io(fd, 1)

    def read(self) -> bytes:
        while True:
            self._hub.wait(self._reader)
            try:
                return os.read(self._fd, _BLOCK)
            except BlockingIOError:
                continue

    def write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def wait_writable(self) -> None:
        gevent.socket.wait_write(self._fd)

    def is_readable(self) -> bool:
        poller = gevent.select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        self._reader.close()


class _TlsWire:
    """Reads and writes a TLS socket, which does its own waiting."""

    __slots__ = ("_socket",)

    def __init__(self, socket: SSLSocket) -> None:
        self._socket = socket

    def read(self) -> bytes:
        received: bytes = self._socket.recv(_BLOCK)
        return received

    def write(self, data: bytes | memoryview) -> int:
        # Python's TLS takes all or waits, and a deadline is for a block, so a block is offered.
        block = data if len(data) <= _BLOCK else memoryview(data)[:_BLOCK]
        sent: int = self._socket.send(block)
        return sent

    def session(self) -> ssl.SSLSession | None:
        """Return what the next connection may resume: in TLS 1.3 it comes after the handshake."""
        session: ssl.SSLSession | None = self._socket.session
        return session

    def wait_writable(self) -> None:
        pass

    def is_readable(self) -> bool:
        # Session tickets (TLS 1.3) make the descriptor readable and mean nothing: try to read.
        self._socket.settimeout(0.0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(None)
        return True

    def close(self) -> None:
        pass


@lru_cache(maxsize=64)
def _context(is_verified: bool, ca_file: str | None) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if is_verified:
        context.load_default_certs()
        if ca_file is not None:
            try:
                context.load_verify_locations(ca_file)
            except OSError as error:
                raise OSError(f"ca_file {ca_file} can't be used: {_text(error)}") from error
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _limits_s(settings: Settings) -> dict[Awaited, float]:
    command_s = settings.command_s
    return {
        Awaited.GREETING: settings.greeting_s,
        Awaited.EHLO: command_s,
        Awaited.HELO: command_s,
        Awaited.STARTTLS: command_s,
        Awaited.AUTH: command_s,
        Awaited.MAIL: settings.mail_s,
        Awaited.RCPT: settings.rcpt_s,
        Awaited.DATA: settings.data_s,
        Awaited.CONTENT: settings.final_s,
        Awaited.DOT: settings.data_s,
        Awaited.RSET: settings.mail_s,
        Awaited.QUIT: settings.quit_s,
    }


@lru_cache(maxsize=1)
def _own_name() -> str:
    """Return an FQDN, or an address literal where the machine has no full name (4.1.3)."""
    name = sockets.gethostname()
    return name if "." in name.strip(".") else "[127.0.0.1]"


def _text(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate can't be verified: {error.verify_message}"
    if isinstance(error, UnicodeError):
        return "no name of a host"
    return error.strerror or str(error)
