"""Requests: one HTTP request for one URL task, safely.

fetch() makes the request and those that redirects ask for, each checked as if it were the first,
and returns what came of it. All of it ends after `url_s`, however slowly the other end drips. It
raises nothing for what a URL, a resolver or a host does.

A task is done at least once, not exactly once: where no answer came after the request was out, it
may have been done, and is tried again by its schedule; the outcome says so. Within one try a
request is repeated only where a kept connection turns out to be closed before the first byte of
an answer, and only if asking twice is as good as once (RFC 9110 section 9.2.2), on a new one.

The status is the answer. What becomes of the body after a 2xx (too long, cut off, too slow) costs
the connection, not the task. The body is read up to `url_max_kb`, and thrown away.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import gevent
import gevent.socket

from geomail import log
from geomail.carriers.connections import Connection, Connections, Refused
from geomail.carriers.guard import Guard
from geomail.carriers.names import Names
from geomail.carriers.request import REDIRECTS, Request, request_of
from geomail.carriers.response import Response
from geomail.carriers.signature import key_of, signature_headers
from geomail.carriers.target import Target, target_of
from geomail.carriers.verdict import again_in_s, failed, judge_status, refused
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Outcome
from geomail.delivery.session.trust import said
from geomail.errors import PayloadError, ProtocolError
from geomail.job.kinds import HttpTask

_AT_ONCE = 65_536
_QUICKACK = getattr(gevent.socket, "TCP_QUICKACK", None)  # Linux


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try; `again_in_s`: when the host wants to be asked again, in seconds.

    `host`: whose doing it was, as HOST:PORT, redirects being followed; None: the task's own.
    """

    outcome: Outcome
    again_in_s: float | None = None
    body_bytes: int = 0
    host: str | None = None


class _Try:
    """How far one try has come, and the settings that it began with."""

    __slots__ = ("connections", "is_asked", "is_kept", "response", "settings", "target")

    def __init__(self, target: Target, settings: Settings, connections: Connections) -> None:
        self.target = target
        self.settings = settings
        self.connections = connections
        self.is_asked = False
        self.is_kept = False
        self.response: Response | None = None


class Requests:
    """Makes requests for all tasks of one process; each one blocks its greenlet."""

    def __init__(
        self, settings: Settings, *, pause_s: Callable[[str], float] = lambda _: 0.0
    ) -> None:
        """Prepare it; nothing is connected or looked up before it is needed.

        `pause_s`: for how long a HOST:PORT is left alone; no redirect is followed there.
        """
        self._pause_s = pause_s
        self._is_unsigned_told = False
        self._prepare(settings)

    def _prepare(self, settings: Settings) -> None:
        self._settings = settings
        self._key = key_of(settings.callback_secret) if settings.callback_secret else b""
        self._connections = Connections(
            Names(settings.nameservers),
            Guard(settings.url_hosts, settings.url_networks),
            most=settings.url_concurrency,
            connect_s=settings.url_connect_s,
        )

    def configure(self, settings: Settings) -> None:
        """Go on with these settings; what is under way ends with the old ones."""
        before = self._connections
        self._prepare(settings)
        before.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._connections.close()

    def reason_against(self, task: HttpTask) -> str | None:
        """Return why a task can't be done as things are, before anything is looked up."""
        try:
            return self._connections.guard.against(target_of(task.url))
        except PayloadError as error:
            return str(error)

    def key(self, task: HttpTask) -> str:
        """Return HOST:PORT of a task that nothing is said against."""
        return target_of(task.url).key

    def fetch(self, task: HttpTask, *, job_id: str, is_callback: bool = False) -> Answer:
        """Do a task once; returns what came of it, within `url_s`."""
        try:
            request = self._request(task, job_id, is_callback=is_callback)
        except PayloadError as error:
            return Answer(refused(str(error)))
        way = _Try(request.target, self._settings, self._connections)
        deadline = gevent.Timeout.start_new(self._settings.url_s)
        try:
            return self._follow(request, way, is_callback=is_callback)
        except gevent.Timeout as over:
            if over is not deadline:
                raise
            return _too_late(way)
        except (Refused, PayloadError) as error:
            return Answer(refused(str(error)))
        except (OSError, ProtocolError) as error:
            return _answered(way) or Answer(_failure(way, error), host=way.target.key)
        finally:
            deadline.close()

    def _follow(self, request: Request, way: _Try, *, is_callback: bool) -> Answer:
        """Make the request, and those that redirects ask for."""
        most, first = way.settings.url_redirects, request.target.key
        for hops in range(most + 1):
            target = request.target
            if reason := way.connections.guard.against(target):
                return Answer(refused(f"redirect refused: {reason}" if hops else reason))
            if target.key != first and (pause_s := self._pause_s(target.key)):
                text = f"redirected to {target.key}, which is left alone since it failed"
                return Answer(failed(text, Blame.MESSAGE), pause_s)
            way.target = target
            response = _exchange(request, way)
            location = response.field("location")
            if response.status not in REDIRECTS or location is None:
                return _answer(response, way)
            try:
                request = request.redirected(response.status, location, is_callback=is_callback)
            except PayloadError as error:
                return Answer(refused(f"redirect refused: {error}", response.status))
        return Answer(refused(f"more than {most} redirects", response.status))

    def _request(self, task: HttpTask, job_id: str, *, is_callback: bool) -> Request:
        request = request_of(task)
        if not is_callback:
            return request
        return replace(request, headers=(*request.headers, *self._marks(job_id, request.body)))

    def _marks(self, job_id: str, body: bytes | None) -> list[tuple[str, str]]:
        """Return the headers of a callback; without a key they only tell a repetition."""
        if not self._key:
            self._tell_unsigned()
            return [("webhook-id", job_id)]
        return signature_headers(self._key, job_id, body or b"", now_s=int(time.time()))

    def _tell_unsigned(self) -> None:
        if not self._is_unsigned_told:
            self._is_unsigned_told = True
            log.warning("callbacks_unsigned", why="callback_secret is not set")


def _exchange(request: Request, way: _Try) -> Response:
    """Send one request and read its response; raises OSError, ProtocolError or Refused."""
    connection = way.connections.kept(request.target)
    if connection is not None:
        try:
            return _talk(connection, request, way)
        except (OSError, ProtocolError):
            response = way.response
            if not request.is_idempotent or (response is not None and response.is_begun):
                raise
    way.is_asked = False
    return _talk(way.connections.connect(request.target), request, way)


def _talk(connection: Connection, request: Request, way: _Try) -> Response:
    response = way.response = Response(connection.http, most_body=way.settings.url_max_kb * 1000)
    is_kept = False
    try:
        head, body = request.written(connection.http)
        way.is_asked, way.is_kept = True, connection.is_used
        with suppress(ConnectionError):  # it may have answered before it hung up
            _send(connection, head, body)
            _acknowledge_at_once(connection)
        while not response.is_done:
            response.feed(connection.socket.recv(_AT_ONCE))
            if not response.is_done:
                gevent.sleep(0)  # a flood of tiny chunks: 60 ms a piece, and others have their turn
        is_kept = response.is_kept_open
    finally:
        if is_kept:
            way.connections.keep(connection)
        else:
            connection.close()
    return response


def _too_late(way: _Try) -> Answer:
    if answered := _answered(way):
        return answered
    text = f"{way.target.key}: no answer within {way.settings.url_s:g} s"
    if not way.is_asked:
        return Answer(failed(text), host=way.target.key)
    return Answer(failed(f"{text}; it may have been done", Blame.BOTH), host=way.target.key)


def _send(connection: Connection, head: bytes, body: bytes) -> None:
    if len(body) > _AT_ONCE:  # what is large is not copied
        connection.socket.sendall(head)
        connection.socket.sendall(body)
    else:
        connection.socket.sendall(head + body)


def _acknowledge_at_once(connection: Connection) -> None:
    """Have the kernel acknowledge what comes without delay.

    A server that writes the head and the body apart, with Nagle's algorithm on, would wait for the
    acknowledgement of the first: 40 ms a request.
    """
    if _QUICKACK is not None:
        connection.socket.setsockopt(gevent.socket.IPPROTO_TCP, _QUICKACK, 1)


def _answer(response: Response, way: _Try) -> Answer:
    outcome = judge_status(response.status, response.reason)
    again_s = again_in_s(response.field("retry-after"), now_s=time.time())
    return Answer(outcome, again_s, response.body_bytes, way.target.key)


def _answered(way: _Try) -> Answer | None:
    """Return what a status that has come says, although its body did not come to an end."""
    response = way.response
    if response is None or not response.status or response.status in REDIRECTS:
        return None
    return _answer(response, way)


def _failure(way: _Try, error: Exception) -> Outcome:
    text = said(error) if isinstance(error, OSError) else str(error)
    if not way.is_asked:
        return failed(text)
    is_begun = way.response is not None and way.response.is_begun
    blame = Blame.CONNECTION if way.is_kept and not is_begun else Blame.BOTH
    return failed(f"{way.target.key}: {text}; it may have been done", blame)
