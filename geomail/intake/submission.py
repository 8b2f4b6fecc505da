"""What a mail that came by SMTP becomes: the payload of a job, `raw` and its envelope.

    {"mail_from": "a@x.org", "rcpt_to": ["b@y.org"], "raw": "<base64>", "dsn": {"ret": "HDRS"}}

The content travels as it came, octet for octet, behind a Received field of ours, which whoever
relays has to put in front (RFC 5321 4.4). Only content that begins without a header gets an empty
line between the two, so that it is a body; PHP's and shell's mailers write such. What no host could
be given is refused here, while somebody listens: a header with a line that is no field, a line
longer than 998 octets, a mail that has gone around in circles.

What MAIL and RCPT say of delivery reports goes into the job's `dsn`.
"""

import re
from collections.abc import Mapping

import msgspec

from geomail.letter import raw
from geomail.letter.date import date
from geomail.smtp.server import Mail

MOST_HOPS = 100  # RFC 5321 6.3
_HELO = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_XCHAR = re.compile(r"\+([0-9A-F]{2})")


class Origin(msgspec.Struct, frozen=True):
    """Where a mail comes from: what the client calls itself, its address, how it spoke to us."""

    helo: str
    address: str
    protocol: str


class Refusal(Exception):
    """A mail that no host could be given: the enhanced code, and the reason in words."""

    def __init__(self, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.enhanced = enhanced


class _Payload(msgspec.Struct, omit_defaults=True):
    mail_from: str
    rcpt_to: tuple[str, ...]
    raw: bytes
    dsn: dict[str, object] | None = None


_encode = msgspec.json.Encoder().encode


def protocol(*, is_extended: bool, is_utf8: bool, is_encrypted: bool, has_login: bool) -> str:
    """Return how a client speaks, in the words of RFC 3848 and RFC 6531."""
    if not is_extended:
        return "SMTP"
    kind = "UTF8SMTP" if is_utf8 else "ESMTP"
    return f"{kind}{'S' if is_encrypted else ''}{'A' if has_login else ''}"


def payload(mail: Mail, origin: Origin, *, host: str, now_s: int) -> bytes:
    """Return the job that `mail` becomes. Raises Refusal."""
    content = mail.content
    has_header = _FIELD.match(content) is not None
    _check(content, has_header=has_header)
    field = received(origin, host=host, now_s=now_s)
    is_bare = bool(content) and not has_header and not content.startswith(b"\r\n")
    whole = b"".join((field, b"\r\n" if is_bare else b"", content))
    return _encode(_payload(mail, whole))


def outline(mail: Mail) -> bytes:
    """Return the same job without its content: all of it that admission could object to."""
    return _encode(_payload(mail, b"-"))


def _payload(mail: Mail, content: bytes) -> _Payload:
    asked = _reports(mail) if mail.dsn else None
    return _Payload(mail.mail_from or "<>", mail.recipients, content, asked)


def received(origin: Origin, *, host: str, now_s: int) -> bytes:
    """Return our Received field (RFC 5321 4.4)."""
    helo = origin.helo if _HELO.fullmatch(origin.helo) else "unknown"
    address = origin.address.partition("%")[0]  # a zone means something to this machine only
    if ":" in address:
        address = f"IPv6:{address}"
    return (
        f"Received: from {helo} ([{address}])\r\n"
        f"\tby {host} (geomail) with {origin.protocol};\r\n"
        f"\t{date(now_s)}\r\n"
    ).encode()


def _check(content: bytes, *, has_header: bool) -> None:
    fault = raw.fault(content, has_header=has_header)
    if fault or content.startswith((b"From ", b">From ")):
        raise Refusal("5.6.0", fault or "line 1 is no header field, but one of a mailbox file")
    head = content[: content.find(b"\r\n\r\n") + 2] if has_header else b""
    if len(_RECEIVED.findall(head)) > MOST_HOPS:
        raise Refusal("5.4.6", f"more than {MOST_HOPS} Received fields: mail goes in circles")


def _reports(mail: Mail) -> dict[str, object]:
    """Return what is asked of reports, as a job's `dsn`."""
    of_mail, *of_each = map(_read, mail.dsn)
    asked: dict[str, object] = {"ret": of_mail.get("RET"), "envid": _text(of_mail.get("ENVID", ""))}
    wishes = [_wish(read) for read in of_each]
    if all(wish == wishes[0] and "orcpt" not in wish for wish in wishes):
        return asked | wishes[0]
    pairs = zip(mail.recipients, wishes, strict=True)
    return asked | {"recipients": {to: wish for to, wish in pairs if wish}}


def _wish(read: Mapping[str, str]) -> dict[str, str]:
    wish = {"notify": read.get("NOTIFY", ""), "orcpt": _text(read.get("ORCPT", ""))}
    return {key: said for key, said in wish.items() if said}


def _read(parameters: str) -> Mapping[str, str]:
    pairs = (each.partition("=") for each in parameters.split())
    return {keyword: value for keyword, _, value in pairs}


def _text(xtext: str) -> str:
    return _XCHAR.sub(lambda found: chr(int(found[1], 16)), xtext)
