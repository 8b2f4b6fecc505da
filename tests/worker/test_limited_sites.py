"""Limits with the relay mx: each site has its own, by the name of a domain or of an MX host."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns_host import DnsHost
from hired import Hired, Place, until

from geomail.relays import Rate
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)
LIMITS = """
[relay.default]
url = "mx:{port}"
connections = 3
[relay.default.site."own.example"]
connections = 1
max_recipients = 2
[relay.default.site."b.example"]
rate = "50/s"
"""


class Town:
    """Two hosts, three domains: two share a host, and one of those has limits of its own."""

    def __init__(self) -> None:
        self.dns = DnsHost()
        self.most: dict[str, int] = {}
        self.sizes: list[int] = []
        self.sinks: dict[str, Sink] = {}
        port = 0
        for number, name in enumerate(("mx.a.example", "mx.b.example"), 2):
            self.sinks[name] = sink = Sink(
                (f"127.0.0.{number}", port), on_mail=self._note, delay_s=0.01
            ).start()
            port = sink.address[1]
            self.dns.add(f"{name} 300 A 127.0.0.{number}")
        self.port = port
        for domain, host in (("a", "a"), ("own", "a"), ("b", "b")):
            self.dns.add(f"{domain}.example 300 MX 1 mx.{host}.example.")

    def _note(self, _sender: str, recipients: tuple[str, ...], _content: bytes) -> None:
        self.sizes.append(len(recipients))
        for name, sink in self.sinks.items():
            self.most[name] = max(self.most.get(name, 0), sink.connections)

    def close(self) -> None:
        """End everything."""
        self.dns.stop()
        for sink in self.sinks.values():
            sink.stop()


@pytest.fixture
def town() -> Iterator[Town]:
    """Give the town; a test asks for it first, so that its workers end first."""
    made = Town()
    yield made
    made.close()


def worker(place: Place, town: Town, folder: Path) -> Hired:
    file = folder / "geomail.toml"
    file.write_text(LIMITS.format(port=town.port))
    address, port = town.dns.address
    return place.worker(file=file, nameserver=f"{address}:{port}")


def mail(*recipients: str) -> bytes:
    return json.dumps({"to": recipients, "text": "t"}).encode()


def test_each_site_has_its_own_limits(town: Town, place: Place, tmp_path: Path) -> None:
    hired = worker(place, town, tmp_path)
    place.push(*(mail(f"u{n}@a.example") for n in range(100)))
    place.push(*(mail(f"u{n}@b.example") for n in range(100)))
    until(lambda: place.held() == 0 and sum(town.sizes) == 200, "all", within_s=20)
    assert town.most["mx.a.example"] == 3
    assert 1 <= town.most["mx.b.example"] <= 3  # for its rate one may be enough
    routes = hired.lanes.routes
    assert [str(route) for route in sorted(routes)] == [
        "default", "default/mx.a.example", "default/mx.b.example",
    ]  # fmt: skip
    limits = routes["default/mx.b.example"].lanes[0].limits
    assert limits is not None
    assert limits.has_rate
    assert limits._limits.rates == (Rate(50, 1),)


def test_a_domain_with_limits_of_its_own_is_a_site_of_its_own(
    town: Town, place: Place, tmp_path: Path
) -> None:
    hired = worker(place, town, tmp_path)
    place.push(*(mail(f"u{n}@own.example") for n in range(50)))
    until(lambda: place.held() == 0 and sum(town.sizes) == 50, "all", within_s=20)
    assert town.most["mx.a.example"] == 1
    town.sizes.clear()
    place.push(mail(*(f"u{n}@own.example" for n in range(5)), "x@a.example", "y@a.example"))
    until(lambda: place.held() == 0 and sum(town.sizes) == 7, "all", within_s=20)
    assert sorted(town.sizes) == [1, 2, 2, 2]
    assert "default/@own.example" in hired.lanes.routes
