"""One job of the list made into a message, as the Python peers do it.

`email.mime` with its classic policy: a fifth of the time that the newer `EmailMessage` takes for
the same letter. The jobs are geomail's own, JSON with one recipient.
"""

import email.policy
import json
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, make_msgid

SENDER = "bench@example.com"
LIST = "bench:mails"
AT_ONCE = 10  # jobs popped in one round trip

_CRLF = email.policy.compat32.clone(linesep="\r\n")


def compose(payload: bytes | str) -> tuple[str, bytes]:
    """Return the recipient's address, and the message."""
    job = json.loads(payload)
    ((address, name),) = job["to"].items()
    letter = MIMEText(job["body"], policy=_CRLF)
    letter["From"] = SENDER
    letter["To"] = formataddr((name, address))
    letter["Subject"] = job["subject"]
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain="example.com")
    return address, letter.as_bytes()
