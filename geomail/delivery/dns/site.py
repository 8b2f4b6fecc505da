"""Sites: which hosts take a domain's mail, by what DNS has answered.

    what DNS says of the domain                       its mail
    MX records                                        goes to their hosts, the lowest preference
                                                      first, equals in an order drawn by lot
    one MX record that names no host (RFC 7505)       never goes: 5.1.10, nobody is connected to
    no MX record, but an address                      goes to the domain itself
    neither                                           never goes: 5.4.4
    no such domain                                    never goes: 5.1.2
    MX records, and no host of them has an address    later: 4.4.4
    nothing: SERVFAIL, refused, silence               later: 4.4.3
    one of the MX hosts is ourselves                  goes to those preferred to us; when nobody is,
                                                      never: 5.4.6, it would come back for ever

Domains with the same hosts in the same order of preference share one site and its name; the
numbers behind the order mean nothing elsewhere. `[192.0.2.1]` as a domain is its own site.

An MX record leads nowhere when what it names is no name of a host: an IP address is none. Nor is an
address that would bring the mail back to this machine: whoever owns a domain could have us speak
to a server that trusts its own machine. `is_at_home` allows it, for servers on this machine.

Values and pure functions. Who asks DNS, and how long an answer is kept, is told in sites.py.
"""

import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, groupby
from typing import Generic, TypeVar

from geomail.errors import PayloadError
from geomail.letter.address import domain_of

MOST_HOSTS = 8
_MOST_RECORDS = 64
_LONGEST_NAME = 60
_LONGEST_DOMAIN, _LONGEST_LABEL = 253, 63  # RFC 1035 section 2.3.4, as text
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NUMBERS = re.compile(r"[0-9.]+")
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")

Record = TypeVar("Record")


class Said(Enum):
    """What kind of answer DNS gave to one question."""

    RECORDS = "records"
    NOTHING = "no such record"
    NO_NAME = "no such name"
    FAILED = "no answer"


@dataclass(frozen=True, slots=True)
class Answer(Generic[Record]):
    """The answer to one question; `text`: why there is none, for people."""

    said: Said
    records: tuple[Record, ...] = ()
    ttl_s: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    """One MX record; the host in lower case without its last dot, "" where there is none."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Site:
    """Hosts in groups of equal preference, the preferred one first; equal ones share the name."""

    name: str
    groups: tuple[tuple[str, ...], ...] = field(compare=False)

    @property
    def hosts(self) -> list[str]:
        """Return all hosts, the preferred ones first, equals by name."""
        return list(chain.from_iterable(self.groups))

    def as_own(self, domain: str) -> "Site":
        """Return the same hosts as a site of one domain alone."""
        return Site(f"@{domain}", self.groups)

    def in_order(self, lot: int) -> list[str]:
        """Return the hosts in the order in which to try them; `lot` (>= 0) shuffles equals."""
        ordered = []
        for group in self.groups:
            left = list(group)
            while left:
                lot, drawn = divmod(lot, len(left))
                ordered.append(left.pop(drawn))
        return ordered


@dataclass(frozen=True, slots=True)
class Unroutable:
    """Why a domain's mail goes nowhere, now or ever: an enhanced status code, and words."""

    code: str
    text: str

    @property
    def is_permanent(self) -> bool:
        """Tell whether asking again later is of no use."""
        return self.code.startswith("5")

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def mail_domain(recipient: str) -> str | Unroutable:
    """Return the domain of an address as DNS is asked for it: A-labels in lower case, no last dot.

    An address literal is returned as it is written.
    """
    try:
        domain = domain_of(recipient)
    except PayloadError as error:
        return Unroutable("5.1.3", str(error))
    if domain.startswith("["):
        return domain
    name = domain.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _LONGEST_DOMAIN or not all(0 < len(each) <= _LONGEST_LABEL for each in labels):
        return Unroutable("5.1.2", f"{name[:80]} can't be the name of a domain")
    return name


def site_by_literal(domain: str, *, is_at_home: bool = False) -> Site | Unroutable | None:
    """Return where the mail for an address literal goes (RFC 5321 section 4.1.3).

    None: it is a name. `is_at_home`: an address of this machine will do.
    """
    if not domain.startswith("["):
        return None
    text = domain[1:].removesuffix("]")
    is_ip6 = text[:5].lower() == "ipv6:"
    try:
        address = ipaddress.ip_address(text[5:] if is_ip6 else text)
    except ValueError:
        return Unroutable("5.1.3", f"{domain[:80]} is not an address of a host")
    if is_ip6 != (address.version == 6):
        return Unroutable("5.1.3", f"{domain[:80]} is not an address of a host")
    if not is_at_home and not leads_away(str(address)):
        return Unroutable("5.4.6", f"{domain[:80]} is this machine's own address, or nobody's")
    return Site(str(address), ((str(address),),))


def site_by_mx(domain: str, mx: Answer[Mx], ours: Collection[str]) -> Site | Unroutable | None:
    """Return where the mail of `domain` goes by its MX records, ours being the names we go by.

    None: it has none, and its addresses decide.
    """
    if mx.said is Said.NOTHING:
        return None
    if mx.said is Said.NO_NAME:
        return Unroutable("5.1.2", f"there is no domain {domain}")
    if mx.said is Said.FAILED:
        return Unroutable("4.4.3", f"no MX of {domain} found: {mx.text}")
    records = sorted(mx.records)[:_MOST_RECORDS]
    if all(record.host == "" for record in records):
        return Unroutable("5.1.10", f"{domain} takes no mail: its MX record says so (RFC 7505)")
    preferred = _without_us(records, ours)
    if not preferred:
        return Unroutable("5.4.6", f"the MX of {domain} is this host, {records[0].host}: a loop")
    fit = [record for record in preferred if _is_name(record.host)]
    if not fit:
        return Unroutable("4.4.4", f"no MX record of {domain} names a host")
    return _site(fit)


def site_by_address(domain: str, found: Answer[str]) -> Site | Unroutable:
    """Return where the mail of a domain without MX records goes: to itself (RFC 5321 section 5.1).

    `found`: its addresses, those that are no use left out.
    """
    if found.said is Said.RECORDS:
        return _site([Mx(0, domain)])
    if found.said is Said.FAILED:
        return Unroutable("4.4.3", f"no address of {domain} found: {found.text}")
    return Unroutable("5.4.4", f"{domain} has neither an MX record nor an address")


def with_addresses(domain: str, site: Site, found: Mapping[str, Answer[str]]) -> Site | Unroutable:
    """Return `site` with the hosts that may be reached, by the addresses that were found.

    A host about which nothing was found out stays, and so does one that was not asked for.
    """
    doomed = {host for host, answer in found.items() if answer.said in (Said.NOTHING, Said.NO_NAME)}
    failed = [answer.text for answer in found.values() if answer.said is Said.FAILED]
    if any(answer.said is Said.RECORDS for answer in found.values()):
        kept = (tuple(h for h in group if h not in doomed) for group in site.groups)
        return replace(site, groups=tuple(group for group in kept if group))
    if failed:
        return Unroutable("4.4.3", f"no address of an MX of {domain} found: {failed[0]}")
    hosts = ", ".join(list(found)[:3]) + (", …" if len(found) > 3 else "")
    return Unroutable("4.4.4", f"no MX of {domain} has an address to connect to: {hosts}")


def together(answers: Iterable[Answer[str]], *, is_at_home: bool) -> Answer[str]:
    """Return one answer about a host's addresses of either kind, those of no use left out."""
    answers = list(answers)
    usable = [
        address
        for answer in answers
        for address in answer.records
        if is_at_home or leads_away(address)
    ]
    ttl_s = min(answer.ttl_s for answer in answers)
    failed = [answer for answer in answers if answer.said is Said.FAILED]
    if usable:
        return Answer(Said.RECORDS, tuple(dict.fromkeys(usable)), ttl_s)
    if failed:
        return Answer(Said.FAILED, (), failed[0].ttl_s, failed[0].text)
    said = Said.NO_NAME if all(each.said is Said.NO_NAME for each in answers) else Said.NOTHING
    return Answer(said, (), ttl_s)


def leads_away(address: str) -> bool:
    """Return whether an address can be another machine's, and one machine's alone."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    is_here = found.is_loopback or found.is_unspecified or found.is_link_local
    is_nobody = found.is_multicast or (found.version == 4 and found.is_reserved)
    return not (is_here or is_nobody or (found.version == 4 and found in _THIS_NETWORK))


def _without_us(records: Sequence[Mx], ours: Collection[str]) -> list[Mx]:
    """Return the records that are preferred to our own (RFC 5321 section 5.1)."""
    own = [record.preference for record in records if record.host in ours]
    return [each for each in records if each.host and (not own or each.preference < min(own))]


def _is_name(host: str) -> bool:
    is_whole = len(host) <= _LONGEST_DOMAIN and _HOST.fullmatch(host) is not None
    return is_whole and _NUMBERS.fullmatch(host) is None


def _site(records: Sequence[Mx]) -> Site:
    groups, seen = [], set[str]()
    for _, equals in groupby(records, key=lambda record: record.preference):
        group = tuple(dict.fromkeys(each.host for each in equals if each.host not in seen))
        seen.update(group)
        if group:
            groups.append(group)
    return Site(_name(groups), tuple(groups))


def _name(groups: Sequence[Sequence[str]]) -> str:
    """Return hosts of equal preference joined by +, and what is preferred before a comma."""
    whole = ",".join("+".join(group) for group in groups)
    if len(whole) <= _LONGEST_NAME:
        return whole
    mark = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return f"{groups[0][0][-_LONGEST_NAME:]}~{mark}"
