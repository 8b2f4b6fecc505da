"""An HTTP/1.1 response, read as its bytes come (RFC 9112), by what matters to a task.

That is the status, where a redirect leads, when to come again, and whether the connection can
carry another request. The body is counted and thrown away, so that nothing is held but a head of
at most 64 kB, or one line of a chunk. Interim responses (1xx) are passed over; they share that
limit with the head.

    phase     what it awaits                          where it goes
    HEAD      the end of a head                       HEAD after 1xx, else by its framing
    COUNTED   as many bytes as Content-Length said    DONE
    SIZE      the line in front of a chunk            CHUNK, or TRAILER in front of the last
    CHUNK     the chunk and its line end              SIZE
    TRAILER   lines, the last one empty               DONE
    TO_END    the end of the connection               DONE

Once there is a status, it stands: a body that is too long, cut off or garbled is `is_cut`, and the
connection is used no more. What comes before that and is no response raises ProtocolError. Every
byte is looked at a fixed number of times, however the bytes are split.
"""

import re
from collections.abc import Callable
from enum import Enum

from geomail.errors import ProtocolError

_MOST_HEAD = 65_536
_MOST_LINE = 1_024
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?")
_BEGINNING = b"HTTP/1."
_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(rb"(\d{1,15})(?:[ \t]*,[ \t]*\1)*")
_WANTED = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"location", b"retry-after")
)
_MOST_REASON = 100


class Phase(Enum):
    """What is awaited next."""

    HEAD = "head"
    COUNTED = "counted"
    SIZE = "size"
    CHUNK = "chunk"
    TRAILER = "trailer"
    TO_END = "to end"
    DONE = "done"


class Response:
    """The response to one request; `status` is 0 until it has come."""

    __slots__ = (
        "_buffer",
        "_fields",
        "_is_for_head",
        "_left",
        "_most_body",
        "_passed",
        "_searched",
        "body_bytes",
        "is_cut",
        "is_kept_open",
        "phase",
        "reason",
        "status",
    )

    def __init__(self, *, is_for_head: bool = False, most_body: int = 1 << 20) -> None:
        """Await it; `is_for_head`: the request was HEAD, so that no body follows."""
        self._is_for_head = is_for_head
        self._most_body = most_body
        self._buffer = bytearray()
        self._searched = 0
        self._passed = 0  # bytes of interim responses
        self._left = 0
        self._fields: dict[bytes, bytes] = {}
        self.phase = Phase.HEAD
        self.status = 0
        self.reason = ""
        self.body_bytes = 0
        self.is_cut = False
        self.is_kept_open = False

    @property
    def is_done(self) -> bool:
        """True when all of it has been read, or all of it that will be."""
        return self.phase is Phase.DONE

    @property
    def is_begun(self) -> bool:
        """True when any byte has come."""
        return bool(self.status or self._passed or self._buffer)

    def field(self, name: str) -> str | None:
        """Return the value of one of the few headers that are kept, None without it."""
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def feed(self, data: bytes) -> None:
        """Take bytes as they came, b"" for the end of the connection; raises ProtocolError."""
        if not data:
            self._end()
            return
        if self.phase is Phase.DONE:
            self.is_kept_open = False  # nobody asked for more
            return
        self._buffer += data
        while self._buffer and _STEPS[self.phase](self):
            pass
        if self.body_bytes > self._most_body and not self.is_done:
            self._cut()

    def _end(self) -> None:
        if self.phase is Phase.HEAD:
            raise ProtocolError(
                "the connection ended within the answer" if self.is_begun else "closed unanswered"
            )
        self.is_cut = self.is_cut or self.phase not in (Phase.TO_END, Phase.DONE)
        self._done(is_kept_open=False)

    def _cut(self) -> None:
        self.is_cut = True
        self._done(is_kept_open=False)

    def _done(self, *, is_kept_open: bool) -> None:
        self.is_kept_open = is_kept_open
        self.phase = Phase.DONE
        self._buffer.clear()

    # ---- the steps; each returns whether it got on

    def _on_head(self) -> bool:
        found = _END.search(self._buffer, self._searched)
        end = found.end() if found else len(self._buffer)
        if end + self._passed > _MOST_HEAD:
            raise ProtocolError("its headers are longer than 64 kB")
        if self._buffer[:7] != _BEGINNING[:end]:
            raise ProtocolError("what the host says is no HTTP/1")
        if found is None:
            self._searched = max(0, end - 2)
            return False
        head = bytes(self._buffer[: found.start()])
        del self._buffer[:end]
        self._searched = 0
        version = self._read_head(head)
        if self.status < 200:
            self._pass_over(end)
        else:
            self._frame(version)
        return True

    def _read_head(self, head: bytes) -> int:
        lines = (_FOLD.sub(b" ", head) if b"\n " in head or b"\n\t" in head else head).split(b"\n")
        found = _STATUS.fullmatch(lines[0].rstrip(b"\r"))
        if found is None:
            raise ProtocolError("what the host says is no HTTP/1")
        self.status = int(found[2])
        said = (found[3] or b"").decode("latin-1")
        self.reason = "".join(each for each in said if each.isprintable())[:_MOST_REASON].strip()
        fields: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in _WANTED:
                value = value.strip()
                fields[name] = fields[name] + b"," + value if name in fields else value
        self._fields = fields
        return found[1][0] - 48

    def _pass_over(self, size: int) -> None:
        is_other, self.status = self.status == 101, 0
        if is_other:
            raise ProtocolError("it changed to another protocol, which nobody asked for")
        self._passed += size

    def _frame(self, version: int) -> None:
        """Decide where the body ends (RFC 9112 section 6.3), and what becomes of the connection."""
        length = self._fields.get(b"content-length")
        coding = self._fields.get(b"transfer-encoding", b"").lower().rpartition(b",")[2].strip()
        connection = self._fields.get(b"connection", b"").lower()
        is_kept = b"close" not in connection and (version == 1 or b"keep-alive" in connection)
        self.is_kept_open = is_kept and not (coding and length)
        if self._is_for_head or self.status in (204, 304):
            self._done_at(0)
        elif coding and coding != b"identity":  # which is of RFC 2616, and means none
            self.phase = Phase.SIZE if coding == b"chunked" else Phase.TO_END
        elif length is None:
            self.phase = Phase.TO_END
        elif (counted := _LENGTH.fullmatch(length)) is None:
            self._cut()
        else:
            self._done_at(int(counted[1]))

    def _done_at(self, length: int) -> None:
        self._left = length
        if length:
            self.phase = Phase.COUNTED
        else:
            self._done(is_kept_open=self.is_kept_open and not self._buffer)

    def _on_counted(self) -> bool:
        size = len(self._buffer)
        self.body_bytes += min(size, self._left)
        if size < self._left:
            self._left -= size
            self._buffer.clear()
        else:
            self._done(is_kept_open=self.is_kept_open and size == self._left)
        return False

    def _on_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _SIZE.fullmatch(line)
        if found is None:
            self._cut()
            return False
        size = int(found[1], 16)
        self._left = size + 2
        self.phase = Phase.CHUNK if size else Phase.TRAILER
        return True

    def _on_chunk(self) -> bool:
        size = min(len(self._buffer), self._left)
        self.body_bytes += size
        self._left -= size
        if self._left == 0 and size >= 1 and self._buffer[size - 1] != 10:
            self._cut()
            return False
        del self._buffer[:size]
        if self._left == 0:
            self.phase = Phase.SIZE
        return self.body_bytes <= self._most_body

    def _on_trailer(self) -> bool:
        line = self._line()
        if line == b"":
            self._done(is_kept_open=self.is_kept_open and not self._buffer)
        return line is not None and self.body_bytes <= self._most_body

    def _on_rest(self) -> bool:
        self.body_bytes += len(self._buffer)
        self._buffer.clear()
        return False

    def _on_done(self) -> bool:
        self._buffer.clear()
        return False

    def _line(self) -> bytes | None:
        """Return the next line of the framing, None while it is not whole; it counts as body."""
        end = self._buffer.find(b"\n", 0, _MOST_LINE)
        if end < 0:
            if len(self._buffer) >= _MOST_LINE:
                self._cut()
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self.body_bytes += end + 1
        return line


_STEPS: dict[Phase, Callable[[Response], bool]] = {
    Phase.HEAD: Response._on_head,
    Phase.COUNTED: Response._on_counted,
    Phase.SIZE: Response._on_size,
    Phase.CHUNK: Response._on_chunk,
    Phase.TRAILER: Response._on_trailer,
    Phase.TO_END: Response._on_rest,
    Phase.DONE: Response._on_done,
}
