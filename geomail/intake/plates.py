"""What stands on each door, for people who check their settings: `geomail check`.

    door tcp: 127.0.0.1:9501
      address: free
      may send: whoever shows door_token
      jobs go to: queue:email
      TLS: no

Read are the same files as when the doors open, so a certificate, logins or an address that would
end `run` or `listen` fail here first. An address that is in use is no failure: geomail may be
running. Nothing is listened on.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from geomail.config import Settings
from geomail.intake import certificate, listening
from geomail.intake.logins import read_logins


def plates(settings: Settings) -> Iterator[tuple[str, Callable[[], Sequence[str]]]]:
    """Yield the name of each door, and what looks at it: lines, or ConfigError."""
    for name, address in listening.wanted(settings).items():
        look = partial(_plate, name, address, settings)
        yield f"door {name}: {listening.shown(address)}", look


def _plate(name: str, address: tuple[str, int], settings: Settings) -> list[str]:
    listening.require_certificate(settings, [name])
    has_tls = certificate.tls_of(settings) is not None
    offered = "STARTTLS" if name == "smtp" else "from the start"
    return [
        f"address: {_state_of(name, address)}",
        f"may send: {_who(name, address[0], settings)}",
        f"jobs go to: {settings.queues[0][0]}",
        f"TLS: {offered}, with door_cert" if has_tls else "TLS: no",
    ]


def _state_of(name: str, address: tuple[str, int]) -> str:
    try:
        listening.bound(address).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise listening.cannot_listen(name, address, error) from None
        return "in use, as it is while geomail runs"
    return "free"


def _who(name: str, host: str, settings: Settings) -> str:
    is_smtp = name in listening.BY_LOGIN
    if is_smtp and settings.door_logins:
        users = len(read_logins(settings.door_logins))
        return f"who logs in: {users} user{'' if users == 1 else 's'} in {settings.door_logins}"
    if not is_smtp and settings.door_token:
        return "whoever shows door_token"
    if is_smtp or listening.is_loopback(host):
        return "programs on this machine"
    return "anybody who reaches it: set door_token, or listen on 127.0.0.1"
