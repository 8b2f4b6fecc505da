"""Name servers: one question to DNS, one answer, by dnspython over sockets that gevent has patched.

A question waits in its own greenlet and nobody else's. It goes to one server after the other, each
for 2.5 s, until there is an answer or 10 s are over; by UDP, and by TCP where the answer is cut
short. What is no answer to this question (from elsewhere, with another number or name) is passed
over, as if nothing had come. At most 100 questions are under way; further ones wait for a place.

Whatever comes of it is an Answer: a server that fails, lies or is silent is Said.FAILED, never an
exception. The servers are asked to do the whole search (CNAMEs included), as those that
/etc/resolv.conf names do. Nothing is kept here: sites.py keeps it.
"""

from collections.abc import Sequence
from typing import TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
from gevent.lock import BoundedSemaphore

from geomail import metrics
from geomail.delivery.dns.site import Answer, Mx, Said
from geomail.errors import ConfigError

_MOST_QUESTIONS = 100
_MOST_WHY = 200
_FAILED_TTL_S = 30.0
_EDNS_PAYLOAD = 1232  # what passes everywhere without fragments

Record = TypeVar("Record")


class NameServers:
    """The servers that are asked, and how long."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] = (),
        *,
        within_s: float = 10.0,
        try_s: float = 2.5,
    ) -> None:
        """Ask `servers`, (address, port) each, else those of /etc/resolv.conf.

        Raises ConfigError when that file names none.
        """
        self._within_s = within_s
        self._places = BoundedSemaphore(_MOST_QUESTIONS)
        try:
            self._resolver = dns.resolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise ConfigError(
                f"the relay mx needs a name server in /etc/resolv.conf: {error}"
            ) from (error)
        if servers:
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(address, port) for address, port in servers
            ]
        self._resolver.timeout = try_s
        self._resolver.use_edns(0, 0, _EDNS_PAYLOAD)

    def mx(self, domain: str) -> Answer[Mx]:
        """Return the MX records of `domain`."""
        answer = self._ask(domain, dns.rdatatype.MX)
        records = (
            Mx(each.preference, _host(each.exchange))
            for each in answer.records
            if isinstance(each, dns.rdtypes.ANY.MX.MX)
        )
        return Answer(answer.said, tuple(records), answer.ttl_s, answer.text)

    def ip4(self, host: str) -> Answer[str]:
        """Return the IPv4 addresses of `host`."""
        return self._addresses(host, dns.rdatatype.A)

    def ip6(self, host: str) -> Answer[str]:
        """Return the IPv6 addresses of `host`."""
        return self._addresses(host, dns.rdatatype.AAAA)

    def _addresses(self, host: str, kind: dns.rdatatype.RdataType) -> Answer[str]:
        answer = self._ask(host, kind)
        records = (
            str(each.address)
            for each in answer.records
            if isinstance(each, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
        )
        return Answer(answer.said, tuple(records), answer.ttl_s, answer.text)

    def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> Answer[object]:
        with self._places:
            metrics.count("dns_questions")
            try:
                found = self._resolver.resolve(
                    dns.name.from_text(name),
                    kind,
                    raise_on_no_answer=False,
                    search=False,
                    lifetime=self._within_s,
                )
            except dns.resolver.NXDOMAIN as error:
                return Answer(Said.NO_NAME, (), _ttl_s(error))
            except (dns.exception.DNSException, OSError) as error:
                metrics.count("dns_failures")
                return Answer(Said.FAILED, (), _FAILED_TTL_S, self._why(error))
        if fault := _fault(found):
            metrics.count("dns_failures")
            return Answer(Said.FAILED, (), _FAILED_TTL_S, f"{found.nameserver}: {fault}")
        ttl_s = found.chaining_result.minimum_ttl
        said = Said.NOTHING if found.rrset is None else Said.RECORDS
        return Answer(said, tuple(found.rrset or ()), ttl_s)

    def _why(self, error: Exception) -> str:
        """Say what each server did, in a line."""
        if isinstance(error, dns.resolver.LifetimeTimeout):
            return f"no answer within {self._within_s:g} s"
        tries = getattr(error, "kwargs", {}).get("errors") or ()
        said = dict.fromkeys(f"{_server(each[0])}: {each[3]}" for each in tries)
        text = ", ".join(said) or str(error) or type(error).__name__
        return " ".join(text.split())[:_MOST_WHY]


def _fault(found: dns.resolver.Answer) -> str | None:
    """Return why an answer must not be believed, which looks like one."""
    if found.response.flags & dns.flags.TC:  # by TCP too, where dnspython lets it pass
        return "an answer cut short"
    # It knows others who may know: nothing is said about the name (RFC 2308 section 2.2.1).
    kinds = {rrset.rdtype for rrset in found.response.authority}
    is_referral = dns.rdatatype.NS in kinds and dns.rdatatype.SOA not in kinds
    return "a referral to other servers" if found.rrset is None and is_referral else None


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _server(named: object) -> str:
    return str(named).removeprefix("Do53:")


def _ttl_s(error: dns.resolver.NXDOMAIN) -> float:
    answers = error.kwargs["responses"].values()
    return min(float(each.resolve_chaining().minimum_ttl) for each in answers)
