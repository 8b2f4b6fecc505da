"""Reception: who is let in at a door that is one greenlet a connection.

It accepts, counts, says no to one too many, shakes hands where the door begins with TLS, and sees
everybody out at the end. A connection's greenlet runs `converse(sock, host)` and may do what it
likes with the socket, which is closed when it returns or raises.

    reception = Reception(converse, most=…, tls=…, farewell=b"…")
    reception.start(listener)
    reception.stop(grace_s)      nobody new; `leaving` is set; cut after grace_s

`stop` ends reading for all conversations (a shutdown of the receiving half), so that a wait for
more returns b"" as if the client had closed; bytes that have come are read before that.

Promised: never more than `most` conversations; the one that is too many waits up to 1 s for a place
if people come and go, then gets `farewell` and is closed; a handshake has a deadline; nothing that
a client does ends the accepting, and no lack of descriptors does.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext, SSLError

import gevent
from gevent.event import Event

from geomail import log, metrics
from geomail.intake.seldom import Seldom

Converse = Callable[[socket.socket, str], None]

_HANDSHAKE_S = 10.0
_PAUSE_S = 0.1
_MOST_OUTSIDE = 4096
_IN_A_ROW = 16
_PLACE_S = 1.0
_LAST_WORD_S, _LAST_WORDS_S = 1.0, 2.0
_BLOCK = 64 * 1024


class Reception:
    """Lets in up to `most` at a time; `host` of a client of a local socket is ''."""

    def __init__(
        self,
        converse: Converse,
        *,
        most: int,
        farewell: bytes,
        tls: SSLContext | None = None,
    ) -> None:
        self.leaving = Event()
        self._converse = converse
        self._most = most
        self._farewell = farewell
        self._tls = tls
        self._listener: socket.socket | None = None
        self._accepting: gevent.Greenlet[..., None] | None = None
        self._say_full = Seldom(log.warning, "door_full")
        self._say_failed = Seldom(log.warning, "cannot_accept")
        self._say_no_tls = Seldom(log.info, "no_tls")
        self._somebody_left = Event()
        self._is_stuck = False  # nobody has left since the last one had to wait for that in vain
        self._guests: dict[_Guest, gevent.Greenlet[..., None]] = {}

    def start(self, listener: socket.socket) -> None:
        """Accept connections from `listener`, in a greenlet."""
        self._listener = listener
        self._accepting = gevent.spawn(self._accept, listener)

    @property
    def is_leaving(self) -> bool:
        """Whether everybody is to leave."""
        return self.leaving.is_set()

    @property
    def guests(self) -> int:
        """How many connections there are."""
        return len(self._guests)

    def stop(self, grace_s: float) -> None:
        """Accept no more; end reading, wait until all have gone, and cut those that have not."""
        self.leaving.set()
        if self._accepting is not None:
            self._accepting.kill()
        if self._listener is not None:
            self._let_in_who_stands_outside(self._listener)
            self._listener.close()
        self._end(socket.SHUT_RD, grace_s)
        self._end(socket.SHUT_RDWR, _LAST_WORD_S)

    def _end(self, how: int, patience_s: float) -> None:
        for guest in tuple(self._guests):
            _shut(guest.sock, how)
        gevent.joinall(list(self._guests.values()), timeout=patience_s)

    def replace(self, sock: socket.socket, by: socket.socket) -> None:
        """Note that a conversation goes on over another socket, as after STARTTLS."""
        for guest in self._guests:
            if guest.sock is sock:
                guest.sock = by

    def _accept(self, listener: socket.socket) -> None:
        accepted = 0
        while True:
            try:
                sock, peer = listener.accept()
            except OSError as error:  # out of descriptors, or a client that has gone again
                self._say_failed(why=error)
                gevent.sleep(_PAUSE_S)
                continue
            accepted += 1
            try:
                self._wait_for_a_place()
            finally:  # also when this ends: who is in the doorway may have said everything
                self._welcome(sock, peer)
            if accepted % _IN_A_ROW == 0:
                gevent.sleep(0)  # those who are in have a turn, and other processes

    def _let_in_who_stands_outside(self, listener: socket.socket) -> None:
        """Accept those whom the system has accepted already, maybe with all that they have sent."""
        listener.settimeout(0.0)
        with suppress(OSError):
            for _ in range(_MOST_OUTSIDE):
                self._welcome(*listener.accept())

    def _wait_for_a_place(self) -> None:
        """Let a crowd that comes and goes wait for a moment, but not behind those who stay."""
        if len(self._guests) >= self._most and not self._is_stuck:
            self._somebody_left.clear()
            self._is_stuck = not self._somebody_left.wait(_PLACE_S)

    def _welcome(self, sock: socket.socket, peer: object) -> None:
        if len(self._guests) < self._most:
            guest = _Guest(sock, str(peer[0]) if isinstance(peer, tuple) else "")
            self._guests[guest] = gevent.spawn(self._host, guest)
        else:
            metrics.count("door_full")
            self._say_full(most=self._most, hint="raise door_connections, or see who keeps them")
            _say_farewell(sock, self._farewell)

    def _host(self, guest: "_Guest") -> None:
        try:
            if self._tls is not None:
                guest.sock = self._encrypted(guest, self._tls)
            self._converse(guest.sock, guest.host)
        except OSError as error:  # ssl's errors too
            log.debug("guest_lost", host=guest.host, why=error)
        except Exception as error:  # noqa: BLE001 - the top of a greenlet
            log.error("conversation_broke", host=guest.host, why=repr(error))
            metrics.count("conversations_broken")
        finally:
            guest.sock.close()
            del self._guests[guest]
            self._is_stuck = False
            self._somebody_left.set()

    def _encrypted(self, guest: "_Guest", tls: SSLContext) -> socket.socket:
        guest.sock.settimeout(_HANDSHAKE_S)
        try:
            return tls.wrap_socket(guest.sock, server_side=True)
        except SSLError as error:
            self._say_no_tls(host=guest.host, why=error.reason or error)
            raise


class _Guest:
    """One connection, and where it comes from."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.host = host


def see_out(sock: socket.socket) -> None:
    """Say that nothing more comes from us; read what still comes, for a moment, and drop it.

    Closed with bytes unread, a connection is reset, and what was answered last is lost.
    """
    until = time.monotonic() + _LAST_WORDS_S
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while (left_s := until - time.monotonic()) > 0:
            sock.settimeout(left_s)
            if not sock.recv(_BLOCK):
                return
            gevent.sleep(0)


def _shut(sock: socket.socket, how: int) -> None:
    # Over a twin: the shutdown of a TLS socket would go on in clear.
    with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as twin:
        twin.shutdown(how)


def _say_farewell(sock: socket.socket, words: bytes) -> None:
    with suppress(OSError), sock:
        sock.setblocking(False)
        sock.send(words)  # fits, or is nobody's business
