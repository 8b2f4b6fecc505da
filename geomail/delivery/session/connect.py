"""Connecting: a host's addresses, and the race for a connection to one of them.

The addresses are tried in the order of the system's resolver with the families taking turns, IPv6
and IPv4 (RFC 8305 section 4), each a quarter of a second after the one before, or at once when
that one failed. The first connection wins, the others are closed. So a family that leads nowhere
costs 0.25 s and not the whole deadline, which holds for everything together, the lookup too.

A race is run by the greenlet that wants the connection and starts no other one: it waits for one
Event, which watchers on the descriptors set, and `cancel()` from outside. Whatever ends it (a
winner, the deadline, a kill), every descriptor but the winner's is closed then. A lookup is the
one thing that can't be ended: a thread of gevent's pool is in it. It is shared by all who ask for
the same name meanwhile, so that a thousand connections to one host cost one question, and its
greenlet ends when the system's resolver does.

Not done here: MX records, or an answer kept for later. A directory (dns/sites.py) does both.
"""

import errno
import os
import socket as sockets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from math import inf

import gevent
import gevent.socket
from gevent.event import Event

from geomail.delivery.dns.site import Answer, Said

Socket = gevent.socket.socket
_Address = tuple[sockets.AddressFamily, tuple[str | int, ...]]
_Key = tuple[str, int, sockets.AddressFamily]
Directory = Callable[[str], Answer[str]]

_HEAD_START_S = 0.25
_MOST_ADDRESSES = 8
_MOST_NAMED = 3
# Linux: the port is chosen when the other end is known, else 28,000 connections use up all ports.
_BIND_ADDRESS_NO_PORT = 24 if sys.platform == "linux" else None
# There was a connection, and it was reset before we looked: what the host said in it can be read.
_OVER_ALREADY = (errno.ECONNRESET, errno.EPIPE)
_KINDS = {sockets.AF_INET: "IPv4", sockets.AF_INET6: "IPv6"}

_under_way: dict[_Key, "gevent.Greenlet[[_Key], list[_Address] | str]"] = {}


class Connecting:
    """One race for one connection; `why` says what each address said when nobody won."""

    __slots__ = (
        "_directory",
        "_failures",
        "_host",
        "_is_cancelled",
        "_news",
        "_port",
        "_running",
        "_source",
        "_until",
        "_within_s",
        "why",
    )

    def __init__(
        self,
        host: str,
        port: int,
        *,
        within_s: float,
        source: str | None = None,
        directory: Directory | None = None,
    ) -> None:
        """Prepare it; `source`: our own address, whose family is the only one tried.

        `directory`: who knows the host's addresses, instead of the system's resolver.
        """
        self._directory = directory
        self._host = host
        self._port = port
        self._within_s = within_s
        self._source = source
        self.why = ""
        self._until = inf
        self._is_cancelled = False
        self._news = Event()
        self._running: list[_Attempt] = []
        self._failures: list[tuple[str, str]] = []

    def run(self) -> Socket | None:
        """Return a connected socket, or None: `why` says why not."""
        self._until = time.monotonic() + self._within_s
        try:
            addresses = self._addresses()
            if isinstance(addresses, str):
                self.why = f"{shown(self._host, self._port)}: {addresses}"
                return None
            return self._race(deque(in_turn(addresses)[:_MOST_ADDRESSES]))
        finally:
            for attempt in self._running:
                attempt.close()
            self._running.clear()

    def cancel(self) -> None:
        """End the race from another greenlet: nobody wins."""
        self._is_cancelled = True
        self._news.set()

    # ---- where the host is

    def _addresses(self) -> list[_Address] | str:
        literal = _literal(self._host, self._port)
        if literal is not None:
            return [literal]
        family = _family_of(self._source) if self._source else sockets.AF_UNSPEC
        key = (self._host, self._port, family)
        lookup = _under_way.get(key)
        if self._directory is not None:
            lookup = gevent.spawn(partial(_look_up_in, self._directory), key)
        elif lookup is None:
            lookup = _under_way[key] = gevent.spawn(_look_up, key)
        lookup.rawlink(self._is_looked_up)
        try:
            while not lookup.ready() and self._wait(inf):
                pass
        finally:
            lookup.unlink(self._is_looked_up)
        if not lookup.ready():
            return self._end("its address was not found")
        found = lookup.value
        if isinstance(found, str) and family in _KINDS:
            return f"{found} (asked for {_KINDS[family]}, as source_address is {self._source})"
        return found if found is not None else "its address was not found"

    def _is_looked_up(self, _lookup: object) -> None:
        self._news.set()

    # ---- the race

    def _race(self, waiting: deque[_Address]) -> Socket | None:
        next_at = 0.0
        while waiting or self._running:
            now = time.monotonic()
            if waiting and (now >= next_at or not self._running):
                is_under_way = self._start(waiting.popleft())
                next_at = now + _HEAD_START_S if is_under_way else now
            elif not self._wait(next_at if waiting else inf):
                break
            for attempt in [each for each in self._running if each.is_ready]:
                error = attempt.error()
                if not error:
                    return self._won(attempt)
                self._fail(attempt, os.strerror(error))
                next_at = 0.0
        self._explain()
        return None

    def _start(self, address: _Address) -> bool:
        try:
            attempt = _Attempt(address, self._news)
        except OSError as error:  # no descriptor is left, or the system lacks this family
            self._failures.append((str(address[1][0]), error.strerror or str(error)))
            return False
        self._running.append(attempt)
        try:
            attempt.start(self._source)
        except OSError as error:
            self._fail(attempt, error.strerror or str(error))
            return False
        return True

    def _won(self, attempt: "_Attempt") -> Socket:
        self._running.remove(attempt)
        return attempt.release()

    def _fail(self, attempt: "_Attempt", why: str) -> None:
        self._running.remove(attempt)
        attempt.close()
        self._failures.append((attempt.name, why))

    def _wait(self, until: float) -> bool:
        """Wait for news, at most until then; False when the race is over without a winner."""
        until = min(until, self._until)
        self._news.wait(max(0.0, until - time.monotonic()))
        self._news.clear()
        return not self._is_cancelled and time.monotonic() < self._until

    # ---- why nobody won

    def _explain(self) -> None:
        silence = self._end("no answer")
        found = [*self._failures, *((attempt.name, silence) for attempt in self._running)]
        where = shown(self._host, self._port)
        if len(found) == 1 and found[0][0] == self._host:
            self.why = f"{where}: {found[0][1]}"
            return
        named = [f"{name}: {why}" for name, why in found[:_MOST_NAMED]]
        if len(found) > _MOST_NAMED:
            named.append(f"and {len(found) - _MOST_NAMED} more addresses")
        self.why = f"{where}: {', '.join(named)}"

    def _end(self, why: str) -> str:
        return "given up" if self._is_cancelled else f"{why} within {self._within_s:g} s"


class _Attempt:
    """One address that is connected to; it owns its descriptor until `release()`."""

    __slots__ = ("_news", "_socket", "_watcher", "address", "is_ready", "name")

    def __init__(self, address: _Address, news: Event) -> None:
        family, self.address = address
        self.name = str(self.address[0])
        self.is_ready = False
        self._news = news
        self._socket = Socket(family, sockets.SOCK_STREAM)
        self._watcher = gevent.get_hub().loop.io(self._socket.fileno(), 2)

    def start(self, source: str | None) -> None:
        """Send the SYN; raises OSError."""
        self._socket.settimeout(0.0)
        if source is not None:
            self._bind(source)
        try:
            self._socket.connect(self.address)
        except BlockingIOError:
            self._watcher.start(self._on_writable)
        else:
            self._on_writable()

    def _bind(self, source: str) -> None:
        if _BIND_ADDRESS_NO_PORT is not None:
            with suppress(OSError):
                self._socket.setsockopt(sockets.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        try:
            self._socket.bind((source, 0))
        except OSError as error:
            why = error.strerror or error
            raise OSError(error.errno, f"{why} (source_address is {source})") from error

    def _on_writable(self) -> None:
        self.is_ready = True
        self._watcher.stop()
        self._news.set()

    def error(self) -> int:
        """Return the errno with which it ended, 0 for a connection."""
        error = self._socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_ERROR)
        return 0 if error in _OVER_ALREADY else error

    def release(self) -> Socket:
        """Give the socket away."""
        self._watcher.close()
        self._socket.settimeout(None)
        return self._socket

    def close(self) -> None:
        """Give up."""
        self._watcher.close()
        self._socket.close()


def in_turn(addresses: Iterable[_Address]) -> list[_Address]:
    """Return the addresses with the families taking turns, the first one's in front (RFC 8305)."""
    by_family: dict[sockets.AddressFamily, deque[_Address]] = {}
    for address in dict.fromkeys(addresses):
        by_family.setdefault(address[0], deque()).append(address)
    ordered = []
    while by_family:
        for family in list(by_family):
            ordered.append(by_family[family].popleft())
            if not by_family[family]:
                del by_family[family]
    return ordered


def _look_up(key: _Key) -> list[_Address] | str:
    host, port, family = key
    try:
        found = gevent.get_hub().resolver.getaddrinfo(host, port, family, sockets.SOCK_STREAM)
        return [(sockets.AddressFamily(each[0]), each[4]) for each in found]
    except UnicodeError:
        return "no name of a host"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        del _under_way[key]


def _look_up_in(directory: Directory, key: _Key) -> list[_Address] | str:
    host, port, family = key
    found = directory(host)
    if found.said is Said.FAILED:
        return f"its address was not found: {found.text}"
    known = [each for name in found.records if (each := _literal(name, port)) is not None]
    fit = [each for each in known if family in (each[0], sockets.AF_UNSPEC)]
    return fit or ("it has no address that can be used" if known else "it has no address")


def _literal(host: str, port: int) -> _Address | None:
    family = _family_of(host)
    try:
        sockets.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    return family, ((host, port) if family is sockets.AF_INET else (host, port, 0, 0))


def _family_of(address: str) -> sockets.AddressFamily:
    return sockets.AF_INET6 if ":" in address else sockets.AF_INET


def shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
