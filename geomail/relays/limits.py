"""Limits: what a relay's owner allows himself there, over all workers and machines.

    connections               open at a time
    rate                      mails a second, minute or hour; several: a mail has to keep to all
    messages_per_connection   then it is left, and another one made
    max_recipients            in one transaction, below the general setting

Of several rates the one with the shortest unit is the pace: its mails are spread evenly, so that
100/s is one each 10 ms. The others are quotas: so many in any minute, any hour, as fast as the pace
allows. With the relay `mx` all of them hold for each site by itself, and `[relay.NAME.site."…"]`
says other ones for some: named by the recipients' domain, or by an MX host, which stands for all
hosts under it. What such a table doesn't say is as the relay says it. Values only.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from geomail import spelling
from geomail.values import Read, a_labels, host_name, whole

MOST = 1_000_000
_UNITS_S = {"s": 1, "min": 60, "h": 3600}
_RATE = re.compile(r"\s*([0-9]{1,9})\s*/\s*([A-Za-z]+)\s*")
_RATES = 'mails a second, minute or hour, such as "100/s", "500/min" or "5000/h", or a list of them'


@dataclass(frozen=True, slots=True)
class Rate:
    """So many mails in so many seconds."""

    count: int
    per_s: int

    def __str__(self) -> str:
        unit = next(unit for unit, per_s in _UNITS_S.items() if per_s == self.per_s)
        return f"{self.count}/{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for one relay, or one site of `mx`; None, and no rates: nothing does."""

    connections: int | None = None
    rates: tuple[Rate, ...] = ()
    messages_per_connection: int | None = None
    max_recipients: int | None = None

    @property
    def are_shared(self) -> bool:
        """True where workers have to agree with each other."""
        return self.connections is not None or bool(self.rates)


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """The limits of a relay `mx`: in general, and by domain or MX host."""

    general: Limits
    by_name: Mapping[str, Limits]

    def of_domain(self, domain: str) -> Limits | None:
        """Return the limits in a table with the name of a recipients' domain, or None."""
        return self.by_name.get(domain)

    def of_hosts(self, hosts: Iterable[str]) -> Limits:
        """Return the limits of a site by its hosts: by the longest name that one of them has."""
        names = [name for host in hosts for name in _above(host) if name in self.by_name]
        return self.by_name[max(names, key=len)] if names else self.general


def rates(value: object) -> tuple[Rate, ...]:
    """Read "100/s", or a list such as ["100/s", "5000/h"]: the pace first, then quotas."""
    written = [value] if isinstance(value, str) else value
    if not isinstance(written, list) or not written:
        raise ValueError(_RATES)
    found = sorted(map(_rate, written), key=lambda rate: rate.per_s)
    if len({rate.per_s for rate in found}) < len(found):
        raise ValueError("one rate for each of s, min and h")
    for short, long in itertools.pairwise(found):
        if long.count >= short.count * (long.per_s // short.per_s):
            raise ValueError(f"rates that each hold: {short} allows no more than {long} anyway")
    return tuple(found)


READERS: Mapping[str, Read] = {
    "connections": whole(1, 100_000),
    "rate": rates,
    "messages_per_connection": whole(1),
    "max_recipients": whole(1, 1000),
}
_SITES = f"tables of {', '.join(READERS)}"
Sites = tuple[tuple[str, tuple[tuple[str, object], ...]], ...]
"""What is written of sites: for each name its keys and values."""


def sites(value: object) -> Sites:
    """Read the tables of sites."""
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise ValueError(_SITES)
    found = tuple((_site_name(name), _site(name, table)) for name, table in value.items())
    names = [name for name, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"such that {twice} stands there once")
    return found


def _site_name(name: str) -> str:
    try:
        return host_name(a_labels(name.removesuffix(".")))
    except ValueError:
        raise ValueError(f"{_SITES}, each named by a domain or host, not {name!r}") from None


def _site(name: str, table: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    found = []
    for key, value in table.items():
        if isinstance(value, dict) and key not in READERS:
            raise ValueError(f'{_SITES}; a name with dots needs quotes, as site."{name}.{key}"')
        if key not in READERS:
            raise ValueError(f"{_SITES}; {key!r} of {name} is none{spelling.hint(key, READERS)}")
        try:
            found.append((key, READERS[key](value)))
        except ValueError as error:
            raise ValueError(f"such that {key} of {name} is {error}, not {value!r}") from None
    return tuple(found)


def _rate(value: object) -> Rate:
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(_RATES)
    unit = "min" if found[2] == "m" else found[2]
    if unit not in _UNITS_S:
        raise ValueError(f"{_RATES}; the units are s, min and h")
    if not 1 <= int(found[1]) <= MOST:
        raise ValueError(
            f'a rate from 1 to {MOST}; `geomail hold --relay` is the way to say "none"'
        )
    return Rate(int(found[1]), _UNITS_S[unit])


def _above(host: str) -> list[str]:
    """Return a host's name and all that it is under."""
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]
