"""[[route]] at work: several relays with hosts of their own, and jobs that go to more than one."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dns_host import DnsHost
from hired import Hired, Place, until, url

from geomail.sink import Sink
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy

pytest_plugins = ("worker_fixtures",)
WITHIN_S = 20.0


class Relays:
    """Hosts by the name of their relay, and the file that leads to them."""

    def __init__(self, folder: Path) -> None:
        self.took: dict[str, Counter[str]] = {}
        self.file = folder / "geomail.toml"
        self.sinks: dict[str, Sink] = {}
        self._stack = ExitStack()

    def add(self, name: str, *, policy: Policy | None = None) -> Sink:
        """Start the one host of a relay."""
        took = self.took[name] = Counter()
        sink = Sink(policy=policy or Policy(), on_mail=lambda _, to, __: took.update(to))
        self.sinks[name] = self._stack.enter_context(sink)
        return sink

    def write(self, *entries: str, more: str = "") -> Path:
        """Write the file: these routes, and a table for each relay."""
        routes = "".join(f"[[route]]\n{entry}\n" for entry in entries)
        tables = [f"[relay.{name}]\nurl = '{url(sink)}'" for name, sink in self.sinks.items()]
        self.file.write_text("\n".join([routes, *tables, more]))
        return self.file

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[Relays]:
    """Give the relays default, east and west; a test asks first, so that its workers end first."""
    made = Relays(tmp_path)
    for name in ("default", "east", "west"):
        made.add(name)
    yield made
    made.close()


def mail(*recipients: str, **more: object) -> bytes:
    return json.dumps({"to": recipients, "text": "t", **more}).encode()


EAST = "recipient = ['east.example', '*.east.example']\nrelay = 'east'"
WEST = "recipient = 'west.example'\nrelay = 'west'"
SHOP = "sender = 'shop.example'\nrelay = 'west'"


def test_mail_goes_where_its_domain_says(relays: Relays, place: Place) -> None:
    place.worker(file=relays.write(EAST, WEST))
    place.push(
        mail("a@East.Example"),
        mail("b@x.east.example"),
        mail("c@west.example"),
        mail("d@elsewhere.example"),
        mail("e@east.example", relay="west"),
    )
    until(lambda: sum(map(Counter.total, relays.took.values())) == 5, within_s=WITHIN_S)
    assert relays.took == {
        "default": {"d@elsewhere.example": 1},
        "east": {"a@East.Example": 1, "b@x.east.example": 1},
        "west": {"c@west.example": 1, "e@east.example": 1},
    }


def test_mail_goes_where_its_sender_says(relays: Relays, place: Place) -> None:
    place.worker(file=relays.write(EAST, SHOP))
    finished = {"mail_from": "x@shop.example", "raw": "U3ViamVjdDogeA0KDQp4DQo="}
    place.push(
        mail("a@x.example", **{"from": "Shop <news@Shop.Example>"}),
        mail("b@east.example", **{"from": "news@shop.example"}),
        mail("c@x.example", **{"from": "news@other.example"}),
        mail("d@x.example"),
        json.dumps({"rcpt_to": ["e@x.example"], **finished}).encode(),
    )
    until(lambda: sum(map(Counter.total, relays.took.values())) == 5, within_s=WITHIN_S)
    assert relays.took == {
        "default": {"c@x.example": 1, "d@x.example": 1},
        "east": {"b@east.example": 1},
        "west": {"a@x.example": 1, "e@x.example": 1},
    }


def test_the_sender_that_the_settings_name_counts_too(relays: Relays, place: Place) -> None:
    place.worker(file=relays.write("sender = 'example.com'\nrelay = 'west'"))
    place.push(mail("a@x.example"))
    until(lambda: relays.took["west"] == {"a@x.example": 1}, within_s=WITHIN_S)


def test_a_job_for_several_relays_goes_to_each_recipient_once(relays: Relays, place: Place) -> None:
    place.worker(file=relays.write(EAST, WEST))
    everybody = [f"u{i}@{where}.example" for i in range(30) for where in ("x", "east", "west")]
    place.push(mail(*everybody))
    until(lambda: place.held() == 0, within_s=WITHIN_S)
    for name, domain in (("default", "x"), ("east", "east"), ("west", "west")):
        assert relays.took[name] == {f"u{i}@{domain}.example": 1 for i in range(30)}
    assert place.counts().stats["split"] == 1


def test_what_one_relay_took_is_remembered_while_another_defers(
    relays: Relays, place: Place
) -> None:
    refusals = iter([Answer(451, "4.3.0", "later")] * 2)
    relays.add("east", policy=Policy(check_sender=lambda _: next(refusals, None)))
    place.worker(file=relays.write(EAST, WEST))
    place.push(mail("a@east.example", "b@west.example", "c@x.example"))
    until(lambda: place.held() == 0, within_s=WITHIN_S)
    assert relays.took == {
        "default": {"c@x.example": 1},
        "east": {"a@east.example": 1},
        "west": {"b@west.example": 1},
    }


def test_a_relay_that_is_down_holds_back_its_own_part(relays: Relays, place: Place) -> None:
    relays.sinks["east"].stop()
    place.worker(file=relays.write(EAST, WEST))
    place.push(mail("a@east.example", "b@west.example"))
    until(lambda: place.counts().parked == {"east": 1}, within_s=WITHIN_S)
    until(lambda: relays.took["west"] == {"b@west.example": 1}, within_s=WITHIN_S)
    assert place.held() == 1


def test_a_part_for_no_relay_is_dead_and_the_others_go(relays: Relays, place: Place) -> None:
    del relays.sinks["default"]
    place.worker(file=relays.write(EAST))
    place.push(mail("a@east.example", "b@x.example"))
    until(lambda: place.counts().dead == 1 and place.held() == 1, within_s=WITHIN_S)
    (letter,) = place.desk.dead_list(10)
    assert letter.reason == "relay 'default' is not known; known: east, west"
    assert letter.state.rcpt == ["b@x.example"]
    assert relays.took["east"] == {"a@east.example": 1}


def test_redirected_mail_is_routed_by_that_address(relays: Relays, place: Place) -> None:
    place.worker(file=relays.write(EAST, WEST), redirect_to="me@east.example")
    place.push(mail("a@west.example", "b@x.example"))
    until(lambda: relays.took["east"].total() >= 1, within_s=WITHIN_S)
    until(lambda: place.held() == 0, within_s=WITHIN_S)
    assert set(relays.took["east"]) == {"me@east.example"}
    assert not relays.took["west"] + relays.took["default"]


def test_a_reload_reads_the_routes_again(relays: Relays, place: Place) -> None:
    worker = place.worker(file=relays.write(EAST))
    place.push(mail("a@east.example"))
    until(lambda: relays.took["east"] == {"a@east.example": 1}, within_s=WITHIN_S)
    relays.write("recipient = 'east.example'\nrelay = 'west'")
    worker.hang_up()
    place.push(mail("b@east.example"))
    until(lambda: relays.took["west"] == {"b@east.example": 1}, within_s=WITHIN_S)
    relays.write("recipient = 'east.example'\nrelay = 'nobody'")
    worker.hang_up()  # which is refused, and changes nothing
    place.push(mail("c@east.example"))
    until(lambda: relays.took["west"]["c@east.example"] == 1, within_s=WITHIN_S)


# ---- together with the relay mx


@pytest.fixture
def dns() -> Iterator[DnsHost]:
    host = DnsHost()
    yield host
    host.stop()


def direct(relays: Relays, place: Place, dns: DnsHost, *entries: str) -> Hired:
    address, port = dns.address
    to_hosts = f"[relay.direct]\nurl = 'mx:{relays.sinks['west'].address[1]}'"
    return place.worker(file=relays.write(*entries, more=to_hosts), nameserver=f"{address}:{port}")


DIRECT = "recipient = '*.example'\nrelay = 'direct'"


def test_relays_and_sites_are_split_at_once(dns: DnsHost, relays: Relays, place: Place) -> None:
    dns.add("mx.example 300 A 127.0.0.1")
    for domain in ("a.example", "aa.example"):
        dns.add(f"{domain} 300 MX 1 mx.example.")
    dns.add("alone.example 300 A 127.0.0.1")
    direct(relays, place, dns, EAST, DIRECT)
    place.push(
        mail(
            "1@a.example",
            "2@aa.example",
            "3@alone.example",
            "4@east.example",
            "5@no.example",
            "6@x.test",
        )
    )
    until(lambda: place.counts().dead == 1 and place.held() == 1, within_s=WITHIN_S)
    assert relays.took == {
        "default": {"6@x.test": 1},
        "east": {"4@east.example": 1},
        "west": {"1@a.example": 1, "2@aa.example": 1, "3@alone.example": 1},
    }
    (letter,) = place.desk.dead_list(10)
    assert letter.reason == "dns: 5.1.2 there is no domain no.example"
    assert letter.state.rcpt == ["5@no.example"]
    assert place.counts().stats["split"] == 1


def test_a_held_relay_holds_back_its_own_part(dns: DnsHost, relays: Relays, place: Place) -> None:
    dns.add("a.example 300 A 127.0.0.1")
    place.desk.hold("relay", "direct", on=True)
    direct(relays, place, dns, EAST, DIRECT)
    place.push(mail("1@a.example", "2@east.example"))
    until(lambda: place.counts().parked == {"direct": 1}, within_s=WITHIN_S)
    until(lambda: relays.took["east"] == {"2@east.example": 1}, within_s=WITHIN_S)
    assert not dns.asked
    place.desk.hold("relay", "direct", on=False)
    until(lambda: relays.took["west"] == {"1@a.example": 1}, within_s=WITHIN_S)


def test_two_relays_that_ask_dns(dns: DnsHost, relays: Relays, place: Place) -> None:
    dns.add("a.example 300 A 127.0.0.1")
    dns.add("a.test 300 A 127.0.0.1")
    address, port = dns.address
    more = "".join(
        f"[relay.{name}]\nurl = 'mx:{relays.sinks[to].address[1]}'\n"
        for name, to in (("direct", "west"), ("other", "east"))
    )
    file = relays.write(DIRECT, "recipient = '*.test'\nrelay = 'other'", more=more)
    place.worker(file=file, nameserver=f"{address}:{port}")
    place.push(mail("1@a.example", "2@a.test"))
    until(lambda: place.held() == 0, within_s=WITHIN_S)
    assert relays.took["west"] == {"1@a.example": 1}
    assert relays.took["east"] == {"2@a.test": 1}
