"""Puts jobs on the queue, out of other people's programs.

    client = geomail.Client("redis://127.0.0.1:6379")
    job_id = client.send(to="ann@example.org", subject="Hello", text="It works.")
    client.outcome(job_id)

A keyword is a key of a payload (`from_` and `class_` for the two that Python keeps to itself).
Attachments and `raw` may be bytes, times may be datetimes with a zone. One Client serves any number
of threads and, where gevent has patched, of greenlets; a process that was forked gets connections
of its own. It blocks: from asyncio it is called by `asyncio.to_thread`.

Promised: when `send` returns, the queue answers for the job, which is there once; nothing is pushed
that could only become a dead letter, PayloadError says why. RedisAway after `timeout_s`, more or
less, when Redis does not take it; the job may be there then, if its answer was what got lost.
RedisUnusable when waiting is of no use. Not promised: that a relay, a host or a task of that name
is known to geomail.
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Literal, Self, TypedDict, Unpack

from geomail import job, spelling
from geomail.errors import GeomailError, NotAllSent, PayloadError, RedisAway
from geomail.queue import Connection, JobState, Link
from geomail.queue import door as doors
from geomail.queue.keys import Keys

Mailboxes = str | Sequence[str | Mapping[str, str]] | Mapping[str, str | None]
Moment = datetime | str | float

_MOST_CONNECTIONS = 10
_PIECE_JOBS, _PIECE_BYTES = 500, 1_000_000
_TOLD, _UNTOLD = JobState(told=True), JobState()
_MOMENTS = ("send_at", "expires_at")
_BYTES = (bytes, bytearray, memoryview)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Attachment(TypedDict, total=False):
    """A file beside the text; with a `cid` an inline one, which the HTML shows as `cid:…`."""

    filename: str | None
    content: bytes | str
    type: str | None
    cid: str | None


class Fields(TypedDict, total=False):
    """What a job may say: the keys of a payload, which the README explains."""

    to: Mailboxes
    cc: Mailboxes
    bcc: Mailboxes
    reply_to: Mailboxes
    from_: str | Mapping[str, str]
    subject: str
    text: str | None
    html: str | bool | None
    body: str
    attachments: Sequence[Attachment]
    return_path: str
    mail_from: str
    rcpt_to: str | Sequence[str]
    raw: bytes | str
    relay: str
    dsn: Mapping[str, str | Sequence[str]]
    url: str
    method: str
    param: Mapping[str, object]
    headers: Mapping[str, str | Sequence[str]]
    json: object
    worker: str
    class_: str
    params: object
    id: str
    dedupe_key: str
    send_at: Moment | None
    expires_at: Moment | None
    retries: int
    callback_url: str


_KNOWN = frozenset(
    (
        *(name.removesuffix("_") for name in Fields.__annotations__),
        *("from_email", "to_email", "title", "content"),  # a map from elsewhere may have them
    )
)


class Client:
    """A producer of one queue."""

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379",
        queue: str = "queue:email",
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """Prepare; nobody is connected to before the first call.

        `url`: as `geomail --redis`. `timeout_s`: how long a call waits for Redis, more or less.
        Raises RedisUnusable for a URL and ConfigError for a name that can't be used.
        """
        self._place = (url, queue, timeout_s)
        self._lines = _Lines(*self._place)

    def send(self, **fields: Unpack[Fields]) -> str:
        """Put one job on the queue, and return its id.

        Raises PayloadError for what can't be sent, RedisAway and RedisUnusable.
        """
        [job_id] = self._push([_payload(fields)], _TOLD)
        return job_id

    def send_many(self, jobs: Iterable[Mapping[str, Any]], *, told: bool = True) -> list[str]:
        """Put any number of jobs on the queue, in pieces as they come; return their ids, in order.

        Each is a map of what `send` takes. Without `told`, nobody will ask for their `outcome`,
        which saves Redis some 200 bytes each for a day or two.

        Raises NotAllSent at the first that can't be sent: those before it are on the queue, with
        the ids that it carries, and none after it. Likewise for what `jobs` raises itself, which
        comes through as it is.
        """
        ids: list[str] = []
        piece: list[bytes] = []
        try:
            for piece in _pieces(map(_payload, jobs)):
                ids += self._push(piece, _TOLD if told else _UNTOLD)
        except RedisAway as error:
            text = f"{error}; {len(ids)} jobs are on the queue, the next {len(piece)} may be"
            raise NotAllSent(text, ids) from error
        except GeomailError as error:
            raise NotAllSent(f"job {len(ids)}, counted from 0: {error}", ids) from error
        return ids

    def outcome(self, job_id: str) -> dict[str, Any] | None:
        """Say what became of a job; None when nothing is known of it (any more: a day or two).

        `outcome` is waiting, delayed (`due_ms`), delivered, dead (`reason`), duplicate or dropped,
        with `at_ms`, `tries`, `last` as far as known; `parts`: the ends of a job that was split.
        """
        lines = self._own_lines()
        with lines.one() as line:
            return doors.outcome(line.connection, lines.keys, job_id)

    def pressure(self) -> Literal["ok", "high"]:
        """Say whether more waits than geomail's `high_water`: then send what can wait later."""
        lines = self._own_lines()
        with lines.one() as line:
            return "high" if line.connection.call("GET", lines.keys.pressure) == b"high" else "ok"

    def close(self) -> None:
        """Hang up what is idle; the next call connects again."""
        self._lines.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Hang up."""
        self.close()

    def __repr__(self) -> str:
        """Say where it pushes to, without a password."""
        return f"<geomail.Client {self._place[1]} at {self._lines.address}>"

    def _push(self, payloads: Sequence[bytes], state: JobState) -> list[str]:
        with self._own_lines().one() as line:
            return line.door.submit(payloads, state)

    def _own_lines(self) -> "_Lines":
        # A door's name in two processes would make the second one's jobs repetitions.
        if self._lines.pid != os.getpid():
            self._lines = _Lines(*self._place)
        return self._lines


def attachment(
    path: str | os.PathLike[str],
    *,
    filename: str | None = None,
    type: str | None = None,  # noqa: A002  the payload's word
    cid: str | None = None,
) -> Attachment:
    """Read a file of this machine, for `attachments`; its name and type follow from the path.

    Raises OSError when it can't be read.
    """
    place = Path(path)
    content = place.read_bytes()
    return {"filename": filename or place.name, "content": content, "type": type, "cid": cid}


class _Line:
    """A connection, and the door that uses it."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self.connection = connection
        self.door = doors.Door(connection, keys)


class _Lines:
    """The connections of one process: as many as are used at a time, ten at most."""

    def __init__(self, url: str, queue: str, timeout_s: float) -> None:
        third_s = timeout_s / 3  # to connect, to be answered, and to try again between them
        self._link = Link(
            url, connect_timeout_s=third_s, reply_timeout_s=third_s, patience_s=third_s
        )
        self.address = self._link.address
        self.keys = Keys(queue)
        self.pid = os.getpid()
        self._timeout_s = timeout_s
        self._places = BoundedSemaphore(_MOST_CONNECTIONS)
        self._idle: list[_Line] = []

    @contextmanager
    def one(self) -> Iterator[_Line]:
        """Lend a connection that nobody else uses meanwhile."""
        if not self._places.acquire(timeout=self._timeout_s):
            raise RedisAway(
                f"Redis at {self.address} keeps {_MOST_CONNECTIONS} calls waiting: none has ended"
                f" within {self._timeout_s:g} s"
            )
        try:
            line = self._take()
            try:
                yield line
            finally:
                self._idle.append(line)
        finally:
            self._places.release()

    def close(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().connection.close()

    def _take(self) -> _Line:
        try:
            return self._idle.pop()  # in one step: another thread may be at it
        except IndexError:
            connection = self._link.open("client", self.keys.list)
            connection.is_new = True  # a wrong password is said, not waited for
            connection.call("EVAL", "return 1", 0)  # of a long command Redis would not say NOAUTH
            return _Line(connection, self.keys)


def _pieces(payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut into pieces for one push each; what came before an error is a piece too."""
    piece: list[bytes] = []
    size = 0
    try:
        for payload in payloads:
            if piece and (len(piece) >= _PIECE_JOBS or size + len(payload) > _PIECE_BYTES):
                yield piece
                piece, size = [], 0
            piece.append(payload)
            size += len(payload)
    except Exception:
        if piece:
            yield piece
        raise
    if piece:
        yield piece


def _payload(fields: Mapping[str, Any]) -> bytes:
    """Return the bytes of a job. Raises PayloadError when they can never become one."""
    keys = {str(key).removesuffix("_"): _plain(key, value) for key, value in fields.items()}
    for key in keys.keys() - _KNOWN:
        raise PayloadError(f"{key}: no key of a job{spelling.hint(key, _KNOWN)}")
    try:
        payload = _encode(keys).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _unfit(keys, error) from None
    job.decode(payload)
    return payload


def _plain(key: str, value: Any) -> Any:
    """Return what JSON can say of a value: base64 for bytes, ISO 8601 for a time."""
    if key == "raw" and isinstance(value, _BYTES):
        return b64encode(value).decode()
    if key == "attachments" and isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain_attachment(entry) for entry in value]
    if key in _MOMENTS and isinstance(value, datetime):
        if value.tzinfo is None:
            raise PayloadError(f"{key}: a datetime with a time zone expected, {value} has none")
        return value.isoformat()
    return value


def _plain_attachment(entry: object) -> object:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), _BYTES):
        return entry
    return {**entry, "content": b64encode(entry["content"]).decode()}


def _unfit(keys: Mapping[str, Any], error: Exception) -> PayloadError:
    """Return the error for what JSON can't say, with the key under which it stands."""
    for key, value in keys.items():
        try:
            _encode(value).encode()
        except (TypeError, ValueError, RecursionError) as fault:
            return PayloadError(f"{key}: {fault}")
    return PayloadError(str(error))
