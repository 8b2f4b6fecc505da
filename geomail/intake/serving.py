"""`geomail listen`: the doors alone, in a process that delivers nothing.

Sockets are bound first, so that what can't be is said at once; then Redis is waited for, loudly;
clients that come meanwhile wait in the sockets. SIGTERM or SIGINT: no more are let in, who is in
gets the answers to what they have sent, within `grace_s`; a second one leaves at once, and loses
nothing that was answered. SIGHUP reads the certificate again.
"""

import signal

import gevent
from gevent.event import Event

from geomail import files, log
from geomail.config import Settings
from geomail.errors import ConfigError, GeomailError, RedisUnusable
from geomail.intake import listening
from geomail.intake.doors import Doors
from geomail.intake.gate import PATIENCE_S, Gate
from geomail.queue import Link


def serve(settings: Settings, listeners: listening.Listeners) -> int:
    """Keep doors open on `listeners` until told to leave; return the exit status.

    Raises ConfigError or RedisUnusable when it can't start.
    """
    if settings.redis is None:
        raise RedisUnusable("no Redis: pass --redis URL")
    files.make_room(settings.door_connections * len(listeners))
    return _Serving(settings.redis, settings, listeners).run()


def doors_of(url: str, settings: Settings, listeners: listening.Listeners) -> Doors:
    """Return doors with a gate of their own, into the Redis at `url`; raises ConfigError."""
    return Doors(Gate(Link(url, patience_s=PATIENCE_S), settings), settings, listeners)


class _Serving:
    """The doors, and who ends them."""

    def __init__(self, url: str, settings: Settings, listeners: listening.Listeners) -> None:
        self._url = url
        self._settings = settings
        self._doors = doors_of(url, settings, listeners)
        self._told = Event()
        self._signals = 0
        self._failure: GeomailError | None = None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop, number)
        gevent.signal_handler(signal.SIGHUP, self._on_hangup)
        # Beside the main greenlet, which has to hear signals while Redis is away.
        beginning = gevent.spawn(self._begin)
        self._told.wait()
        if beginning.ready() and self._failure is None:
            self._leave()
        if self._failure is not None:
            raise self._failure
        log.info("left")
        return 0

    def _begin(self) -> None:
        try:
            Link(self._url).probe()
        except RedisUnusable as error:
            self._failure = error
            self._told.set()
        else:
            if not self._told.is_set():
                self._doors.start()

    def _leave(self) -> None:
        leaving = gevent.spawn(self._doors.stop, self._settings.grace_s)
        while not leaving.ready() and self._signals < 2:
            leaving.join(0.05)

    def _on_stop(self, number: int) -> None:
        self._signals += 1
        log.info("stopping", signal=signal.Signals(number).name)
        self._told.set()

    def _on_hangup(self) -> None:
        try:
            self._doors.renew()
        except ConfigError as error:
            log.error("reload_failed", why=str(error), hint="the old certificate stays in force")
        else:
            log.info("reloaded", hint="the certificate; other settings of doors need a restart")
