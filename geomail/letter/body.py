"""Bodies: text and bytes, in the transfer encoding (RFC 2045) that costs least.

    7bit               ASCII, lines <= 998 octets, no control character but tab
    8bit               the same with UTF-8, where the host takes it
    quoted-printable   anything else, when that is shorter than ...
    base64             ... always for attachments: 76 columns

Line ends are made CRLF here, once; whatever the text says, nothing but CRLF ends a line afterwards.
The last line end of a text belongs to whoever puts the part into a message. With each body comes
whether it is transparent (RFC 5321 4.5.2): none of its lines begins with a dot.
"""

import binascii
import re
from collections.abc import Iterator
from typing import TypeAlias

from geomail.smtp.data import has_bare_newline, has_dots

LONGEST_LINE = 998
_COLUMNS = 76
_LARGE = 4096
_BLOCK = 57 * 512  # octets that make whole lines of base64
_LONGEST_KEPT = 200_000
Body: TypeAlias = tuple[str, bytes, bool]
"""Transfer encoding, octets, and whether they are transparent."""

_recent: list[tuple[str, bool, Body]] = []
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])
_PRINTABLE = bytes([9, 10, 13, *range(32, 61), *range(62, 127)])
_OVERLONG_QP = re.compile(rb"^(.{74,76})(=20|=09)\r$", re.MULTILINE)


def with_crlf(data: bytes) -> bytes:
    """Return `data` with CRLF for each CRLF, CR or LF."""
    if b"\r" in data:
        if not has_bare_newline(data):
            return data
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.replace(b"\n", b"\r\n")


def text_body(text: str, eight_bit: bool, *, mark: bytes) -> Body:
    """Return the body that `text` makes as a part of a multipart.

    Its octets never contain `mark` (it begins the boundaries, with `=`).
    """
    made = kept_or_made(text, eight_bit)
    coding, data, _ = made
    if mark in data and coding != "quoted-printable":
        return _judged("quoted-printable", quoted_printable(data))
    return made


def kept_or_made(text: str, eight_bit: bool) -> Body:
    """Return the body of a text that is all there is.

    Those of the last two texts are kept, for bulk has them in common; a text and its HTML are two.
    2.5 us a KB where it is the same, and 0.1 us where it is another.
    """
    for kept, was_eight_bit, made in _recent:
        if kept == text and was_eight_bit is eight_bit:
            return made
    made = _made(text, eight_bit)
    if len(text) <= _LONGEST_KEPT:
        del _recent[1:]
        _recent.insert(0, (text, eight_bit, made))
    return made


def _made(text: str, eight_bit: bool) -> Body:
    data = with_crlf(text.encode())
    if has_long_line(data) or _has_controls(data):
        return _judged(*_encoded(data))
    if data.isascii():
        return _judged("7bit", data)
    return _judged("8bit", data) if eight_bit else _judged(*_encoded(data))


def _judged(coding: str, data: bytes) -> Body:
    return coding, data, not has_dots(data)


def _has_controls(data: bytes) -> bool:
    # memchr for each of 29 is sooner through a large text than one pass with a table: 20 us for
    # 100 KB in place of 40; for 1 KB the table is, 0.6 in place of 1.
    if len(data) < _LARGE:
        return len(data.translate(None, _CONTROLS)) != len(data)
    return any(map(data.__contains__, _CONTROLS))


def has_long_line(data: bytes) -> bool:
    """Say whether a line of `data` (CRLF) is longer than 998 octets.

    Jumps from the last line end of one window to the next: 0.1 us a KB.
    """
    start, end = 0, len(data)
    while end - start > LONGEST_LINE:
        line_end = data.rfind(b"\n", start, start + LONGEST_LINE + 2)
        if line_end < 0:
            return True
        start = line_end + 1
    return False


def _encoded(data: bytes) -> tuple[str, bytes]:
    """Return `data` in quoted-printable or base64, whichever is shorter."""
    escapes = len(data.translate(None, _PRINTABLE))
    if len(data) + 2 * escapes > len(data) * 4 // 3:
        return "base64", base64(data)
    return "quoted-printable", quoted_printable(data)


def quoted_printable(data: bytes) -> bytes:
    """Return `data` (CRLF) in quoted-printable.

    binascii takes its line end from the first one it meets, so one is put behind; and it may make
    a line two octets too long when it ends in a space.
    """
    coded = binascii.b2a_qp(data + b"\r\n", istext=True)
    if b"=20\r\n" in coded or b"=09\r\n" in coded:
        coded = _OVERLONG_QP.sub(rb"\1=\r\n\2\r", coded)
    return coded[:-2]


def base64(data: bytes) -> bytes:
    """Return `data` in base64, in lines of 76 columns, the last one without a line end."""
    return b"".join(base64_blocks(data))


def base64_blocks(data: bytes) -> Iterator[bytes]:
    """Yield `data` in base64 block by block, so that a large one takes no room twice."""
    view = memoryview(data)
    for start in range(0, len(data), _BLOCK):
        coded = binascii.b2a_base64(view[start : start + _BLOCK], newline=False)
        lines = [coded[at : at + _COLUMNS] for at in range(0, len(coded), _COLUMNS)]
        if start:
            yield b"\r\n"
        yield b"\r\n".join(lines)
