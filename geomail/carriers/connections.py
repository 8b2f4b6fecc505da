"""Connections of URL tasks: made to an address that was looked at, and kept for the next request.

A connection goes to one of the addresses that the guard has seen, by their numbers, with no second
look-up in between; TLS is verified against the name of the URL. A kept one goes on with the
address it was made to. It is kept for the origin it was made for, 15 seconds unused, and five
minutes at most, so that a change in DNS is followed. Not more are kept than requests may be under
way; the oldest goes first. While any is kept, one greenlet looks every few seconds for those
that are due.

What a kept connection has to say before it is asked, be it its end, makes it useless: that is seen
before it is taken. It can still end in the moment in which it is used.
"""

import ssl
import time
from collections import OrderedDict, deque
from contextlib import suppress

import gevent
import gevent.socket
from gevent.ssl import SSLContext

from geomail.carriers.guard import Guard
from geomail.carriers.names import Names
from geomail.carriers.response import conversation
from geomail.carriers.target import Target
from geomail.delivery.dns.site import Answer, Said
from geomail.delivery.session.connect import Connecting
from geomail.delivery.session.trust import said

Origin = tuple[str, str, int]

_KEPT_S = 15.0
_LIFE_S = 300.0
_SWEEP_S = 5.0
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)


class Refused(Exception):
    """The guard refuses the addresses of a host; its text says why."""


class Connection:
    """One connection to one origin; `is_used`: it has carried a request."""

    __slots__ = ("http", "is_used", "made_at", "origin", "since", "socket")

    def __init__(self, origin: Origin, socket: gevent.socket.socket) -> None:
        self.origin = origin
        self.socket = socket
        self.http = conversation()
        self.made_at = self.since = time.monotonic()
        self.is_used = False

    @property
    def is_silent(self) -> bool:
        """Tell whether nothing has come, not even its end; TLS reads its tickets on the way."""
        self.socket.settimeout(0.0)
        try:
            self.socket.recv(1)
        except _NOTHING_YET:
            self.socket.settimeout(None)
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close it, without a word."""
        with suppress(OSError):
            self.socket.close()


class Connections:
    """Makes connections, and keeps those that can carry another request."""

    def __init__(self, names: Names, guard: Guard, *, most: int, connect_s: float) -> None:
        """Keep at most `most`; `connect_s`: the deadline of a connection with its TLS."""
        self._names = names
        self.guard = guard
        self._most = most
        self._connect_s = connect_s
        self._by_origin: dict[Origin, deque[Connection]] = {}
        self._by_age: OrderedDict[Connection, None] = OrderedDict()
        self._sweeper: gevent.Greenlet[[], None] | None = None
        self._context: SSLContext | None = None
        self._is_closed = False

    def kept(self, target: Target) -> Connection | None:
        """Return a kept connection that looks alive, the one that was used last; else None."""
        origin = target.origin
        while kept := self._by_origin.get(origin):
            connection = kept.pop()
            self._forget(connection)
            if connection.is_silent:
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep one whose response has been read whole."""
        connection.is_used = True
        connection.http.start_next_cycle()
        connection.since = time.monotonic()
        if self._is_closed or connection.since - connection.made_at > _LIFE_S:
            connection.close()
            return
        self._by_origin.setdefault(connection.origin, deque()).append(connection)
        self._by_age[connection] = None
        if len(self._by_age) > self._most:
            self._drop_oldest()
        if self._sweeper is None:
            self._sweeper = gevent.spawn(self._sweep)

    def connect(self, target: Target) -> Connection:
        """Return a new connection; raises OSError with what to tell, or Refused."""
        making = _Making(target)
        deadline = gevent.Timeout.start_new(self._connect_s)
        try:
            self._make(making)
        except gevent.Timeout as over:
            if over is not deadline:
                raise
            raise TimeoutError(
                f"{target.key}: no {making.awaits} within {self._connect_s:g} s"
            ) from None
        finally:
            deadline.close()
        return Connection(target.origin, making.socket)

    def close(self) -> None:
        """Close what is kept, now and from now on."""
        self._is_closed = True
        while self._by_age:
            self._drop_oldest()
        if self._sweeper is not None:
            self._sweeper.kill(block=False)
            self._sweeper = None

    def _make(self, making: "_Making") -> None:
        target = making.target
        host = target.host
        here = Answer(Said.RECORDS, (host,)) if target.is_literal else None
        found = here or self._names.addresses(host)
        if not found.records:
            raise OSError(f"{host}: its address was not found: {found.text}")
        if reason := self.guard.against_addresses(host, found.records):
            raise Refused(reason)
        making.connect(found, within_s=self._connect_s)
        if target.scheme == "https":
            if self._context is None:
                self._context = _context()
            making.secure(self._context)

    def _forget(self, connection: Connection) -> None:
        del self._by_age[connection]
        if not self._by_origin[connection.origin]:
            del self._by_origin[connection.origin]

    def _drop_oldest(self) -> None:
        connection = next(iter(self._by_age))
        self._by_origin[connection.origin].popleft()
        self._forget(connection)
        connection.close()

    def _sweep(self) -> None:
        while self._by_age:
            gevent.sleep(_SWEEP_S)
            due = time.monotonic() - _KEPT_S
            while self._by_age and next(iter(self._by_age)).since <= due:
                self._drop_oldest()
        self._sweeper = None


class _Making:
    """A connection that is being made, and what it `awaits`."""

    __slots__ = ("awaits", "socket", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.awaits = "address"
        self.socket: gevent.socket.socket

    def connect(self, checked: Answer[str], *, within_s: float) -> None:
        """Connect to one of these addresses and to nothing else; raises OSError."""
        self.awaits = "connection"
        race = Connecting(
            self.target.host, self.target.port, within_s=within_s, directory=lambda _: checked
        )
        plain = race.run()
        if plain is None:
            raise OSError(race.why)
        plain.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        self.socket = plain

    def secure(self, context: SSLContext) -> None:
        """Make it TLS, verified against the name of the URL; raises OSError."""
        self.awaits = "TLS"
        try:
            secured = self.socket = context.wrap_socket(
                self.socket, server_hostname=self.target.host, do_handshake_on_connect=False
            )
            secured.do_handshake()
        except BaseException as error:
            self.socket.close()
            if isinstance(error, OSError | ValueError):
                raise OSError(f"{self.target.key}: TLS: {said(error)}") from error
            raise


def _context() -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context
