"""Django's mail goes to the queue: EMAIL_BACKEND = "geomail.django.EmailBackend".

    GEOMAIL = {"redis": "redis://127.0.0.1:6379", "queue": "queue:email", "timeout_s": 10}

All three may be left out; with MAILERS (Django 6.1) they may stand in OPTIONS. Django writes each
message, and geomail sends it as it is: whatever Django's own backends can send looks the same
through this one. A message that is not plain ASCII is written as 7-bit, so that every host takes
it. `message.geomail` may hold more keys of the payload (`relay`, `send_at`, `dedupe_key`, `id`, …);
the job's id is in `message.geomail_id` then.

Promised: what is counted as sent is on the queue. Threads, greenlets and forked processes share
what they may (geomail.client). Not promised: that it has been delivered; ask the client's
`outcome`, with that id. Failures are GeomailErrors, and Django's own for a message that can't be
written (BadHeaderError); with `fail_silently` the message is passed over.
"""

from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.generator import BytesGenerator
from email.policy import compat32
from functools import lru_cache
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend

from geomail import spelling
from geomail.client import Client
from geomail.errors import GeomailError

_SEVEN_BIT = compat32.clone(cte_type="7bit", linesep="\r\n")


class EmailBackend(BaseEmailBackend):
    """Puts messages on geomail's queue."""

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        alias: str | None = None,
        redis: str | None = None,
        queue: str | None = None,
        timeout_s: float | None = None,
        **others: object,
    ) -> None:
        """Read `GEOMAIL`, which the options go before; raises ImproperlyConfigured.

        What `send_mail` tells every backend, as `username`, is passed over.
        """
        super().__init__(**({} if alias is None else {"alias": alias, **others}))
        self.fail_silently = fail_silently
        options = {"redis": redis, "queue": queue, "timeout_s": timeout_s}
        self._given = _given(options)

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        """Put messages on the queue, and return how many are there."""
        return sum(map(self._send, email_messages))

    def _send(self, message: Any) -> bool:
        recipients = [str(addr) for addr in message.recipients()]
        if not recipients:
            return False
        try:
            message.geomail_id = _client(*self._given).send(
                mail_from=str(message.from_email),
                rcpt_to=recipients,
                raw=_written(message),
                **getattr(message, "geomail", {}),
            )
        except (GeomailError, ValueError):  # BadHeaderError is a ValueError
            if not self.fail_silently:
                raise
            return False
        return True


def _given(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    given: Mapping[str, Any] = getattr(settings, "GEOMAIL", {})
    for name in given:
        if name not in options:
            raise ImproperlyConfigured(
                f"GEOMAIL has no {name!r}{spelling.hint(str(name), options)}"
            )
    pairs = [*given.items(), *options.items()]
    return tuple({name: value for name, value in pairs if value is not None}.items())


@lru_cache(maxsize=16)
def _client(*given: tuple[str, Any]) -> Client:
    """Return the client of these settings; a backend is made for each mail, a client once."""
    names = {"redis": "url"}
    return Client(**{names.get(name, name): value for name, value in given})


def _written(message: Any) -> bytes:
    """Return the message as Django writes it, without 8-bit content where that can be."""
    written: bytes = message.message().as_bytes()
    if written.isascii():
        return written
    # Read anew, because Django's own parts put their 8-bit content back whatever they are told.
    out = BytesIO()
    generator = BytesGenerator(out, mangle_from_=False, policy=_SEVEN_BIT)
    try:
        generator.flatten(message_from_bytes(written))
    except UnicodeEncodeError:  # 8-bit text that doesn't say in which charset
        return written
    return out.getvalue()
