"""Connections to Redis: how they are opened, kept, and repaired.

A `Link` is a Redis, whatever its form (`address`, `topology`). `Link.open(role, key)` gives a
dedicated `Connection`, one a role (taker, waker, settler, beat, desk), never a pool: a pool polls
the socket at each check-out, and one greenlet's unread reply must never answer another's command.
Calls on one connection follow each other; a second greenlet waits.

A call is re-sent, the same bytes, until Redis answers: whatever is sent here may run twice. What
passes (no answer, LOADING, READONLY, fail-over, disk or memory full, …) is waited for, for ever,
with jitter and loudly. What does not pass (WRONGTYPE, NOPERM, an error in a script) raises
RedisUnusable, unless the call is patient: an outcome or a beat is never given up, only complained
about. A connection is closed on every exception.

Not promised: that a call ends. Nobody may kill a greenlet, or put gevent.Timeout around it, inside
a call; `Connection.interrupt` is the way to end a wait.
"""

import copy
import hashlib
import math
import random
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import resources
from threading import Lock
from typing import Any, NoReturn, cast

import hiredis
from redis import exceptions as refusals
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from geomail.errors import RedisAway, RedisUnusable
from geomail.queue.address import WHAT_A_URL_IS, Node, read_url
from geomail.queue.soundness import judge
from geomail.queue.topology import (
    REDIS_ERRORS,
    Cluster,
    NotFoundError,
    OneServer,
    Place,
    Seeds,
    Sentinels,
    is_mistake,
    text_of,
)

Word = bytes | str | int | float

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 2.0
_LONGEST_PAUSE_OF_A_MOVE_S = 0.5  # whoever takes over is ready long before the old one is back
_READ_BLOCK = 256 * 1024
_EMPTY_REPLY = b"+\r\n"
_ASK_WITHIN_S = 2.0  # a sentinel, or any node: there are others to be asked

# By substring: 6.2 wraps an error inside a script in its own text.
_PASSES = re.compile(
    r"\b(READONLY|LOADING|MASTERDOWN|UNBLOCKED|CLUSTERDOWN|MOVED|ASK|TRYAGAIN|BUSY|MISCONF|NOREPLICAS"
    r"|NOSCRIPT|OOM)\b|max number of clients"
)
_RIGHTS = (
    "this user may not do that: allow it scripts, and all commands on the queue's keys and on"
    " {geomail:*"
)
_ADVICE = {
    "NOAUTH": "it wants a password: put one into the URL, redis://:password@host",
    "WRONGPASS": "user or password are wrong",
    "NOPERM": _RIGHTS,
    "ACL failure": _RIGHTS,  # 6.2, of a command in a script
    "The user executing the script can't": _RIGHTS,  # 7, the same
    "DENIED": "it runs in protected mode: set a password, or bind it to this host",
    "CERTIFICATE_VERIFY_FAILED": "its certificate can't be verified: name who signed it,"
    " ?ssl_ca_certs=FILE, and a host that it is made out for",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: use redis://",
    "unknown command": "it is not what the URL says",
    "cluster support disabled": "it is no cluster: use redis://",
    "called without any password configured": "it has no password: leave it out of the URL",
    "WRONGTYPE": "some other program uses that key: choose another queue name, or key there",
}
# Of a first connection: what a server that speaks the other of TLS and plain text does with it.
_PLAIN_HUNG_UP = re.compile(r"Connection reset by peer|Connection closed by server|Broken pipe")
_TLS_WAITS = re.compile(r"Timeout connecting|timed out|UNEXPECTED_EOF")
_IF_TLS = "if that Redis speaks TLS, write rediss: in place of redis:"
_IF_PLAIN = "if that Redis does not speak TLS, write redis: in place of rediss:"
pack: Callable[[Sequence[Word]], bytes] = cast("Any", hiredis.pack_command)  # it says: one word


class Script:
    """One verb of the queue, with the shared part in front."""

    def __init__(self, verb: str) -> None:
        """Read `<verb>.lua` from the package."""
        folder = resources.files("geomail.queue")
        shared = folder.joinpath("job.lua").read_bytes()
        self.source = shared + folder.joinpath(f"{verb}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


class Link:
    """A Redis: how it is reached, and the news of whether it answers."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float = 5.0,
        reply_timeout_s: float = 5.0,
        patience_s: float = math.inf,
    ) -> None:
        """Read the URL; raises RedisUnusable, without repeating it, when it can't be used.

        Nobody is connected to before the first call of a connection. `patience_s`: how long a call
        may go unanswered before it is given up with RedisAway, and nothing logged; else never.
        """
        self.patience_s = patience_s
        self.reply_timeout_s = reply_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._address = read_url(url)
        self.address = self._address.label
        self._topology = self._find_topology()
        self._make()

    def open(self, role: str, key: bytes = b"") -> "Connection":
        """Return a dedicated connection to the server that holds `key`, wherever that moves.

        It connects when it is first used. In a cluster, all keys of a call must lie in the slot of
        `key`.
        """
        return Connection(self, role, self._topology.place_of(key))

    def patient(self) -> "Link":
        """Return the same Redis, for those who never give up."""
        other = copy.copy(self)
        other.patience_s = math.inf
        return other

    def place_of(self, key: bytes) -> Place:
        """Return where `key` lies: connections to one place may do for all keys there."""
        return self._topology.place_of(key)

    def probe(self, *, warns: bool = True) -> None:
        """Wait until Redis answers, and look whether it can be trusted with mail.

        Raises RedisUnusable when it refuses us, or is no Redis, or too old. Warns, unless told not
        to, when it may drop keys, or keeps nothing on disk. Of a cluster, each master is looked at.
        """
        first = self.open("probe")
        try:
            first.is_new = True
            first.call("EVAL", "return 1", 0)
            places = self._topology.places(first.call)
        finally:
            first.close()
        for place in places:
            self._probe_one(Connection(self, "probe", place), warns=warns)

    def doubt_of_tls(self, text: str) -> str | None:
        """Return advice when a first connection failed as it does where the URL is wrong on TLS."""
        wire = self._address.wire
        if issubclass(wire, UnixDomainSocketConnection):
            return None
        if issubclass(wire, SSLConnection):
            return _IF_PLAIN if _TLS_WAITS.search(text) else None
        return _IF_TLS if _PLAIN_HUNG_UP.search(text) else None

    def _probe_one(self, connection: "Connection", *, warns: bool) -> None:
        try:
            connection.is_new = True
            connection.call("EVAL", "return 1", 0)
            is_single = self._address.kind == "single"
            judge(connection.call, self.address, is_single=is_single, warns=warns)
        finally:
            connection.close()

    def _find_topology(self) -> OneServer | Cluster:
        address = self._address
        if address.kind == "single":
            return OneServer(address)
        seeds = Seeds(address, self._make_seed)
        return (Sentinels if address.kind == "sentinel" else Cluster)(address, seeds)

    def _make_seed(self, node: Node) -> Any:
        within_s = min(_ASK_WITHIN_S, self._connect_timeout_s)
        host, port = node
        return self._wire(
            self._address.seed_options | {"host": host, "port": port},
            connect_timeout_s=within_s,
            reply_timeout_s=within_s,
        )

    def _make(self) -> Any:
        return self._wire(
            self._address.options,
            connect_timeout_s=self._connect_timeout_s,
            reply_timeout_s=self.reply_timeout_s,
        )

    def _wire(
        self, options: dict[str, Any], *, connect_timeout_s: float, reply_timeout_s: float
    ) -> Any:
        ours = {
            "protocol": 2,
            "socket_timeout": reply_timeout_s,
            "socket_connect_timeout": connect_timeout_s,
            "socket_read_size": _READ_BLOCK,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "retry_on_error": [],
            "health_check_interval": 0,
            "decode_responses": False,
            "client_name": None,
            "driver_info": None,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        try:
            return self._address.wire(**(options | ours))
        except (TypeError, ValueError, refusals.RedisError) as error:
            raise RedisUnusable(
                f"the Redis URL has an option that can't be used: expected {WHAT_A_URL_IS}"
            ) from error


class Connection:
    """One dedicated connection, which repairs itself and repeats what was not answered."""

    def __init__(self, link: Link, role: str, place: Place) -> None:
        """Prepare a connection of `link` to `place`; nothing is sent yet."""
        self.role = role
        self.is_new = False  # has never been answered: then a refused login is the caller's mistake
        self._link = link
        self._place = place
        self._node: Node | None = None
        self._wire = link._make()
        self._turn = Lock()
        self._interrupted = False

    def call(self, *command: Word, patient: bool = False) -> Any:
        """Send one command until it is answered, and return the reply.

        Raises RedisUnusable for a refusal that waiting does not mend, unless `patient`.
        """
        return self._repeat(pack(command), None, patient)

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Iterable[Word],
        *,
        patient: bool = False,
    ) -> Any:
        """Run a script, loading it where it is missing, until it is answered; return the reply."""
        packed = pack(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        return self._repeat(packed, script, patient)

    def atomically(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
        """Run commands as one MULTI; they must be able to run twice. Return their replies."""
        packed = [pack(("MULTI",))]
        packed += [pack(command) for command in commands]
        packed.append(pack(("EXEC",)))
        replies: list[Any] = self._repeat(b"".join(packed), None, False, len(commands) + 1)
        for reply in replies:
            if isinstance(reply, refusals.RedisError):
                self._refuse(reply)
        return replies

    def try_atomically(self, packed: bytes, count: int) -> list[Any] | None:
        """Send a packed MULTI once; its replies, [] when it is refused, None if nobody knows."""
        with self._turn:
            try:
                self._reach()
                self._wire.send_packed_command([packed], check_health=False)
                replies = [self._reply_or_refusal() for _ in range(count + 2)][-1]
            except REDIS_ERRORS as error:
                self._wire.disconnect()
                self._fail(error, patient=True)
                return None
            except BaseException:
                self._wire.disconnect()
                raise
            self._let_go()
            return replies if isinstance(replies, list) else []

    def _reply_or_refusal(self) -> Any:
        try:
            return self._wire.read_response()
        except refusals.ResponseError as error:
            return error

    def attempt(self, *command: Word, timeout_s: float) -> Any:
        """Send one command once and wait `timeout_s` for its reply.

        Returns None when there is none, or only a refusal that passes; then a short pause has been
        made.
        """
        with self._turn:
            self._interrupted = False
            try:
                self._reach()
                self._wire.send_packed_command([pack(command)], check_health=False)
                reply = self._wire.read_response(timeout=timeout_s)
            except REDIS_ERRORS as error:
                self._wire.disconnect()
                if not self._interrupted:
                    self._fail(error, patient=False)
                    time.sleep(_jitter(0.2))
                return None
            except BaseException:
                self._wire.disconnect()
                raise
            self._let_go()
            return reply

    def interrupt(self) -> None:
        """End the wait of another greenlet or thread in `attempt`."""
        self._interrupted = True
        sock = self._wire._sock
        if sock is not None:
            with suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up; the next call connects again."""
        with self._turn:
            self._wire.disconnect()

    def _repeat(self, packed: bytes, script: Script | None, patient: bool, extra: int = 0) -> Any:
        pause_s = _FIRST_PAUSE_S
        longest_s = _LONGEST_PAUSE_OF_A_MOVE_S if self._place.can_move else _LONGEST_PAUSE_S
        with self._turn:
            began = time.monotonic()
            while True:
                try:
                    reply = self._exchange(packed, script, extra)
                except REDIS_ERRORS as error:
                    self._wire.disconnect()
                    self._fail(error, patient=patient)
                    if time.monotonic() - began >= self._link.patience_s:
                        self._give_up(error)
                except BaseException:
                    self._wire.disconnect()
                    raise
                else:
                    self.is_new = False
                    self._let_go()
                    if self._place.news.away_since is not None:
                        self._place.news.rejoice()
                    return reply
                time.sleep(_jitter(pause_s))
                pause_s = min(2 * pause_s, longest_s)

    def _reach(self) -> None:
        """Be connected to where the place is now."""
        wire, place = self._wire, self._place
        if wire._sock is not None and self._node == place.node:
            return
        node = place.locate()
        if node != self._node:
            wire.disconnect()
            self._node = node
        if wire._sock is None:
            if node is not None:
                wire.host, wire.port = node
            wire.connect_check_health(check_health=False)
            place.examine(wire)

    def _exchange(self, packed: bytes, script: Script | None, extra: int) -> Any:
        self._reach()
        self._wire.send_packed_command([packed], check_health=False)
        for _ in range(extra):
            self._wire.read_response()
        try:
            return self._wire.read_response()
        except refusals.NoScriptError:
            if script is None:
                raise
        load = pack(("SCRIPT", "LOAD", script.source))
        self._wire.send_packed_command([load, packed], check_health=False)
        self._wire.read_response()
        return self._wire.read_response()

    def _let_go(self) -> None:
        """Have hiredis free what a large reply took: it does so when it is fed the next one."""
        reader = self._wire._parser._reader
        if not reader.has_data():
            reader.feed(_EMPTY_REPLY)  # 0.1 us; else 10 MB stay until there is more to take
            reader.gets()

    def _fail(self, error: Exception, *, patient: bool) -> None:
        self._place.doubt(self._node, error)
        if not patient and self._is_final(error):
            self._refuse(error)
        if self._link.patience_s < math.inf:
            return  # whoever waits is told at the end
        advice = self._link.doubt_of_tls(text_of(error)) if self.is_new else None
        self._place.news.complain(self.role, text_of(error), advice)

    def _give_up(self, error: Exception) -> NoReturn:
        advice = self._link.doubt_of_tls(text_of(error)) if self.is_new else None
        said = f"{text_of(error)}; {advice}" if advice else text_of(error)
        raise RedisAway(
            f"Redis at {self._link.address} did not serve us within"
            f" {self._link.patience_s:.3g} s: {said}"
        ) from error

    def _is_final(self, error: Exception) -> bool:
        if _PASSES.search(text_of(error)):
            return False
        if is_mistake(error):
            return self.is_new
        return isinstance(error, refusals.ResponseError | refusals.DataError)

    def _refuse(self, error: Exception) -> NoReturn:
        text = text_of(error)
        advice = next((advice for code, advice in _ADVICE.items() if code in text), None)
        if isinstance(error, NotFoundError) and advice in (_ADVICE["NOAUTH"], _ADVICE["WRONGPASS"]):
            advice = "sentinels have a login of their own: ?sentinel_username=…&sentinel_password=…"
        elif isinstance(error, refusals.InvalidResponse):
            advice = "what answers there is no Redis"
        words = f"Redis at {self._link.address} refuses: {advice or text}"
        raise RedisUnusable(f"{words} ({text})" if advice else words) from error


def _jitter(longest_s: float) -> float:
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311  nothing to guess here
