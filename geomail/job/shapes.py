"""Which job a map of keys means, and how it becomes one.

A table a kind says which keys it takes: the field of the job, and the reader of the value. The
five systems' spellings are rows beside the natural ones, so a new spelling is a new row. A key
that is null, or an empty string or list, is as good as absent. What only makes sense together is
checked after the table.

The kind is told by its keys: a recipient or `raw` makes a mail, `worker` a call, `url` an HTTP
task.
"""

from collections.abc import Mapping
from typing import Any

from geomail.errors import PayloadError
from geomail.job import addresses, attachments, fields, headers
from geomail.job.addresses import mailbox, mailboxes, unique
from geomail.job.dsn import dsn
from geomail.job.fields import Reader
from geomail.job.kinds import CallTask, Email, HttpTask, Job
from geomail.job.unknown import nearest, note_unknown

Table = dict[str, tuple[str, Reader]]


def _as_it_is(value: object, _key: str) -> object:
    return value


def _map(value: object, key: str) -> object:
    if type(value) is not dict:
        raise fields.refused(key, "a map", value)
    return {str(name): content for name, content in value.items()}


def _method(value: object, key: str) -> str:
    text = fields.word(value, key).upper()
    if text not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        raise fields.refused(key, "an HTTP method", value)
    return text


_COMMON: Table = {
    "id": ("label", fields.word),
    "dedupe_key": ("dedupe_key", fields.word),
    "send_at": ("send_at_ms", fields.moment),
    "expires_at": ("expires_at_ms", fields.moment),
    "retries": ("retries", fields.retries),
    "callback_url": ("callback_url", fields.url),
    "charset": ("charset", fields.word),
}
_EMAIL: Table = _COMMON | {
    "to": ("to", mailboxes),
    "to_email": ("to", mailboxes),
    "cc": ("cc", mailboxes),
    "bcc": ("bcc", mailboxes),
    "reply_to": ("reply_to", mailboxes),
    "from": ("sender", mailbox),
    "from_email": ("sender", mailbox),
    "subject": ("subject", fields.line),
    "title": ("subject", fields.line),
    "text": ("text", fields.body),
    "html": ("html", fields.html),
    "body": ("body", fields.body),
    "content": ("body", fields.body),
    "headers": ("headers", headers.mail_headers),
    "attachments": ("attachments", attachments.attachments),
    "return_path": ("return_path", addresses.reverse_path),
    "relay": ("relay", fields.word),
    "dsn": ("dsn", dsn),
    "raw": ("raw", attachments.base64),
    "mail_from": ("mail_from", addresses.reverse_path),
    "rcpt_to": ("recipients", addresses.addr_specs),
}
_HTTP: Table = _COMMON | {
    "url": ("url", fields.url),
    "method": ("method", _method),
    "param": ("param", _map),
    "headers": ("headers", headers.http_headers),
    "json": ("json", _as_it_is),
}
_CALL: Table = _COMMON | {
    "worker": ("worker", fields.word),
    "class": ("cls", fields.word),
    "params": ("params", _as_it_is),
}
_WHOLE_VALUES = frozenset(("json", "params"))
_TELLING = ("to", "to_email", "raw", "rcpt_to", "cc", "bcc")
_NOT_WITH_RAW = frozenset(
    ("sender", "subject", "text", "html", "body", "headers", "attachments", "reply_to")
)


def job_of(keys: dict[str, object]) -> Job:
    """Return the job that a map of keys means, or raise PayloadError with the reason."""
    if "to" in keys or any(key in keys for key in _TELLING):
        return _email(keys)
    if "worker" in keys:
        return _call(keys)
    if "url" in keys:
        return _http(keys)
    raise _unknown_shape(keys)


def _email(keys: dict[str, object]) -> Email:
    given = _given(keys, _EMAIL)
    if "html" in given:
        _settle_html(given)
    if "body" in given:
        if "text" in given:
            raise PayloadError("both `text` and `body` are given: keep one")
        given["text"] = given.pop("body")
    if "headers" in given:
        _settle_reply_to(given)
    if "raw" in keys:
        _check_raw(keys, given)
    if given.get("recipients"):
        given["recipients"] = unique(given["recipients"])
    else:
        given["recipients"] = _everybody(given)
    return Email(**given)


def _everybody(given: dict[str, Any]) -> list[str]:
    people = given.get("to", ())
    if "cc" in given or "bcc" in given:
        people = [*people, *given.get("cc", ()), *given.get("bcc", ())]
    if len(people) == 1:
        return [people[0].addr]
    if not people:
        raise PayloadError("no recipient: `to`, `cc` and `bcc` are empty")
    return unique([person.addr for person in people])


def _http(keys: dict[str, object]) -> HttpTask:
    given = _given(keys, _HTTP)
    if "url" not in given:
        raise PayloadError("url: empty")
    if "json" in given:
        given.setdefault("method", "POST")
    return HttpTask(**given)


def _call(keys: dict[str, object]) -> CallTask:
    given = _given(keys, _CALL)
    if "worker" not in given:
        raise PayloadError("worker: empty")
    return CallTask(**given)


def _given(keys: dict[str, object], table: Table) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in keys.items():
        row = table.get(key)
        if row is None:
            note_unknown(key, table)
        elif value or not _is_empty(value, key):
            field, read = row
            if field in given:
                raise _twice(keys, table, field)
            given[field] = read(value, key)
    given.pop("charset", None)
    return given


def _is_empty(value: object, key: str) -> bool:
    whole = key in _WHOLE_VALUES
    return value is None or (isinstance(value, str | list | dict) and not whole)


def _settle_html(given: dict[str, Any]) -> None:
    """Make the body the HTML where `html` is true; a lone `text` is then the body."""
    html = given.pop("html")
    if html is True:
        html = given.pop("body" if "body" in given else "text", None)
    if isinstance(html, str):
        given["html"] = html


def _settle_reply_to(given: dict[str, Any]) -> None:
    pairs: list[tuple[str, str]] = given["headers"]
    for pair in pairs:
        if pair[0].lower() == "reply-to":
            if "reply_to" in given:
                raise PayloadError("both `reply_to` and a Reply-To header are given: keep one")
            given["reply_to"] = mailboxes(pair[1], "headers: Reply-To")
            given["headers"] = [other for other in pairs if other is not pair]


def _check_raw(keys: Mapping[str, object], given: dict[str, Any]) -> None:
    if not given.get("raw"):
        raise PayloadError("raw: empty, the base64 of a finished message expected")
    extra = [f"`{key}`" for key in keys if key in _EMAIL and _EMAIL[key][0] in _NOT_WITH_RAW]
    if given.keys() & _NOT_WITH_RAW:
        raise PayloadError(
            f"raw is a finished message: {', '.join(extra)} can't be given beside it"
        )


def _twice(keys: Mapping[str, object], table: Table, field: str) -> PayloadError:
    names = [f"`{key}`" for key in keys if key in table and table[key][0] == field]
    return PayloadError(f"{' and '.join(names)} mean the same: keep one")


def _unknown_shape(keys: Mapping[str, object]) -> PayloadError:
    mail_keys = [key for key in keys if key in _EMAIL and key not in _COMMON]
    if mail_keys:
        return PayloadError(f"no recipient: `to` is missing (`{mail_keys[0]}` is there)")
    hints = [
        f"{fields.shown(key)} (is `{meant}` meant?)"
        for key in list(keys)[:5]
        if (meant := nearest(str(key), (*_TELLING, "url", "worker")))
    ]
    names = ", ".join(hints or [fields.shown(key) for key in list(keys)[:5]]) or "none at all"
    raise PayloadError(
        f"unknown shape: one of `to`, `raw`, `url`, `worker` expected, keys: {names}"
    )
