"""Delivery status notifications, as MAIL and RCPT ask for them (RFC 3461, sections 4 and 5).

    MAIL FROM:<a@x.org> RET=HDRS ENVID=order+204711
    RCPT TO:<b@y.org> NOTIFY=FAILURE,DELAY

ENVID travels as xtext: `+`, `=` and what is no graphic ASCII become `+` and two hexadecimal digits,
so nothing in it can end the parameter; so do `<` and `>`, which may stay, and which a host that
looks for the end of the path could trip over. A retry says the same.
"""

import re

from geomail.job import Dsn

_UNFIT = re.compile(rb"[^!-*,-;?-~]")


def parameters(asked: Dsn) -> tuple[str, str]:
    """Return the parameters of MAIL and those of each RCPT; either may be empty."""
    mail = []
    if asked.ret:
        mail.append(f"RET={asked.ret}")
    if asked.envid:
        mail.append(f"ENVID={xtext(asked.envid)}")
    return " ".join(mail), f"NOTIFY={','.join(asked.notify)}" if asked.notify else ""


def xtext(text: str) -> str:
    """Return `text` as xtext (RFC 3461 section 4)."""
    return _UNFIT.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")
