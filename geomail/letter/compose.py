"""From a job to a letter: the header block, the body's entity, and the envelope.

The common letter (one recipient, plain words, a text) walks straight through: each field is one
f-string and one look for characters that can't stand in a header. Only what differs from it calls a
slower function. The From field is kept for the next letter: one sender sends many.

A Message-ID or Date among the job's own `headers` stands in for ours. Which names and values may
stand there is the job room's business; here none of them can end its line.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from geomail.errors import PayloadError
from geomail.job import Address, Email
from geomail.letter import header, raw
from geomail.letter.address import domain_of, envelope_form
from geomail.letter.date import date
from geomail.letter.dsn import parameters
from geomail.letter.letter import Letter
from geomail.letter.mime import message

_ID = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_LONGEST_ID = 64  # a boundary has 70
_STANDS_IN = {"message-id": "Message-ID", "date": "Date"}
_NOBODY = ("undisclosed-recipients:;",)
_LONGEST_KEPT_NAME = 200


def compose(
    email: Email,
    *,
    id: str,  # noqa: A002 - the trade word, and nothing here wants the built-in
    first_seen_ms: int,
    sender: Address,
    eight_bit: bool,
    redirect_to: str | None = None,
    recipients: Sequence[str] | None = None,
) -> Letter:
    """Return the letter that `email` becomes; the same arguments give the same octets.

    `id` makes Message-ID and boundaries (a part `<id>/3` those of `<id>`), `first_seen_ms` makes
    the Date. `sender` is the From address where the job names none. `eight_bit` tells whether the
    host takes 8BITMIME. `recipients` replaces the job's own in the envelope, not in the header.
    `redirect_to` gets the letter instead of them, and X-Geomail-To lists them. Raises PayloadError
    with a reason.
    """
    job_id = id.partition("/")[0]
    if len(job_id) > _LONGEST_ID or not _ID(job_id):
        raise ValueError(f"id {id!r} can't be the left half of a Message-ID")
    if email.sender is not None:
        sender = email.sender
    try:
        targets = tuple(map(envelope_form, email.recipients if recipients is None else recipients))
        added = ""
        if redirect_to is not None:
            added = header.field("X-Geomail-To", header.listed(targets))
            targets = (envelope_form(redirect_to),)
        head, content = _message(email, sender, job_id, first_seen_ms, added, eight_bit)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text has a lone surrogate: {error.reason}") from None
    mail_from = _mail_from(email, sender)
    smtputf8 = not (head.isascii() and mail_from.isascii() and "".join(targets).isascii())
    dsn = None
    if email.dsn is not None:
        asking = email.recipients if recipients is None else recipients
        dsn = parameters(email.dsn, asking if redirect_to is None else ())
    return Letter(mail_from, targets, content, not content.isascii(), smtputf8, dsn)


def _mail_from(email: Email, sender: Address) -> str:
    if email.return_path is not None:
        return envelope_form(email.return_path)
    if email.mail_from is not None:
        return envelope_form(email.mail_from)
    return _kept_envelope_form(sender.addr)


_kept_envelope_form = lru_cache(maxsize=256)(envelope_form)


def _message(
    email: Email, sender: Address, job_id: str, first_seen_ms: int, added: str, eight_bit: bool
) -> tuple[str, bytes]:
    """Return the header that we wrote, and the whole message."""
    message_id = f"Message-ID: <{job_id}@{_domain(sender.addr)}>\r\n"
    when = f"Date: {date(first_seen_ms // 1000)}\r\n"
    if email.raw is not None:
        return added, raw.finish(
            email.raw, message_id=message_id, date=when, added=added, eight_bit=eight_bit
        )
    reply_to = ""
    if email.reply_to:
        reply_to = header.field("Reply-To", header.addresses(email.reply_to))
    if email.headers:
        own = _own_fields(email.headers)
        message_id, when = own.get("Message-ID", message_id), own.get("Date", when)
        added = own[""] + added
    head = (
        f"{_from_field(sender)}{_to_fields(email)}{reply_to}"
        f"{header.subject_field(email.subject)}"
        f"{when}{message_id}{added}MIME-Version: 1.0\r\n"
    )
    return head, message(head.encode(), email, job_id, eight_bit)


_domain = lru_cache(maxsize=256)(domain_of)


def _from_field(sender: Address) -> str:
    if len(sender.name) > _LONGEST_KEPT_NAME:
        return header.field("From", header.addresses([sender]))
    return _kept_from_field(sender.addr, sender.name)


@lru_cache(maxsize=256)
def _kept_from_field(addr: str, name: str) -> str:
    return header.field("From", header.addresses([Address(addr, name)]))


def _to_fields(email: Email) -> str:
    if len(email.to) == 1:
        to = header.mailbox_field("To", email.to[0])
    else:
        to = header.field("To", header.addresses(email.to) if email.to else _NOBODY)
    return to + header.field("Cc", header.addresses(email.cc)) if email.cc else to


def _own_fields(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the fields that stand in for ours, by name, and under "" the block of all others."""
    fields = {"": ""}
    for name, value in headers:
        ours = _STANDS_IN.get(name.lower(), "")
        field = header.field(name, header.brought(name, value))
        fields[ours] = fields[""] + field if ours == "" else field
    return fields
