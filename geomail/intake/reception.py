"""Reception: who is let in at a door that is one greenlet a connection.

It accepts, counts, says no to one too many, shakes hands where the door begins with TLS, and sees
everybody out at the end. A connection's greenlet runs `converse(guest)`; the socket is closed when
that returns or raises.

    reception = Reception(converse, most=…, tls=…, farewell=b"…")
    reception.start(listener)
    reception.stop(grace_s)      nobody new; `leaving` is set; cut after grace_s

When the places are full, who has been silent longest gives way: a guest that has not shown in
a second what it is for (`is_known`), so a thousand that say nothing keep nobody out. Else the one
that is too many waits up to 1 s for a place if people come and go, then gets `farewell`.

`stop` lets conversations end by themselves (geomail.intake.guest): what has come is answered.

Promised: never more than `most` conversations; a handshake has a deadline; nothing that a client
does ends the accepting, and no lack of descriptors does. Not promised: a place for each of more
than `most` that all have business here.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext, SSLError, SSLSocket

import gevent
from gevent.event import Event
from gevent.pool import Pool

from geomail import log, metrics
from geomail.intake.guest import Guest, see_out
from geomail.intake.seldom import Seldom

Converse = Callable[[Guest], None]

_PAUSE_S = 0.1
_MOST_OUTSIDE = 4096
_IN_A_ROW = 16
_PLACE_S = 1.0
_SILENT_S = 1.0  # that long a stranger is left alone
_LAST_WORD_S = 1.0
_MOST_TURNED_AWAY = 100  # at a time, whose farewell is waited for
_SILENT_HINT = "the places are full: who connects and brings nothing gives way"
_TLS_BEGINS = b"\x16"  # a handshake record (RFC 8446, 5.1)


class Reception:
    """Lets in up to `most` at a time."""

    def __init__(
        self,
        converse: Converse,
        *,
        most: int,
        farewell: bytes,
        tls: SSLContext | None = None,
        in_clear: bytes = b"",
    ) -> None:
        """`farewell` is for one too many, `in_clear` for who speaks without TLS where `tls` is."""
        self.leaving = Event()
        self._converse = converse
        self._most = most
        self._farewell = b"" if tls else farewell  # in clear it would be an error of TLS
        self._tls = tls
        self._in_clear = in_clear
        self._listener: socket.socket | None = None
        self._accepting: gevent.Greenlet[..., None] | None = None
        self._say_full = Seldom(log.warning, "door_full")
        self._say_silent = Seldom(log.warning, "door_silent")
        self._say_failed = Seldom(log.warning, "cannot_accept")
        self._say_no_tls = Seldom(log.info, "no_tls")
        self._say_tls_came = Seldom(log.info, "tls_came")
        self._somebody_left = Event()
        self._is_stuck = False  # nobody has left since the last one had to wait for that in vain
        self._looked_at = 0.0  # for somebody silent, in vain
        self._guests: dict[Guest, gevent.Greenlet[..., None]] = {}
        self._turned_away = Pool(_MOST_TURNED_AWAY)

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
        """Accept no more, wait until all have ended, and cut those that have not."""
        self.leaving.set()
        if self._accepting is not None:
            self._accepting.kill()
        if self._listener is not None:
            self._let_in_who_stands_outside(self._listener)
            self._listener.close()
        for guest in tuple(self._guests):
            guest.wake()
        self._wait_for_all(grace_s)
        for guest in tuple(self._guests):
            _cut(guest.sock)
        self._wait_for_all(_LAST_WORD_S)

    def _wait_for_all(self, patience_s: float) -> None:
        gevent.joinall(list(self._guests.values()), timeout=patience_s)

    def note_tls(self, host: str) -> None:
        """Say in the log that a client began with TLS where none is spoken."""
        self._say_tls_came(host=host, hint="this door begins in clear: see door_cert, listen_smtps")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                self._accept_each(listener)
            except Exception as error:  # noqa: BLE001 - the top of a greenlet
                log.error("accepting_broke", why=repr(error))
                gevent.sleep(_PAUSE_S)

    def _accept_each(self, listener: socket.socket) -> None:
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
        if len(self._guests) < self._most:
            return
        if not self._send_away_a_silent_one() and not self._is_stuck:
            self._wait_until_somebody_leaves()
            if len(self._guests) < self._most or not self._send_away_a_silent_one():
                return
        if len(self._guests) >= self._most and not self._is_stuck:
            self._wait_until_somebody_leaves()

    def _wait_until_somebody_leaves(self) -> None:
        self._somebody_left.clear()
        self._is_stuck = not self._somebody_left.wait(_PLACE_S)

    def _send_away_a_silent_one(self) -> bool:
        """Cut who has been here longest of those that nobody knows; False: there is none."""
        now = time.monotonic()
        if now - self._looked_at < _PLACE_S / 2:
            return False  # who looks through thousands for everybody who comes has no time left
        for guest in self._guests:  # in the order in which they came
            if not guest.is_known and not guest.is_sent_away and now - guest.since > _SILENT_S:
                guest.is_sent_away = True
                metrics.count("door_silent")
                self._say_silent(host=guest.host, most=self._most, hint=_SILENT_HINT)
                _say_farewell(guest.sock, self._farewell)
                _cut(guest.sock)
                self._is_stuck = False
                return True
        self._looked_at = now
        return False

    def _welcome(self, sock: socket.socket, peer: object) -> None:
        if len(self._guests) < self._most:
            guest = Guest(sock, str(peer[0]) if isinstance(peer, tuple) else "", self.leaving)
            self._guests[guest] = gevent.spawn(self._host, guest)
            return
        metrics.count("door_full")
        self._say_full(most=self._most, hint="raise door_connections, or see who keeps them")
        if self._farewell and not self._turned_away.full():
            self._turned_away.spawn(self._turn_away, sock)
        else:
            sock.close()

    def _turn_away(self, sock: socket.socket) -> None:
        with sock:
            _say_farewell(sock, self._farewell)
            see_out(sock)

    def _host(self, guest: Guest) -> None:
        try:
            if self._tls is None or self._is_encrypted(guest, self._tls):
                self._converse(guest)
            if self.is_leaving:
                guest.see_out()
            guest.end_tls()
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

    def _is_encrypted(self, guest: Guest, tls: SSLContext) -> bool:
        """Shake hands; tell who speaks in clear so, in clear."""
        began = guest.peek()
        if began == _TLS_BEGINS:
            self._encrypt(guest, tls)
            return True
        if began != b"":
            self._say_no_tls(host=guest.host, why="it speaks in clear" if began else "it is silent")
            _say_farewell(guest.sock, self._in_clear)
            guest.see_out()
        return False

    def _encrypt(self, guest: Guest, tls: SSLContext) -> None:
        try:
            guest.encrypt(tls)
        except SSLError as error:
            self._say_no_tls(host=guest.host, why=error.reason or error)
            raise


def _cut(sock: socket.socket) -> None:
    # Over a twin: the shutdown of a TLS socket would go on in clear.
    with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _say_farewell(sock: socket.socket, words: bytes) -> None:
    if words and not isinstance(sock, SSLSocket):  # behind TLS words would have to wait
        with suppress(OSError):
            sock.send(words, socket.MSG_DONTWAIT)  # fits, or is nobody's business
