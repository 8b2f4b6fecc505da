"""A glance at a payload: which relay the mail names, without reading the rest of it.

A tenth of the work of `decode`, for mails that can't go now anyway. It is exact: the answer is what
`decode` would find under `relay`, if it finds a job at all. It says nothing on whether it would, so
whoever goes by it has the payload read in full before anything is sent.
"""

import msgspec


class _Mail(msgspec.Struct, gc=False):
    """Where a mail may go to, when, and whose turn it is; what has no name here is skipped."""

    relay: str = ""
    to: msgspec.Raw = msgspec.Raw()
    to_email: msgspec.Raw = msgspec.Raw()
    cc: msgspec.Raw = msgspec.Raw()
    bcc: msgspec.Raw = msgspec.Raw()
    rcpt_to: msgspec.Raw = msgspec.Raw()
    raw: msgspec.Raw = msgspec.Raw()
    send_at: msgspec.Raw = msgspec.Raw()
    expires_at: msgspec.Raw = msgspec.Raw()
    dedupe_key: msgspec.Raw = msgspec.Raw()


_read = msgspec.json.Decoder(_Mail).decode


def relay_of(payload: bytes) -> str | None:
    """Return the relay that a mail in JSON names, "" for none.

    None: only `decode` can tell, or the mail has a time or a `dedupe_key` of its own to be looked
    at before it waits.
    """
    if payload[:1] != b"{":
        return None
    try:
        mail = _read(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if mail.send_at or mail.expires_at or mail.dedupe_key:
        return None
    if mail.to or mail.rcpt_to or mail.to_email or mail.raw or mail.cc or mail.bcc:
        return mail.relay
    return None
