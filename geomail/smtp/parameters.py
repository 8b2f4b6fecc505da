"""The values of what may stand behind the address in MAIL and RCPT: how each has to look.

BODY is RFC 6152, SMTPUTF8 6531, AUTH 4954; RET, ENVID, NOTIFY and ORCPT are RFC 3461,
whose xtext writes as +XX what must not stand in a command. Whether a parameter was announced is
not known here (geomail.smtp.policy).
"""

import re

from geomail.smtp.paths import Parameters

# RFC 3461 4: any printable character but + and =, or + and two upper-case hexadecimal digits.
_XTEXT = rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_EVENTS = rb"(?:SUCCESS|FAILURE|DELAY)"
_FORMS = {
    b"BODY": rb"(?i:7BIT|8BITMIME)",
    b"SMTPUTF8": rb"",
    b"AUTH": rb"\S+",
    b"RET": rb"(?i:FULL|HDRS)",
    b"ENVID": _XTEXT + rb"{1,100}",
    b"NOTIFY": rb"(?i:NEVER|" + _EVENTS + rb"(?:," + _EVENTS + rb"){0,2})",
    b"ORCPT": rb"[A-Za-z0-9-]+;" + _XTEXT + rb"{1,500}",
}
FORMS = {keyword: re.compile(form).fullmatch for keyword, form in _FORMS.items()}
_OF_DSN = frozenset([b"RET", b"ENVID", b"NOTIFY", b"ORCPT"])


def dsn_of(parameters: Parameters) -> str:
    """Return those of the parameters that are of RFC 3461, as they were written."""
    found = ""
    for keyword, value in parameters:
        if keyword in _OF_DSN:
            found += f"{' ' if found else ''}{keyword.decode()}={value.decode()}"
    return found
