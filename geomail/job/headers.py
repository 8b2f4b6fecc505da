"""The headers a payload may add to its mail, or to its HTTP request.

A name is what RFC 5322 calls ftext; a value is one line. What geomail writes itself (or signs, or
what a receiving host writes) can't be set: two From headers are how filters and readers are made
to see different mails. Reply-To, Message-ID and Date may stand when they are well-formed, once;
Reply-To joins `reply_to`.
"""

import re

from geomail.errors import PayloadError
from geomail.job.fields import line, refused, shown

_NAME = re.compile(r"[!-9;-~]{1,76}")
_FORBIDDEN = frozenset(
    (
        *("from", "sender", "to", "cc", "bcc", "subject", "mime-version"),
        *("return-path", "received", "dkim-signature"),
    )
)
_ONCE = frozenset(("reply-to", "message-id", "date", "references", "in-reply-to"))
_MESSAGE_ID = re.compile(r"<[!-;=?A-Z\[-~]+@[!-;=?A-Z\[-~]+>")
_DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )? ?\d{1,2} "
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|GMT|UT)(?: \([A-Za-z ]{1,20}\))?"
)
_FORMS = {"message-id": (_MESSAGE_ID, "<left@right>"), "date": (_DATE, "an RFC 5322 date")}
_HTTP_FORBIDDEN = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te")
)
_HTTP_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]{1,76}", re.ASCII)


def mail_headers(value: object, key: str) -> list[tuple[str, str]]:
    """Read a map of header names to a value, or to a list of values."""
    pairs = _pairs(value, key, _NAME)
    seen: set[str] = set()
    for name, content in pairs:
        low = name.lower()
        if low in _FORBIDDEN or low.startswith("content-"):
            raise PayloadError(f"{key}: {name} can't be set here: geomail writes it")
        if low in _ONCE and low in seen:
            raise PayloadError(f"{key}: {name} stands twice")
        seen.add(low)
        form = _FORMS.get(low)
        if form and not form[0].fullmatch(content):
            raise refused(f"{key}: {name}", form[1], content)
    return pairs


def http_headers(value: object, key: str) -> list[tuple[str, str]]:
    """Read the headers of an HTTP request."""
    pairs = _pairs(value, key, _HTTP_NAME)
    for name, _ in pairs:
        if name.lower() in _HTTP_FORBIDDEN:
            raise PayloadError(f"{key}: {name} can't be set here: the connection decides it")
    return pairs


def _pairs(value: object, key: str, form: re.Pattern[str]) -> list[tuple[str, str]]:
    if type(value) is not dict:
        raise refused(key, "a map of names to values", value)
    pairs: list[tuple[str, str]] = []
    for name, contents in value.items():
        if not isinstance(name, str) or not form.fullmatch(name):
            raise PayloadError(f"{key}: {shown(name)} can't be the name of a header")
        several = contents if type(contents) is list else [contents]
        where = f"{key}: {name}"
        pairs += [(name, line(content, where)) for content in several if content is not None]
    return pairs
