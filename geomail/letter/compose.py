"""From a job to a letter: the header block, the body's entity, and the envelope.

The common letter (one recipient, plain words, a text) walks straight through: each field is one f-string
and one look for characters that can't stand in a header. Only what differs from it calls a slower function.
The From field is kept for the next letter: one sender sends many.

A field of the job's own `headers` named Message-ID, Date or Reply-To stands in for ours when it is well
formed; when it isn't, or comes twice, the job is refused with that reason.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from geomail.errors import PayloadError
from geomail.job import Address, Email
from geomail.letter import header, raw
from geomail.letter.address import domain_of, envelope_form
from geomail.letter.date import date, is_date
from geomail.letter.letter import Letter
from geomail.letter.mime import entity

_ID = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>").fullmatch
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}").fullmatch
_STANDS_IN = {"message-id": "Message-ID", "date": "Date", "reply-to": "Reply-To"}
_OURS = frozenset(
    ("from", "sender", "to", "cc", "bcc", "resent-bcc", "subject", "mime-version", "return-path")
)
_LONGEST_CACHED_NAME = 200


def compose(
    email: Email,
    *,
    id: str,
    first_seen_ms: int,
    sender: Address,
    eight_bit: bool,
    redirect_to: str | None = None,
    recipients: Sequence[str] | None = None,
) -> Letter:
    """Return the letter that `email` becomes; the same arguments give the same octets.

    `id` makes Message-ID and boundaries (a part `<id>/3` those of `<id>`), `first_seen_ms` the Date.
    `sender` is the From address where the job names none. `eight_bit` tells whether the host takes
    8BITMIME. `recipients` replaces the job's own in the envelope, not in the header. `redirect_to`
    gets the letter instead of them, and X-Geomail-To lists them. Raises PayloadError with a reason.
    """
    if email.sender is not None:
        sender = email.sender
    id = id.partition("/")[0]
    if not _ID(id):
        raise ValueError(f"id {id!r} can't be the left half of a Message-ID")
    try:
        targets = tuple(map(envelope_form, email.recipients if recipients is None else recipients))
        added = ""
        if redirect_to is not None:
            added = header.field("X-Geomail-To", _listed(targets))
            targets = (envelope_form(redirect_to),)
        if email.raw is not None:
            head = added
            content = raw.finish(
                email.raw,
                message_id=_message_id_field(id, sender),
                date=_date_field(first_seen_ms),
                added=added,
                eight_bit=eight_bit,
            )
        else:
            head = _head(email, sender, id, first_seen_ms, added)
            content = head.encode() + entity(email, id, eight_bit)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text is not Unicode: {error.reason}") from None
    mail_from = _mail_from(email, sender)
    smtputf8 = not (head.isascii() and mail_from.isascii() and "".join(targets).isascii())
    return Letter(mail_from, targets, content, not content.isascii(), smtputf8)


def _mail_from(email: Email, sender: Address) -> str:
    if email.return_path is not None:
        return envelope_form(email.return_path)
    return envelope_form(sender.addr if email.mail_from is None else email.mail_from)


def _listed(addresses: Sequence[str]) -> list[str]:
    return [f"{addr}," for addr in addresses[:-1]] + list(addresses[-1:])


def _head(email: Email, sender: Address, id: str, first_seen_ms: int, added: str) -> str:
    """Return the header block up to MIME-Version; its only non-ASCII are local parts."""
    own = _own_fields(email.headers) if email.headers else {}
    reply_to = email.reply_to
    return "".join(
        (
            _from_field(sender),
            header.field("To", header.address_tokens(email.to) if email.to else _NO_TO),
            header.field("Cc", header.address_tokens(email.cc)) if email.cc else "",
            own.get("Reply-To")
            or (header.field("Reply-To", header.address_tokens(reply_to)) if reply_to else ""),
            header.field("Subject", header.subject(email.subject)),
            own.get("Date") or _date_field(first_seen_ms),
            own.get("Message-ID") or _message_id_field(id, sender),
            own.get("", ""),
            added,
            "MIME-Version: 1.0\r\n",
        )
    )


_NO_TO = ("undisclosed-recipients:;",)


def _date_field(first_seen_ms: int) -> str:
    return f"Date: {date(first_seen_ms // 1000)}\r\n"


def _message_id_field(id: str, sender: Address) -> str:
    return header.field("Message-ID", (f"<{id}@{_domain(sender.addr)}>",))


_domain = lru_cache(maxsize=256)(domain_of)


def _from_field(sender: Address) -> str:
    if len(sender.name) > _LONGEST_CACHED_NAME:
        return header.field("From", header.address_tokens([sender]))
    return _cached_from_field(sender.addr, sender.name)


@lru_cache(maxsize=256)
def _cached_from_field(addr: str, name: str) -> str:
    return header.field("From", header.address_tokens([Address(addr, name)]))


def _own_fields(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the fields that stand in for ours, by name, and under "" the block of all others."""
    fields: dict[str, str] = {}
    others = []
    for name, value in headers:
        ours = _STANDS_IN.get(name.lower())
        if ours is None:
            others.append(_other_field(name, value))
        elif ours in fields:
            raise PayloadError(f"header {ours} is given twice")
        else:
            fields[ours] = _standing_in(ours, value.strip())
    fields[""] = "".join(others)
    return fields


def _other_field(name: str, value: str) -> str:
    folded = name.lower()
    if not _FIELD_NAME(name) or folded in _OURS or folded.startswith("content-"):
        raise PayloadError(f"header {name!r} can't be set by a payload")
    return header.field(name, header.extra(name, value))


def _standing_in(name: str, value: str) -> str:
    if name == "Message-ID" and not _MESSAGE_ID(value):
        raise PayloadError(f"header Message-ID {value!r} is not of the form <left@right>")
    if name == "Date" and not is_date(value):
        raise PayloadError(f"header Date {value!r} is not of the form {date(0)!r}")
    if name == "Reply-To" and not (value.isascii() and value):
        raise PayloadError("header Reply-To is not ASCII: put such addresses into reply_to")
    return header.field(name, header.extra(name, value))
