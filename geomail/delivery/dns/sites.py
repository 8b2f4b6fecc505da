"""Sites by domain: DNS is asked once, and what it said is kept for as long as it may be.

An answer is kept by its TTL, from 5 s to a day; that something does not exist, by the SOA's (RFC
2308), an hour at most; a failure for 30 s. A bounded number is kept, and what is least recently
used goes first. Who asks for what is being asked for already waits for that answer. So a thousand
mails to one domain cost one question of each kind, and a domain that can't be found out costs one
every 30 s, whoever writes to it.

`find` waits for DNS, at most for three questions one after the other (MX, then the addresses of all
hosts at once); `known` never waits. The greenlets that ask end when their questions do, whatever
becomes of those who wait for them.
"""

import random
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

import gevent

from geomail.delivery.dns.cache import Cache
from geomail.delivery.dns.site import (
    MOST_HOSTS,
    Answer,
    Said,
    Site,
    Unroutable,
    site_by_address,
    site_by_literal,
    site_by_mx,
    together,
    with_addresses,
)

if TYPE_CHECKING:  # dnspython costs 50 ms, which only who asks it has to pay
    from geomail.delivery.dns.nameservers import NameServers

MOST_KEPT = 10_000
_SHORTEST_S, _LONGEST_S = 5.0, 86_400.0
_LONGEST_NOTHING_S = 3_600.0
_FAILED_S = 30.0

Value = TypeVar("Value")
Found = Site | Unroutable


class Sites:
    """Where the mail of each domain goes, and at which addresses hosts are."""

    def __init__(
        self,
        servers: "NameServers",
        *,
        ours: Collection[str],
        is_at_home: bool = False,
        most_kept: int = MOST_KEPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `servers`; `ours`: names of this host; `is_at_home`: loopback addresses will do."""
        self._servers = servers
        self._ours = frozenset(name.lower().removesuffix(".") for name in ours)
        self._is_at_home = is_at_home
        self._clock = clock
        self._found: Cache[Found] = Cache(most_kept)
        self._addresses: Cache[Answer[str]] = Cache(most_kept)
        self._finding: dict[str, gevent.Greenlet[[str], Found]] = {}
        self._asking: dict[str, gevent.Greenlet[[str], Answer[str]]] = {}

    def known(self, domain: str) -> Found | None:
        """Return where the mail of `domain` goes, when it is known by now; else None."""
        literal = site_by_literal(domain, is_at_home=self._is_at_home)
        return literal or self._found.get(domain, self._clock())

    def find(self, domain: str) -> Found:
        """Return where the mail of `domain` (as mail_domain() gives it) goes; waits for DNS."""
        found = self.known(domain) or _shared(self._finding, domain, self._find)
        return found or Unroutable("4.4.3", f"the search for {domain} was cut short")

    def addresses(self, host: str) -> Answer[str]:
        """Return the addresses of a host to which mail may be sent; waits for DNS."""
        kept = self._addresses.get(host, self._clock())
        if kept is not None:
            return kept
        asked = _shared(self._asking, host, self._ask)
        return asked or Answer(Said.FAILED, (), _FAILED_S, "the search was cut short")

    def _find(self, domain: str) -> Found:
        mx = self._servers.mx(domain)
        found: Found | None = site_by_mx(domain, mx, self._ours)
        kept_s = _kept_s(mx)
        if found is None:
            addresses = self.addresses(domain)
            found = site_by_address(domain, addresses)
            kept_s = min(kept_s, _kept_s(addresses))
        elif isinstance(found, Site):
            by_host = self._addresses_of(found)
            found = with_addresses(domain, found, by_host)
            kept_s = min(kept_s, *map(_kept_s, by_host.values()))
        self._found.put(domain, found, self._clock() + kept_s)
        return found

    def _addresses_of(self, site: Site) -> dict[str, Answer[str]]:
        hosts = site.in_order(random.getrandbits(64))[:MOST_HOSTS]
        asked = {host: gevent.spawn(self.addresses, host) for host in hosts}
        gevent.joinall(list(asked.values()))
        return {host: each.value for host, each in asked.items() if each.value is not None}

    def _ask(self, host: str) -> Answer[str]:
        other = gevent.spawn(self._servers.ip6, host)
        answers = [self._servers.ip4(host)]
        other.join()
        if other.value is not None:
            answers.append(other.value)
        found = together(answers, is_at_home=self._is_at_home)
        self._addresses.put(host, found, self._clock() + _kept_s(found))
        return found


def _shared(
    under_way: "dict[str, gevent.Greenlet[[str], Value]]", name: str, work: Callable[[str], Value]
) -> Value | None:
    """Return what `work` finds out about `name`: one greenlet does it for all who ask meanwhile.

    None when it broke.
    """
    worker = under_way.get(name)
    if worker is None:
        worker = under_way[name] = gevent.spawn(work, name)
        worker.rawlink(lambda _: under_way.pop(name))
    worker.join()
    return worker.value


def _kept_s(answer: Answer[Value]) -> float:
    if answer.said is Said.FAILED:
        return _FAILED_S
    longest_s = _LONGEST_S if answer.said is Said.RECORDS else _LONGEST_NOTHING_S
    return min(max(answer.ttl_s, _SHORTEST_S), longest_s)
