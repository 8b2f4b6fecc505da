"""From whom mails are whose payload does not say it: --from, else the login at their relay.

What is no address there is a mistake in the settings, and a ConfigError says in which one.
"""

from geomail.config import Relay, Settings
from geomail.errors import ConfigError, PayloadError
from geomail.job import Address, Email
from geomail.job.addresses import mailbox


def senders_of(settings: Settings) -> dict[str, Address | None]:
    """Return the sender for each relay by its name; None where mails have to say it themselves."""
    return {name: _sender(settings, relay) for name, relay in settings.relays.items()}


def check_redirect(settings: Settings) -> None:
    """Raise ConfigError unless `redirect_to` is an address and nothing else."""
    bare = settings.redirect_to
    if bare is not None and _mailbox(bare, "redirect_to").addr != bare:
        raise ConfigError(f"redirect_to must be an address without a name, not {bare!r}")


def require_reverse_path(email: Email) -> None:
    """Raise PayloadError unless a mail that nobody has signed says itself who gets its bounces."""
    if email.raw is None:
        raise PayloadError("no sender: the payload has no from; pass --from")
    if email.mail_from is None and email.return_path is None:
        raise PayloadError("no sender: the payload has raw and no mail_from; pass --from")


def _sender(settings: Settings, relay: Relay) -> Address | None:
    if settings.sender is not None:
        return _mailbox(settings.sender, "from")
    users = [member.user for member in relay.members if member.user and "@" in member.user]
    return _mailbox(users[0], "the relay's login") if users else None


def _mailbox(text: str, setting: str) -> Address:
    try:
        return mailbox(text, setting)
    except PayloadError as error:
        raise ConfigError(str(error)) from None
