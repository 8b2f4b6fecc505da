"""The head of an HTTP/1.1 request (RFC 9112): bytes in, a Head or a Fault out. No socket, no clock.

Two servers that read one request differently can be made to take a part of it for the next client's
(request smuggling), so what could be read in two ways is refused, never repaired: a line end that
is not CRLF, a folded line, a space before a colon, a control character, a second Content-Length or
Transfer-Encoding, both together, a coding that is not `chunked` alone, a number that is not digits.
Where a request ends is then the same for every proxy in front of us.

Promised: whatever the bytes, a Head or a Fault, in time that grows with their number. Not promised:
that the path exists or the method is one of its own; who knows the paths finds out.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

MAX_HEAD = 16_384
END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"(%b) ([!-~]{1,8000}) HTTP/([0-9])\.([0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
_LONE_LF = re.compile(rb"(?<!\r)\n")
_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_HOST = re.compile(r"[\w.\[\]:%~!$&'()*+,;=-]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,15}")
# Which of two would hold is anybody's guess.
_ONCE = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "content-type", "content-encoding"),
        *("authorization", "idempotency-key", "expect", "origin"),
    )
)
_NO_FIELDS: dict[str, str] = {}


class Fault(Struct, frozen=True, gc=False):
    """Why a request can't be served: the status to answer with, and a line for its author."""

    status: int
    why: str


_NO_REQUEST = Fault(400, "METHOD /path HTTP/1.1 expected in the first line")
TLS_CAME = Fault(400, "TLS is not spoken here: http://, not https:// (else set door_cert)")


class Head(Struct, frozen=True, gc=False):
    """A request up to its body. Names of fields are in small letters.

    `length`: of the body in bytes, None when it comes in chunks. `keeps`: whether the client wants
    the connection to stay. `path` has no query, and is percent-encoded as it came.
    """

    method: str
    path: str
    fields: Mapping[str, str] = _NO_FIELDS
    length: int | None = 0
    keeps: bool = True
    is_1_0: bool = False

    @property
    def waits(self) -> bool:
        """Whether the client waits for a 100 before it sends the body."""
        return "expect" in self.fields and not self.is_1_0


def fault_so_far(begun: bytes) -> Fault | None:
    """Return what is wrong with a head whose end has not come yet, None as long as it may become
    one.
    """
    if not begun[:1].isalpha():  # a document, say, whose client would wait for long
        return TLS_CAME if begun.startswith(b"\x16\x03") else _NO_REQUEST
    if len(begun) > MAX_HEAD:
        return Fault(431, f"the head of a request has at most {MAX_HEAD:,} bytes")
    if _LONE_LF.search(begun):
        return Fault(400, "a line of a request ends with CRLF, not with LF alone")
    return None


def read_head(raw: bytes) -> Head | Fault:
    """Return the head that `raw`, without the empty line behind it, stands for."""
    fault = fault_so_far(raw)
    if fault is not None:
        return fault
    first, *lines = raw.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        return _fault_of(first)
    if line[3] != b"1":
        return Fault(505, "HTTP/1.1 is spoken here")
    fields = _fields_of(lines)
    if isinstance(fields, Fault):
        return fields
    is_1_0 = line[4] == b"0"
    length = _length_of(fields, is_1_0)
    fault = length if isinstance(length, Fault) else _fault_of_fields(fields, is_1_0)
    if fault is not None:
        return fault
    return Head(
        line[1].decode(),
        _path_of(line[2].decode()),
        fields,
        length,  # type: ignore[arg-type]
        _keeps(fields, is_1_0),
        is_1_0,
    )


def _fault_of(first: bytes) -> Fault:
    if len(first) > 8000:
        return Fault(414, "the target of a request has at most 8,000 bytes")
    return _NO_REQUEST


def _fields_of(lines: list[bytes]) -> dict[str, str] | Fault:
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return Fault(400, f"a header field `name: value` expected, not {line[:40]!r}")
        name, value = field[1].decode().lower(), field[2].decode("latin-1").strip(" \t")
        if name in fields:
            if name in _ONCE:
                return Fault(400, f"{name} stands twice")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    return fields


def _length_of(fields: Mapping[str, str], is_1_0: bool) -> int | Fault | None:
    """Return where the body ends (RFC 9112, 6.3): its length, or None for chunks."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is not None:
        if length is not None or is_1_0:
            return Fault(400, "Transfer-Encoding goes with HTTP/1.1 and without Content-Length")
        if coding.lower() != "chunked":
            return Fault(501, "of transfer codings `chunked` alone is known here")
        return None
    if length is None:
        return 0
    if not _DIGITS.fullmatch(length):
        return Fault(400, "Content-Length: digits expected")
    return int(length)


def _fault_of_fields(fields: Mapping[str, str], is_1_0: bool) -> Fault | None:
    host = fields.get("host")
    if not is_1_0 and (host is None or not _HOST.fullmatch(host)):
        return Fault(400, "a Host field expected")
    if fields.get("expect", "100-continue").lower() != "100-continue":
        return Fault(417, "Expect: 100-continue is the one that is known")
    return None


def _keeps(fields: Mapping[str, str], is_1_0: bool) -> bool:
    said = fields.get("connection")
    if said is None:
        return not is_1_0
    words = {word.strip(" \t") for word in said.lower().split(",")}
    return "close" not in words and (not is_1_0 or "keep-alive" in words)


def _path_of(target: str) -> str:
    """Return the path of a target, which proxies write as a whole URL."""
    if not target.startswith("/"):
        target = _AUTHORITY.sub("", target, count=1) or "/"
    return target.partition("?")[0]
