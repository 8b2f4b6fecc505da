"""The envelope's addresses, as written after MAIL and RCPT (RFC 5321 4.1.2), read into text.

A path is what stands between < and >: a local part, quoted or not, an @ and a domain. Local parts
are nobody's business but their host's, so `a..b` and `xxx.` pass. A source route is read and
forgotten (RFC 5321 C), one space after the colon is forgiven. Nothing with a control character, or
with < > or space outside of quotes, is an address, so none of these ever comes out of here.
"""

import re

# Possessive quantifiers: no input makes these go back and try again.
_QUOTED = rb'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"'
_PATH = rb'<(?:@[^\s<>:"]++:)?((?:[^\x00-\x20\x7f<>"]++|' + _QUOTED + rb")*)>"
_PARAMETERS = rb"(?: ([\x20-\x7e\x80-\xff]*))?"
_MAIL = re.compile(rb"(?i:FROM): ?" + _PATH + _PARAMETERS)
_RCPT = re.compile(rb"(?i:TO): ?" + _PATH + _PARAMETERS)

Parameters = list[tuple[bytes, bytes]]


def read_mail(argument: bytes) -> tuple[str | None, Parameters] | None:
    """Return sender ("" is null, None is bad) and parameters, or None for wrong syntax."""
    return _read(_MAIL, argument)


def read_rcpt(argument: bytes) -> tuple[str | None, Parameters] | None:
    """Return recipient (None is bad) and parameters, or None for wrong syntax."""
    found = _read(_RCPT, argument)
    return (None, found[1]) if found and not found[0] else found


def _read(pattern: re.Pattern[bytes], argument: bytes) -> tuple[str | None, Parameters] | None:
    match = pattern.fullmatch(argument)
    if not match:
        return None
    path, rest = match.groups()
    return _address(path), _parameters(rest) if rest else []


def _address(path: bytes) -> str | None:
    try:
        address = path.decode()
    except UnicodeDecodeError:
        return None
    local, _, domain = address.rpartition("@")
    is_known = (local and domain) or not address or address.lower() == "postmaster"
    return address if is_known else None


def _parameters(rest: bytes) -> Parameters:
    pairs = (parameter.partition(b"=") for parameter in rest.split())
    return [(keyword.upper(), value) for keyword, _, value in pairs]
