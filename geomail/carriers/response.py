"""An HTTP/1.1 response, read as its bytes come, by what matters to a task.

h11 reads it (RFC 9112). What is taken from it is the status, where a redirect leads, when to come
again, and whether the connection can carry another request. The body is counted, framing included,
and thrown away: nothing is held but what h11 can't read yet, 64 kB and one piece at most. Interim
responses (1xx) are passed over; they share that limit with the head.

Once there is a status, it stands: a body that is too long, cut off or garbled spoils the connection
for another request, and no more; so does a head with two framings (RFC 9112 section 6.3). What
comes before that and is no response raises ProtocolError.

h11 takes quadratic time over white space in front of what it refuses: 64 kB of blanks in a header
cost 12 s, in which nothing else runs. So it gets 1 kB of white space at a stretch, line ends
included, because it joins folded lines; a longer stretch is the end of a response.
"""

import re

import h11

from geomail.errors import ProtocolError

_MOST_HEAD = 65_536
_MOST_REASON = 100
_MOST_BLANK = 1_024
_BLANK = re.compile(rb"\s{%d}" % _MOST_BLANK)
_BEGINNING = b"HTTP/"
_WANTED = frozenset((b"location", b"retry-after"))
_FRAMINGS = frozenset((b"content-length", b"transfer-encoding"))


def conversation() -> h11.Connection:
    """Return the state of a connection that nothing has been sent on."""
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)


class Response:
    """The response to the request that was written last; `status` is 0 until it has come."""

    __slots__ = (
        *("_fields", "_head_bytes", "_http", "_is_spoilt", "_most_body", "_tail"),
        *("body_bytes", "is_done", "reason", "status"),
    )

    def __init__(self, http: h11.Connection, *, most_body: int = 1 << 20) -> None:
        """Await it on a connection; not more than `most_body` bytes and a piece are read."""
        self._http = http
        self._most_body = most_body
        self._head_bytes = 0  # interim responses included
        self._tail = b""
        self._fields: dict[bytes, bytes] = {}
        self.status = 0
        self.reason = ""
        self.body_bytes = 0
        self.is_done = False
        self._is_spoilt = False

    @property
    def is_begun(self) -> bool:
        """True when any byte has come."""
        return self._head_bytes > 0

    @property
    def is_kept_open(self) -> bool:
        """True when all was read, nothing came that nobody asked for, and both sides go on."""
        http = self._http
        is_over = http.our_state is http.their_state is h11.DONE
        return is_over and not self._is_spoilt and http.trailing_data == (b"", False)

    def field(self, name: str) -> str | None:
        """Return the value of one of the few headers that are kept, None without it."""
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def feed(self, data: bytes) -> None:
        """Take bytes as they came, b"" for the end of the connection; raises ProtocolError."""
        is_first = not self.is_begun
        if self.status:
            self.body_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            if is_first and not _BEGINNING.startswith(data[: len(_BEGINNING)]):
                raise h11.RemoteProtocolError("illegal status line")
            self._read(data)
        except h11.RemoteProtocolError as error:
            if not self.status:
                raise ProtocolError(self._why(error, is_end=not data)) from error
            self._is_spoilt = self.is_done = True

    def _read(self, data: bytes) -> None:
        end = self._end_of_blank(data)
        self._http.receive_data(data[:end])
        while not self.is_done and (event := self._http.next_event()) is not h11.NEED_DATA:
            if type(event) is h11.Response:
                self._take(event)
            self.is_done = type(event) is h11.EndOfMessage
        if end is not None:
            raise h11.RemoteProtocolError("white space without end")
        if not self.status and self._head_bytes > _MOST_HEAD:
            raise h11.RemoteProtocolError("endless head")
        if self.body_bytes > self._most_body and not self.is_done:
            self._is_spoilt = self.is_done = True

    def _end_of_blank(self, data: bytes) -> int | None:
        """Return how far to read where the white space has no end."""
        seen = self._tail + data
        found = _BLANK.search(seen)
        end = found and found.end() - len(self._tail)
        self._tail = seen[1 - _MOST_BLANK :]
        return end

    def _take(self, head: h11.Response) -> None:
        said = bytes(head.reason).decode("latin-1")
        self.reason = "".join(each for each in said if each.isprintable())[:_MOST_REASON].strip()
        fields = dict(head.headers)
        self._fields = {name: fields[name] for name in _WANTED & fields.keys()}
        self._is_spoilt = fields.keys() >= _FRAMINGS
        self.body_bytes = len(self._http.trailing_data[0])
        self.status = head.status_code

    def _why(self, error: h11.RemoteProtocolError, *, is_end: bool) -> str:
        if self._head_bytes > _MOST_HEAD:
            return "its headers are longer than 64 kB"
        if is_end:
            return (
                "the connection ended within the answer" if self.is_begun else "closed unanswered"
            )
        # What the host said itself stays out of logs and dead letters.
        return f"what the host says is no HTTP/1.1: {str(error).partition(': bytearray')[0]}"
