"""One address in its two spellings: for a command of SMTP, and for a header field.

    in the job           RCPT TO:<...>                header
    ann@example.org      ann@example.org              ann@example.org
    ann@bücher.example   ann@xn--bcher-kva.example    ann@xn--bcher-kva.example
    a..b@example.org     a..b@example.org             "a..b"@example.org
    a b@example.org      "a b"@example.org            "a b"@example.org
    jörg@example.org     jörg@example.org (SMTPUTF8)  jörg@example.org

Local parts with dots in odd places exist (and their hosts know no quotes), so the command says them
as they are; RFC 5322 has no such form, so the header quotes them, which means the same mailbox. A
domain that is not ASCII becomes its A-label by UTS 46; a local part is never touched, for only its
host knows what it means. What is ASCII pays one regular expression and nothing else.
"""

import re
from functools import lru_cache

from geomail.errors import PayloadError

control_in = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]").search
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_ATEXT_U = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"
PLAIN = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*@[A-Za-z0-9.-]{{1,255}}").fullmatch
_DOT_ATOM = re.compile(rf"{_ATEXT_U}+(?:\.{_ATEXT_U}+)*").fullmatch
_DOTS_ANYWHERE = re.compile(rf"(?:{_ATEXT_U}|\.)+").fullmatch
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"').fullmatch
_DOMAIN = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:-]{1,253}\]").fullmatch


def envelope_form(addr: str) -> str:
    """Return `addr` as MAIL and RCPT have it between < and > (RFC 5321 section 4.1.2).

    "" and "<>" are the null sender. Raises PayloadError when the address can't stand there.
    """
    if PLAIN(addr):
        return addr
    if addr in ("", "<>"):
        return ""
    local, domain = _halves(addr)
    is_sayable = _DOTS_ANYWHERE(local) or _QUOTED(local)
    return f"{local if is_sayable else quoted(local)}@{domain}"


def header_form(addr: str) -> str:
    """Return `addr` as the addr-spec of a header field (RFC 5322 section 3.4.1, RFC 6532)."""
    if PLAIN(addr):
        return addr
    local, domain = _halves(addr)
    is_sayable = _DOT_ATOM(local) or _QUOTED(local)
    return f"{local if is_sayable else quoted(local)}@{domain}"


def domain_of(addr: str) -> str:
    """Return the domain of `addr`, as an A-label when it is not ASCII."""
    return _halves(addr)[1]


def _halves(addr: str) -> tuple[str, str]:
    """Return the local part and the domain (A-label) of an address."""
    if control_in(addr):
        raise PayloadError(f"address {addr[:80]!r} has a control character")
    local, at, domain = addr.rpartition("@")
    if not (at and local and domain):
        raise PayloadError(f"address {addr[:80]!r} is not of the form local@domain")
    domain = domain if domain.isascii() else _a_label(domain)
    if not _DOMAIN(domain):
        raise PayloadError(f"address {addr[:80]!r} has a domain that can't be one")
    return local, domain


@lru_cache(maxsize=4096)
def _a_label(domain: str) -> str:
    """Return a domain in the ASCII form of UTS 46 (non-transitional) and IDNA 2008."""
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise PayloadError(f"domain {domain[:80]!r} is no domain name: {error}") from None


def quoted(text: str) -> str:
    """Return `text` as a quoted-string (RFC 5322 section 3.2.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
