"""The signpost: to which relays a job's mail goes by [[route]].

A payload that names a relay is not asked about here. The sender is the one in From, or that of the
settings where the job has none; of a finished message it is `mail_from`. With `redirect_to` the
address that gets everything counts, as everywhere. What has no domain, and what no entry takes,
goes to the relay `default`.
"""

from collections.abc import Sequence
from functools import lru_cache

from geomail.config import Settings
from geomail.delivery.dns.site import mail_domain
from geomail.job import Email

DEFAULT_RELAY = "default"


class Signpost:
    """The routing of some settings."""

    def __init__(self, settings: Settings) -> None:
        self._routing = settings.routing
        self._sender = settings.sender
        self._redirect_to = settings.redirect_to

    def relays_of(self, job: Email, recipients: Sequence[str]) -> set[str]:
        """Return the relays that the recipients' mail goes to."""
        sender = self.sender_domain(job)
        addresses = [self._redirect_to] if self._redirect_to else recipients
        return {self.relay_of(_domain_of(address), sender) for address in addresses}

    def relay_of(self, domain: str, sender_domain: str) -> str:
        """Return the relay for mail between two domains."""
        return self._routing.relay_of(domain, sender_domain) or DEFAULT_RELAY

    def sender_domain(self, job: Email) -> str:
        """Return the domain of a job's sender; "" where it has none."""
        if job.raw is not None:
            return _domain_of(job.mail_from or "")
        return _domain_of(job.sender.addr if job.sender is not None else self._sender or "")


def _domain_of(address: str) -> str:
    """Return the domain of an address, perhaps with a name before it, as [[route]] has it."""
    return _domain(address.rpartition("@")[2].rstrip("> "))


@lru_cache(maxsize=4096)
def _domain(text: str) -> str:
    domain = mail_domain(f"somebody@{text}")
    return domain if isinstance(domain, str) else ""
