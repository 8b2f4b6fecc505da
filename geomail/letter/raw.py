"""Finished messages: what a producer made is sent as it is, with few exceptions.

Line ends become CRLF; Bcc and Resent-Bcc go; a missing Date or Message-ID is added below the
header. What no host may be given is refused: 8-bit content where the host takes none (5.6.3), a
line longer than 998 octets (5.6.0: relays cut such lines, each in its own way), and what begins
without a header. All else stays byte for byte, so signatures hold. NUL is passed
on, and UTF-8 in a header too: only an address of the envelope asks for SMTPUTF8.
"""

import re

from geomail.errors import PayloadError
from geomail.letter.body import LONGEST_LINE, has_long_line, with_crlf

_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
_BCC = re.compile(
    rb"^(?:resent-)?bcc[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE | re.MULTILINE
)
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)


def finish(message: bytes, *, message_id: str, date: str, added: str, eight_bit: bool) -> bytes:
    """Return `message` as it can be sent.

    `message_id` and `date` are whole fields for when it has none, `added` are fields that it gets
    anyway. Raises PayloadError when it can't be sent.
    """
    if not eight_bit and not message.isascii():
        raise PayloadError("5.6.3 raw has 8-bit content, and the host takes none (no 8BITMIME)")
    message = with_crlf(message)
    if has_long_line(message):
        raise PayloadError(f"5.6.0 raw: {_long_line(message)}")
    head, body_at = _head(message)
    head = _BCC.sub(b"", head)
    fields = added + ("" if _DATE.search(head) else date)
    fields += "" if _MESSAGE_ID.search(head) else message_id
    body = memoryview(message)[body_at:]  # no copy of what may be megabytes
    ending = _ending(message) if body else b""
    return b"".join((head, fields.encode(), b"\r\n", body, ending))


def fault(message: bytes, *, has_header: bool = True) -> str | None:
    """Return why no host may be given `message`, whose lines end in CRLF, None when one may.

    Without `has_header` it is a body alone.
    """
    if has_long_line(message):
        return _long_line(message)
    if not has_header:
        return None
    end = message.find(b"\r\n\r\n")
    return _no_field(message + _ending(message) if end < 0 else message[: end + 2])


def _head(message: bytes) -> tuple[bytes, int]:
    """Return the header with its last line end, and where the body begins."""
    end = message.find(b"\r\n\r\n")
    head = message if end < 0 else message[: end + 2]
    head += _ending(head)
    if not head:
        raise PayloadError("raw is empty")
    if found := _no_field(head):
        raise PayloadError(f"raw: {found}")
    return head, len(message) if end < 0 else end + 4


def _no_field(head: bytes) -> str | None:
    at = 0
    while at < len(head):
        match = _FIELD.match(head, at)
        if match is None:
            number = head.count(b"\n", 0, at) + 1
            return f"line {number} is no header field"
        at = match.end()
    return None


def _ending(part: bytes) -> bytes:
    return b"" if not part or part.endswith(b"\r\n") else b"\r\n"


def _long_line(message: bytes) -> str:
    lengths = map(len, message.split(b"\r\n"))
    number = next(at for at, length in enumerate(lengths, 1) if length > LONGEST_LINE)
    return f"line {number} is longer than {LONGEST_LINE} octets"
