"""Delivery status notifications, as MAIL and RCPT ask for them (RFC 3461, sections 4 and 5).

    MAIL FROM:<a@x.org> RET=HDRS ENVID=order+204711
    RCPT TO:<b@y.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;list@y.org

ENVID and ORCPT travel as xtext: `+`, `=` and what is no graphic ASCII become `+` and two
hexadecimal digits, so nothing in it can end the parameter; so do `<` and `>`, which may stay, and
which a host that looks for the end of the path could trip over. A retry says the same.
"""

import re
from collections.abc import Sequence

from geomail.job import Dsn

_UNFIT = re.compile(rb"[^!-*,-;?-~]")


def parameters(asked: Dsn, recipients: Sequence[str]) -> tuple[str, ...]:
    """Return the parameters of MAIL, then those of all RCPTs or, where they differ, of each.

    Any may be empty.
    """
    mail = []
    if asked.ret:
        mail.append(f"RET={asked.ret}")
    if asked.envid:
        mail.append(f"ENVID={xtext(asked.envid)}")
    each = [_of_one(asked, recipient) for recipient in recipients] if asked.each else []
    return (" ".join(mail), *(each or [_notify(asked.notify)]))


def _of_one(asked: Dsn, recipient: str) -> str:
    own = asked.each.get(recipient)
    if own is None:
        return _notify(asked.notify)
    kind, _, address = own.orcpt.partition(";")
    words = [_notify(own.notify or asked.notify), f"ORCPT={kind};{xtext(address)}" if kind else ""]
    return " ".join(filter(None, words))


def _notify(events: tuple[str, ...]) -> str:
    return f"NOTIFY={','.join(events)}" if events else ""


def xtext(text: str) -> str:
    """Return `text` as xtext (RFC 3461 section 4)."""
    return _UNFIT.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")
