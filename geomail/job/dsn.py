"""The delivery status notifications that a mail asks for (RFC 3461).

    "dsn": {"notify": ["failure", "delay"], "ret": "hdrs", "envid": "order-4711"}

`notify`: "never" alone, or any of "success", "failure" and "delay", as a list or as text with
commas. `ret`: whether a report brings the mail back ("full") or only its header ("hdrs"). `envid`:
what the report names the mail by; printable ASCII, because a report is plain ASCII, and at most 100
octets as it goes over the wire, where `+ = < >` and the space take three (section 4.4). Letters
count in any case.

Not promised: that a host can do it. One that does not announce DSN gets the mail without.
"""

import re

from geomail.errors import PayloadError
from geomail.job.fields import line, refused, shown
from geomail.job.kinds import Dsn
from geomail.job.unknown import note_unknown

MAX_ENVID = 100
_KEYS = ("notify", "ret", "envid")
_EVENTS = ("SUCCESS", "FAILURE", "DELAY")
_NEVER = ("NEVER",)
_PRINTABLE = re.compile(r"[ -~]*")
_ESCAPED = re.compile(r"[ +=<>]")


def dsn(value: object, key: str) -> Dsn | None:
    """Read what is asked for; None when nothing is."""
    if type(value) is not dict:
        raise refused(key, "a map of notify, ret and envid", value)
    for name in value.keys() - set(_KEYS):
        note_unknown(f"{key}.{name}", [f"{key}.{known}" for known in _KEYS])
    asked = Dsn(
        _notify(value.get("notify"), f"{key}.notify"),
        _ret(value.get("ret"), f"{key}.ret"),
        _envid(value.get("envid"), f"{key}.envid"),
    )
    return None if asked == Dsn() else asked


def _notify(value: object, key: str) -> tuple[str, ...]:
    if value is None or value in ("", []):
        return ()
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise refused(key, "success, failure and delay, or never,", value)
    asked = {_one_of((*_EVENTS, *_NEVER), name, key) for name in names}
    if asked == set(_NEVER):
        return _NEVER
    if "NEVER" in asked:
        raise PayloadError(f"{key}: never stands alone, not beside success, failure and delay")
    return tuple(event for event in _EVENTS if event in asked)


def _ret(value: object, key: str) -> str:
    return "" if value is None or value == "" else _one_of(("FULL", "HDRS"), value, key)


def _one_of(known: tuple[str, ...], value: object, key: str) -> str:
    name = value.strip(" ").upper() if isinstance(value, str) else ""
    if name not in known:
        raise refused(key, f"{', '.join(known[:-1]).lower()} or {known[-1].lower()}", value)
    return name


def _envid(value: object, key: str) -> str:
    text = "" if value is None else line(value, key)
    if not _PRINTABLE.fullmatch(text):
        raise PayloadError(f"{key}: printable ASCII expected, not {shown(text)}")
    size = len(text) + 2 * len(_ESCAPED.findall(text))
    if size > MAX_ENVID:
        raise PayloadError(
            f"{key}: at most {MAX_ENVID} octets expected, not {size:,} "
            "(each space, +, =, < and > takes three)"
        )
    return text
