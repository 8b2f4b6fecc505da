"""A relay: hosts under one name, and what their owner has decided for them all.

    TLS is       with smtps:// and smtp+starttls://, and wherever there is a login: required and
                 verified. With bare smtp://: there when the host offers it, not verified;
                 `tls = "required"` forbids to do without. `auth_in_clear` makes smtp:// with a
                 login as bare smtp:// is. `verify = false` leaves out the verification alone.
    a login      is a password, or a bearer token that lies in `token_file` and may change there

`contradiction` finds settings that can't both be meant, so that they are refused at start and
nobody believes in a protection that isn't there. Values only: nothing here reads a file.
"""

import ipaddress
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from geomail.relays.limits import Limits, Rate, SiteLimits, Sites
from geomail.relays.url import Member, Tls

Pipeline = Literal["off", "message", "overlap"]
Chunking = Literal["off", "on"]


@dataclass(frozen=True, slots=True)
class Relay:
    """Hosts in the order in which they are tried, or by weight; paths are those of files."""

    name: str
    members: tuple[Member, ...]
    tls_required: bool = False
    ca_file: str | None = None
    helo: str | None = None
    pipeline: Pipeline = "overlap"
    chunking: Chunking = "off"
    in_flight: int = 8
    verify: bool = True
    cert_file: str | None = None
    key_file: str | None = None
    source_address: str | None = None
    token_file: str | None = None
    auth_in_clear: bool = False
    weights: tuple[int, ...] = ()  # of the members; none: in order
    connections: int | None = None
    rate: tuple[Rate, ...] = ()
    messages_per_connection: int | None = None
    max_recipients: int | None = None
    site: Sites = ()

    @property
    def limits(self) -> SiteLimits:
        """Return what the owner allows himself here, and at sites of `mx` that are named."""
        general = Limits(
            connections=self.connections,
            rates=self.rate,
            messages_per_connection=self.messages_per_connection,
            max_recipients=self.max_recipients,
        )
        return SiteLimits(general, {name: _limits(general, said) for name, said in self.site})

    @property
    def is_direct(self) -> bool:
        """Tell whether mail goes straight to the hosts of each recipient's domain."""
        return any(member.scheme == "mx" for member in self.members)

    def tls_of(self, member: Member) -> Tls:
        """Return how TLS begins with `member`; "may": and it may be done without."""
        if member.tls == "implicit" or self.tls_required:
            return "implicit" if member.tls == "implicit" else "starttls"
        return "may" if self.auth_in_clear and member.scheme == "smtp" else member.tls

    def verifies(self, member: Member) -> bool:
        """Tell whether `member` has to prove its name."""
        is_as_bare = self.auth_in_clear and member.scheme == "smtp"
        return self.verify and member.verified and not is_as_bare


def _limits(general: Limits, said: tuple[tuple[str, object], ...]) -> Limits:
    fields: dict[str, Any] = {"rates" if key == "rate" else key: value for key, value in said}
    return replace(general, **fields)


def contradiction(relay: Relay, written: Collection[str], *, are_meant: bool) -> str | None:
    """Return what of `relay` can't be meant together, and what to do; or None.

    `written`: the keys that somebody wrote down. `are_meant`: those keys were written for these
    hosts, so that one which does nothing for them is an error.
    """
    found = next((said for is_so, said in _AMONG_KEYS if is_so(relay)), None)
    if found or not are_meant:
        return found
    if relay.verify and "verify" in written and not all(map(relay.verifies, relay.members)):
        return "verify = true: a host is verified with smtps:// or smtp+starttls:// only"
    return next((said for is_so, said in _WITH_HOSTS if is_so(relay)), None) or _family(relay)


def _logins(relay: Relay) -> list[Member]:
    return [member for member in relay.members if member.user is not None]


def _places(relay: Relay) -> list[tuple[str, int]]:
    return [(member.host, member.port) for member in relay.members]


_Contradictions = tuple[tuple[Callable[[Relay], object], str], ...]

_AMONG_KEYS: _Contradictions = (
    (
        lambda relay: relay.is_direct and len(relay.members) > 1,
        "mx is every domain's own hosts, and can't stand beside others: leave one of them out",
    ),
    (
        lambda relay: relay.site and not relay.is_direct,
        "site is for the relay mx: write the limits of these hosts beside their url",
    ),
    (
        lambda relay: len(set(_places(relay))) < len(relay.members),
        "the same host and port stand twice among its URLs: leave one of them out",
    ),
    (
        lambda relay: relay.is_direct and relay.weights,
        "weights are for hosts in a list, and mx is every domain's own: leave them out",
    ),
    (
        lambda relay: relay.weights and len(relay.weights) != len(relay.members),
        "weights need one number for each URL, in the same order",
    ),
    (
        lambda relay: relay.weights and not any(relay.weights),
        "with weights that are all 0 no host gets mail first: give one of them 1",
    ),
    (
        lambda relay: relay.ca_file and not relay.verify,
        "ca_file says whom to trust, and verify = false trusts anybody: leave one of them out",
    ),
    (
        lambda relay: relay.key_file and not relay.cert_file,
        "key_file is of no use without cert_file: name the certificate too",
    ),
    (
        lambda relay: relay.token_file and relay.auth_in_clear,
        "token_file and auth_in_clear: a token is never sent without TLS; leave one of them out",
    ),
    (
        lambda relay: relay.auth_in_clear and relay.tls_required,
        'auth_in_clear and tls = "required" exclude each other: leave one of them out',
    ),
    (
        lambda relay: relay.chunking == "on" and relay.pipeline != "overlap",
        'chunking = "on" needs pipeline = "overlap": leave one of them out',
    ),
)
_WITH_HOSTS: _Contradictions = (
    (
        lambda relay: relay.token_file and any(m.password is not None for m in relay.members),
        "token_file and a password are two ways to log in: leave one of them out",
    ),
    (
        lambda relay: relay.token_file and not _logins(relay),
        "token_file is of no use without a user: write USER@ before the host in the URL",
    ),
    (
        lambda relay: relay.auth_in_clear and not any(m.scheme == "smtp" for m in _logins(relay)),
        "auth_in_clear is for smtp:// with a login: here no host has both",
    ),
    (
        lambda relay: relay.ca_file and not any(map(relay.verifies, relay.members)),
        "ca_file is of no use where no host is verified: write smtp+starttls:// or smtps://",
    ),
)


def _family(relay: Relay) -> str | None:
    """Say which host can't be reached from the source address: it has the other kind."""
    if relay.source_address is None:
        return None
    ours = ipaddress.ip_address(relay.source_address)
    for member in relay.members:
        try:
            theirs = ipaddress.ip_address(member.host)
        except ValueError:  # a name, which may have both kinds
            continue
        if theirs.version != ours.version:
            return f"source_address {ours} is IPv{ours.version}, and {theirs} can't be reached so"
    return None
