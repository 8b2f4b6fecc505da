"""The three kinds of job, as values: Email, HttpTask, CallTask.

They say what is to be done, in one form whatever shape the producer wrote. Everything in them has
passed the checks of this room: no control character where a header or a command is built,
addresses with one sound local part and domain, at most 1,000 recipients, times in milliseconds
since 1970 (UTC).

What is not promised: that a domain exists, that an internationalized domain can be encoded (the
letter finds out), or that a relay of that name is configured.
"""

from msgspec import Struct


class Address(Struct, frozen=True, gc=False):
    """A mailbox: `addr` as it was given (Unicode domains too), `name` decoded, or empty."""

    addr: str
    name: str = ""


class Attachment(Struct, frozen=True, gc=False):
    """A part beside the text: with a `cid` it is inline, to be shown where the HTML names it."""

    filename: str | None
    content: bytes
    type: str
    cid: str | None = None


class RecipientDsn(Struct, frozen=True, gc=False):
    """What is asked of reports about one recipient; `orcpt`: whom the mail was first meant for."""

    notify: tuple[str, ...] = ()
    orcpt: str = ""


class Dsn(Struct, frozen=True):
    """Which reports are asked for (RFC 3461), in capitals; what is empty was not said.

    `each` holds what differs for a recipient, by the address as it is in `recipients`.
    """

    notify: tuple[str, ...] = ()
    ret: str = ""
    envid: str = ""
    each: dict[str, RecipientDsn] = {}


class Email(Struct, gc=False):
    """A mail to compose, or (`raw`) a finished message to send as it is.

    `recipients` is the envelope: `rcpt_to`, else to, cc and bcc in this order, each mailbox once.
    `mail_from` and `return_path` are None when not given, and "" for the null sender `<>`.
    """

    to: list[Address] = []
    cc: list[Address] = []
    bcc: list[Address] = []
    reply_to: list[Address] = []
    sender: Address | None = None
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: list[tuple[str, str]] = []
    attachments: list[Attachment] = []
    raw: bytes | None = None
    mail_from: str | None = None
    recipients: list[str] = []
    label: str | None = None
    dedupe_key: str | None = None
    return_path: str | None = None
    relay: str | None = None
    dsn: Dsn | None = None
    send_at_ms: int | None = None
    expires_at_ms: int | None = None
    retries: int | None = None
    callback_url: str | None = None


class HttpTask(Struct):
    """An HTTP request to make: `param` goes into the query string, `json` is the body to encode."""

    url: str
    method: str = "GET"
    param: dict[str, object] = {}
    headers: list[tuple[str, str]] = []
    json: object = None
    label: str | None = None
    dedupe_key: str | None = None
    send_at_ms: int | None = None
    expires_at_ms: int | None = None
    retries: int | None = None
    callback_url: str | None = None


class CallTask(Struct):
    """A call: the task `worker` of the class `cls` ("" when none was named) with `params`."""

    worker: str
    cls: str = ""
    params: object = None
    label: str | None = None
    dedupe_key: str | None = None
    send_at_ms: int | None = None
    expires_at_ms: int | None = None
    retries: int | None = None
    callback_url: str | None = None


Job = Email | HttpTask | CallTask
