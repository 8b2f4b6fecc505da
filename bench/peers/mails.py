"""One job of the list handed to a client, as the Python peers do it: in two ways.

`as_documented` is what the documentation of email, smtplib and aiosmtplib shows: an `EmailMessage`
for `send_message`, which writes it out and reads the envelope from its header. `tuned` goes beyond
that: `MIMEText` of the legacy API with its classic policy, a fifth of the time for the same letter,
and `sendmail`. The jobs are geomail's own, JSON with one recipient. What a client of aiosmtplib
returns has to be awaited.
"""

import email.policy
import json
from datetime import UTC, datetime
from email.message import EmailMessage
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, make_msgid
from typing import Any

SENDER = "bench@example.com"
LIST = "bench:mails"
AT_ONCE = 10  # jobs popped in one round trip

_CRLF = email.policy.compat32.clone(linesep="\r\n")


def way(words: list[str]) -> Any:
    """Return the way that the words of a command line ask for."""
    return as_documented if "EmailMessage" in words else tuned


def as_documented(client: Any, payload: bytes | str) -> Any:
    """Send a job by EmailMessage and send_message."""
    job = json.loads(payload)
    ((address, name),) = job["to"].items()
    letter = EmailMessage()
    letter["From"] = SENDER
    letter["To"] = formataddr((name, address))
    letter["Subject"] = job["subject"]
    letter["Date"] = datetime.now(UTC)
    letter["Message-ID"] = make_msgid(domain="example.com")
    letter.set_content(job["body"])
    return client.send_message(letter)


def tuned(client: Any, payload: bytes | str) -> Any:
    """Send a job by MIMEText and sendmail."""
    job = json.loads(payload)
    ((address, name),) = job["to"].items()
    letter = MIMEText(job["body"], policy=_CRLF)
    letter["From"] = SENDER
    letter["To"] = formataddr((name, address))
    letter["Subject"] = job["subject"]
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain="example.com")
    return client.sendmail(SENDER, [address], letter.as_bytes())
