"""What is to be done: a producer's payload becomes an Email, an HttpTask or a CallTask.

    payload ──► keys and values ──► a table row for each key ──► checks across keys ──► Job
     bytes        payload.py          fields, addresses,            shapes.py           kinds.py
                  phpserialize        headers, attachments, dsn
        └─ if it is plain, in one go (plain.py) ────────────────────────────────────────►

`decode` is the one door. It is pure: no clock, no randomness, no network, the same answer every
time. What can't be meant is refused with a PayloadError whose text the producer's author
understands: which key, what was expected, what came. Nothing is repaired, because a mail that went
out slightly wrong can't be called back, while a dead letter can be corrected and sent.

`relay_of` looks at nothing but where a mail may go, which is a tenth of the work.

Not promised: that a host, a relay or a class of that name exists. Who asks for those finds out.
"""

from geomail.job import plain
from geomail.job.glance import relay_of
from geomail.job.kinds import (
    Address,
    Attachment,
    CallTask,
    Dsn,
    Email,
    HttpTask,
    Job,
    RecipientDsn,
)
from geomail.job.payload import fields_of
from geomail.job.shapes import job_of

__all__ = [
    "Address",
    "Attachment",
    "CallTask",
    "Dsn",
    "Email",
    "HttpTask",
    "Job",
    "RecipientDsn",
    "decode",
    "relay_of",
]


def decode(payload: bytes) -> Job:
    """Return the job that a payload (JSON or PHP serialize) asks for.

    Raises PayloadError with the reason when it can never become one.
    """
    return plain.email_of(payload) or job_of(fields_of(payload))
