"""A town for the tests of the relay mx: hosts of several domains, and DNS that leads to them."""

import json
from collections import Counter

from dns_host import DnsHost
from hired import Hired, Place, until

from geomail.sink import Sink

WITHIN_S = 20.0


class Town:
    """Hosts at 127.0.0.2 and up, all on one port, and the DNS that leads to them."""

    def __init__(self) -> None:
        self.dns = DnsHost()
        self.arrived: dict[str, Counter[str]] = {}
        self.sinks: dict[str, Sink] = {}
        self.port = 0

    def host(self, name: str) -> Sink:
        """Start a host, with an address record."""
        took = self.arrived[name] = Counter()
        address = f"127.0.0.{len(self.arrived) + 1}"
        sink = Sink((address, self.port), on_mail=lambda _, to, __: took.update(to)).start()
        self.sinks[name] = sink
        self.port = sink.address[1]
        self.dns.add(f"{name} 300 A {address}")
        return sink

    def domain(self, name: str, *hosts: str) -> None:
        """Add MX records, the preferred one first."""
        for preference, host in enumerate(hosts):
            self.dns.add(f"{name} 300 MX {preference} {host}.")

    def took(self, host: str) -> dict[str, int]:
        """Return how often which recipient came to a host."""
        return dict(self.arrived[host])

    def close(self) -> None:
        """End everything."""
        self.dns.stop()
        for sink in self.sinks.values():
            sink.stop()


def mail(*recipients: str, **more: object) -> bytes:
    return json.dumps({"to": recipients, "text": "t", **more}).encode()


def worker(place: Place, town: Town, **more: object) -> Hired:
    address, port = town.dns.address
    return place.worker(f"mx:{town.port}", nameserver=f"{address}:{port}", **more)


def all_settled(place: Place, held: int = 0) -> None:
    until(lambda: place.held() == held, f"{held} held", within_s=WITHIN_S)
