"""Readers of single values: each takes (value, key), returns what the job holds, or raises
PayloadError.

Producers are PHP and JavaScript as often as Python, so a number may stand where text is wanted and
a numeric string where a number is. Nothing else is repaired: a value that can't be meant is
refused, and the reason names the key, what was expected, and what came. A reason quotes at most 60
characters, with whatever does not print escaped; of a URL it quotes nothing, because URLs carry
secrets.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isfinite

from geomail.errors import PayloadError

Reader = Callable[[object, str], object]

MAX_LABEL = 1000
MAX_RETRIES = 1000
_MAX_ISO = 40
_MAX_EPOCH_S = 100_000_000_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{0,18})?", re.ASCII)
_URL = re.compile(r"https?://[^/?#\x00-\x20\x7f-\xa0]++[^\x00-\x20\x7f-\xa0]*+", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a map",
}


def shown(value: object) -> str:
    """Return `value` for a reason: quoted, escaped, at most 60 characters."""
    if isinstance(value, list | dict):
        return f"{_KINDS[type(value)]} of {len(value)}"
    if isinstance(value, str):
        return repr(value[:60]) + ("…" if len(value) > 60 else "")
    return str(value)[:60]


def refused(key: str, expected: str, value: object) -> PayloadError:
    """Return the error for a value that is not what `key` takes."""
    kind = _KINDS.get(type(value), type(value).__name__)
    came = kind if value is None or isinstance(value, list | dict) else f"{kind}: {shown(value)}"
    return PayloadError(f"{key}: {expected} expected, not {came}")


def body(value: object, key: str) -> str:
    """Read text in which anything may stand, line ends too."""
    if type(value) is str:
        return value
    if type(value) is int or (type(value) is float and isfinite(value)):
        return str(value)
    raise refused(key, "text", value)


def line(value: object, key: str) -> str:
    """Read text that becomes part of a header: control characters, tab included, are refused."""
    text = value if type(value) is str else body(value, key)
    if not text.isprintable() and (found := _CONTROL.search(text)):
        raise PayloadError(
            f"{key}: control character U+{ord(found[0]):04X} at {found.start()} in {shown(text)}: "
            "a header takes one line of plain text"
        )
    return text


def word(value: object, key: str) -> str:
    """Read a short text that is not empty: a name, a key, a label."""
    text = line(value, key)
    if not text.strip() or len(text) > MAX_LABEL:
        raise refused(key, f"text of 1 to {MAX_LABEL} characters", value)
    return text


def html(value: object, key: str) -> str | bool:
    """Read `html`: the HTML part itself, or true when the body is HTML."""
    if isinstance(value, bool):
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    return body(value, key)


def retries(value: object, key: str) -> int:
    """Read how many tries may follow the first one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_RETRIES:
        raise refused(key, f"a whole number from 0 to {MAX_RETRIES}", value)
    return value


def url(value: object, key: str) -> str:
    """Read an http or https URL."""
    if not isinstance(value, str):
        raise refused(key, "an http:// or https:// URL", value)
    if not _URL.fullmatch(value):
        raise PayloadError(f"{key}: an http:// or https:// URL with a host and no spaces expected")
    return value


def moment(value: object, key: str) -> int:
    """Read a time as milliseconds since 1970: ISO 8601 (without a zone: UTC) or epoch seconds."""
    if isinstance(value, str):
        text = value.strip(" ")
        if not _NUMBER.fullmatch(text):
            return _iso_ms(text, key)
        if len(text) == 8 and text.isdigit():
            raise refused(key, "a date as 2030-01-31, or epoch seconds", value)
        value = float(text)
    if type(value) is not int and type(value) is not float:
        raise refused(key, "ISO 8601 or epoch seconds", value)
    if not 0 <= value < _MAX_EPOCH_S:
        raise refused(key, "epoch seconds (not milliseconds)", value)
    return round(value * 1000)


def _iso_ms(text: str, key: str) -> int:
    try:
        at = datetime.fromisoformat(text[:_MAX_ISO])
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        at_ms = (at - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        at_ms = -1
    if at_ms < 0 or len(text) > _MAX_ISO:
        raise refused(key, "ISO 8601 (2030-01-31T09:00:00Z) or epoch seconds", text)
    return at_ms
