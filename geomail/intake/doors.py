"""Which doors there are, and how those that are configured are opened and closed.

A door is a class in a module of its own, imported when it is wanted:

    class TcpDoor:
        def __init__(self, gate: Gate, settings: Settings, tls: SSLContext | None) -> None
        def start(self, listener: socket.socket) -> None     accept, in greenlets of its own
        def stop(self, grace_s: float) -> None               see below

`tls` is the context of `door_cert`, or None: a door begins with TLS, but `smtp` offers STARTTLS;
`smtps` has no other way.
`start` returns at once; `listener` listens already, may be shared with other processes, and is the
door's from then on. `stop` accepts no more and closes the listener, lets each connection have the
answers to what it has sent, and returns when all have ended, or after `grace_s`, when those that
are left are cut. The gate is open until all doors have stopped. `reception.Reception` does both for
doors that are one greenlet a connection.

A door may raise ConfigError from its constructor (an unreadable file, say).
"""

import socket
from importlib import import_module
from ssl import SSLContext
from typing import Protocol

import gevent

from geomail import log
from geomail.config import Settings
from geomail.intake import certificate, listening
from geomail.intake.gate import Gate

_CLASSES = {
    "tcp": ("geomail.intake.tcp", "TcpDoor"),
    "http": ("geomail.intake.http", "HttpDoor"),
    "smtp": ("geomail.intake.smtp", "SmtpDoor"),
    "smtps": ("geomail.intake.smtp", "SmtpsDoor"),
}


class Door(Protocol):
    """One way in."""

    def start(self, listener: socket.socket) -> None:
        """Accept connections until `stop`."""

    def stop(self, grace_s: float) -> None:
        """Accept no more, answer what is in hand, and leave."""


class Doors:
    """All doors of this process, in front of one gate."""

    def __init__(self, gate: Gate, settings: Settings, listeners: listening.Listeners) -> None:
        """Make a door for each listener; nobody is let in yet. Raises ConfigError."""
        tls = certificate.tls_of(settings)
        self._gate = gate
        self._settings = settings
        self._listeners = listeners
        self._tls = tls
        self._doors = {name: _make(name, gate, settings, tls) for name in listeners}

    def start(self) -> None:
        """Open the gate, and let people in."""
        self._gate.start()
        for name, door in self._doors.items():
            listener = self._listeners[name]
            address = listening.address_shown(listener)
            log.info("listening", door=name, address=address, list=self._gate.queue)
            door.start(listener)

    def renew(self) -> None:
        """Read the certificate again, for connections to come. Raises ConfigError."""
        if self._tls is not None:
            certificate.load_certificate(self._tls, self._settings)

    def stop(self, grace_s: float) -> None:
        """Close all doors within `grace_s`, then the gate."""
        leaving = [gevent.spawn(door.stop, grace_s) for door in self._doors.values()]
        gevent.joinall(leaving)  # each returns within its grace
        self._gate.close()


def _make(name: str, gate: Gate, settings: Settings, tls: SSLContext | None) -> Door:
    module, kind = _CLASSES[name]
    door: Door = getattr(import_module(module), kind)(gate, settings, tls)
    return door
