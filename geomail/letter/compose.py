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
from geomail.letter.address import PLAIN, domain_of, envelope_form
from geomail.letter.date import date
from geomail.letter.dsn import parameters
from geomail.letter.letter import Letter
from geomail.letter.mime import message

_ID = re.compile(r"[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*").fullmatch
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
    job_id = id.partition("/")[0] if "/" in id else id
    if len(job_id) > _LONGEST_ID or not _ID(job_id):
        raise ValueError(f"id {id!r} can't be the left half of a Message-ID")
    sender = email.sender or sender
    if recipients is None:
        recipients = email.recipients
    if email.raw is not None and not sender.addr:  # its Message-ID, if it has none, needs a domain
        sender = Address(email.mail_from or email.return_path or recipients[0])
    try:
        # One plain recipient, who is seldom another one in the header, is looked at once.
        plain = recipients[0] if len(recipients) == 1 and PLAIN(recipients[0]) else None
        targets = (plain,) if plain is not None else tuple(map(envelope_form, recipients))
        added = ""
        if redirect_to is not None:
            added = header.field("X-Geomail-To", header.listed(targets))
            targets = (envelope_form(redirect_to),)
        of_sender = _kept_sender if len(sender.name) <= _LONGEST_KEPT_NAME else _sender
        from_field, domain, mail_from = of_sender(sender.addr, sender.name)
        message_id = f"Message-ID: <{job_id}@{domain}>\r\n"
        when = f"Date: {date(first_seen_ms // 1000)}\r\n"
        if email.raw is None:
            people = from_field + _to_fields(email, plain)
            head = _head(email, people, when, message_id, added)
            content, is_ascii, is_transparent = message(head.encode(), email, job_id, eight_bit)
            is_ascii = is_ascii and head.isascii()
            # The name of a header of the job's own may begin with a dot.
            is_transparent = is_transparent and not email.headers
        else:
            head = added
            content = raw.finish(
                email.raw, message_id=message_id, date=when, added=added, eight_bit=eight_bit
            )
            is_ascii, is_transparent = content.isascii(), False
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text has a lone surrogate: {error.reason}") from None
    own_path = email.mail_from if email.return_path is None else email.return_path
    if own_path is not None:
        mail_from = envelope_form(own_path)
    smtputf8 = not (head.isascii() and mail_from.isascii() and "".join(targets).isascii())
    told = recipients if redirect_to is None else ()
    dsn = None if email.dsn is None else parameters(email.dsn, told)
    return Letter(mail_from, targets, content, not is_ascii, smtputf8, dsn, is_transparent)


def _sender(addr: str, name: str) -> tuple[str, str, str]:
    """Return what a sender's letters have in common: From field, domain, and reverse path."""
    from_field = header.field("From", header.addresses([Address(addr, name)]))
    return from_field, domain_of(addr), envelope_form(addr)


_kept_sender = lru_cache(maxsize=256)(_sender)


def _head(email: Email, people: str, when: str, message_id: str, added: str) -> str:
    """Return the header, which begins with the fields of `people`."""
    if email.reply_to:
        people += header.field("Reply-To", header.addresses(email.reply_to))
    if email.headers:
        own = _own_fields(email.headers)
        message_id, when = own.get("Message-ID", message_id), own.get("Date", when)
        added = own[""] + added
    subject = header.subject_field(email.subject)
    return f"{people}{subject}{when}{message_id}{added}MIME-Version: 1.0\r\n"


def _to_fields(email: Email, plain: str | None) -> str:
    if len(email.to) == 1:
        to = header.mailbox_field("To", email.to[0], known=plain)
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
