"""The delivery status notifications that a mail asks for (RFC 3461).

    "dsn": {"notify": ["failure", "delay"], "ret": "hdrs", "envid": "order-4711",
            "recipients": {"ann@x.org": {"notify": "never", "orcpt": "rfc822;list@y.org"}}}

`notify`: "never" alone, or any of "success", "failure" and "delay", as a list or as text with
commas. `ret`: whether a report brings the mail back ("full") or only its header ("hdrs"). `envid`:
what the report names the mail by; printable ASCII, because a report is plain ASCII, and at most 100
octets as it goes over the wire, where `+ = < >` and the space take three (section 4.4). Letters
count in any case. `recipients`: what differs for one of them, and the address that the mail was
meant for before it was forwarded (section 4.2), which the report names; its type comes first.

Not promised: that a host can do it. One that does not announce DSN gets the mail without.
"""

import re

from geomail.errors import PayloadError
from geomail.job.fields import line, refused, shown
from geomail.job.kinds import Dsn, RecipientDsn
from geomail.job.unknown import note_unknown

MAX_ENVID, MAX_ORCPT = 100, 500
_KEYS = ("notify", "ret", "envid", "recipients")
_KEYS_OF_EACH = ("notify", "orcpt")
_EVENTS = ("SUCCESS", "FAILURE", "DELAY")
_NEVER = ("NEVER",)
_PRINTABLE = re.compile(r"[ -~]*")
_ESCAPED = re.compile(r"[ +=<>]")
_ORCPT = re.compile(r"[A-Za-z0-9-]+;[ -~]+")


def dsn(value: object, key: str) -> Dsn | None:
    """Read what is asked for; None when nothing is."""
    if type(value) is not dict:
        raise refused(key, "a map of notify, ret and envid", value)
    _note_unknown(value, key, _KEYS)
    asked = Dsn(
        _notify(value.get("notify"), f"{key}.notify"),
        _ret(value.get("ret"), f"{key}.ret"),
        _envid(value.get("envid"), f"{key}.envid"),
        _each(value.get("recipients"), f"{key}.recipients"),
    )
    return None if asked == Dsn() else asked


def _note_unknown(value: dict[object, object], key: str, known: tuple[str, ...]) -> None:
    for name in value.keys() - set(known):
        note_unknown(f"{key}.{name}", [f"{key}.{each}" for each in known])


def _each(value: object, key: str) -> dict[str, RecipientDsn]:
    if value is None or value == []:  # so PHP writes an empty map
        return {}
    if type(value) is not dict:
        raise refused(key, "a map of addresses to notify and orcpt", value)
    return {str(address): _of_one(asked, key) for address, asked in value.items()}


def _of_one(value: object, key: str) -> RecipientDsn:
    if type(value) is not dict:
        raise refused(key, "notify and orcpt for each address", value)
    _note_unknown(value, key, _KEYS_OF_EACH)
    notify = _notify(value.get("notify"), f"{key}.notify")
    return RecipientDsn(notify, _orcpt(value.get("orcpt"), f"{key}.orcpt"))


def _orcpt(value: object, key: str) -> str:
    if value is None or value == "":
        return ""
    text = line(value, key)
    if not _ORCPT.fullmatch(text):
        raise refused(key, "a type and an address in ASCII, as rfc822;ann@x.org,", value)
    return _short(text, key, MAX_ORCPT)


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
    return _short(text, key, MAX_ENVID)


def _short(text: str, key: str, most: int) -> str:
    size = len(text) + 2 * len(_ESCAPED.findall(text))
    if size > most:
        raise PayloadError(
            f"{key}: at most {most} octets expected, not {size:,} "
            "(each space, +, =, < and > takes three)"
        )
    return text
