"""The relay mx: a worker, hosts of several domains on loopback, and DNS that leads to them."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import gevent
import pytest
from dns_host import DnsHost
from hired import Hired, Place, until

from geomail import board, metrics
from geomail.delivery import direct
from geomail.delivery.dns.site import Site
from geomail.delivery.dns.sites import Found, Sites
from geomail.delivery.host.health import Trouble
from geomail.queue import Link
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)
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


@pytest.fixture
def town() -> Iterator[Town]:
    """Give two hosts for three domains; a test asks for it first, so that its workers end first."""
    made = Town()
    made.host("mx.a.example")
    made.host("mx.b.example")
    made.domain("a.example", "mx.a.example")
    made.domain("aa.example", "mx.a.example")
    made.domain("b.example", "mx.b.example")
    yield made
    made.close()


def mail(*recipients: str, **more: object) -> bytes:
    return json.dumps({"to": recipients, "text": "t", **more}).encode()


def worker(place: Place, town: Town, **more: object) -> Hired:
    address, port = town.dns.address
    return place.worker(f"mx:{town.port}", nameserver=f"{address}:{port}", **more)


def all_settled(place: Place, held: int = 0) -> None:
    until(lambda: place.held() == held, f"{held} held", within_s=WITHIN_S)


def test_a_job_goes_to_each_recipients_hosts_once(town: Town, place: Place) -> None:
    place.push(mail("x@a.example", "y@b.example", "z@aa.example", "x2@A.example"))
    worker(place, town)
    all_settled(place)
    expected = {"x@a.example": 1, "x2@A.example": 1, "z@aa.example": 1}
    assert town.took("mx.a.example") == expected
    assert town.took("mx.b.example") == {"y@b.example": 1}
    assert town.sinks["mx.a.example"].count == 1  # domains with the same hosts share a mail


def test_without_mx_records_it_goes_to_the_domain_itself(town: Town, place: Place) -> None:
    town.host("plain.example")
    place.push(mail("x@plain.example"), mail("y@[127.0.0.4]"))
    worker(place, town)
    all_settled(place)
    assert town.took("plain.example") == {"x@plain.example": 1, "y@[127.0.0.4]": 1}


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ("null.example", "5.1.10"),
        ("nowhere.example", "5.1.2 there is no domain nowhere.example"),
        ("text.example", "5.4.4"),
        ("[127.0.0.999]", "5.1.3"),
        ("loop.example", "5.4.6 the MX of loop.example is this host, us.example: a loop"),
    ],
)
def test_a_domain_that_takes_no_mail_is_dead_with_the_answer(
    town: Town, place: Place, domain: str, reason: str
) -> None:
    town.dns.add("null.example 300 MX 0 .")
    town.dns.add("text.example 300 TXT nothing")
    town.dns.add("loop.example 300 MX 0 us.example.")
    place.push(mail(f"x@{domain}"), mail(f"y@{domain}", "z@a.example"))
    worker(place, town, helo="us.example")
    until(lambda: place.counts().dead == 2, within_s=WITHIN_S)
    until(lambda: town.took("mx.a.example") == {"z@a.example": 1}, within_s=WITHIN_S)
    all_settled(place, held=2)
    letters = place.desk.dead_list(10)
    assert all(reason in letter.reason for letter in letters)


def test_what_is_not_found_out_is_tried_again_by_the_schedule(town: Town, place: Place) -> None:
    place.push(mail("x@servfail.example", "y@b.example"))
    hired = worker(place, town)
    until(lambda: place.counts().delayed == 1, within_s=WITHIN_S)
    until(lambda: town.took("mx.b.example") == {"y@b.example": 1}, within_s=WITHIN_S)
    later = time.monotonic() + 3600
    town.domain("servfail.example", "mx.a.example")
    town.dns.heal()
    hired.lanes.directs["default"].sites._clock = lambda: later
    all_settled(place)
    assert town.took("mx.a.example") == {"x@servfail.example": 1}
    assert town.took("mx.b.example") == {"y@b.example": 1}


def test_its_tries_come_to_an_end(town: Town, place: Place) -> None:
    place.push(mail("x@servfail.example"))
    worker(place, town, retries=1, retry_base_s=0.05)
    until(lambda: place.counts().dead == 1, within_s=WITHIN_S)
    (letter,) = place.desk.dead_list(1)
    assert "dns: 4.4.3" in letter.reason


def test_the_next_host_takes_what_the_first_one_does_not(town: Town, place: Place) -> None:
    town.domain("two.example", "mx.a.example", "mx.b.example")
    town.sinks["mx.a.example"].stop()
    place.push(*[mail(f"u{i}@two.example") for i in range(30)])
    worker(place, town)
    all_settled(place)
    assert town.took("mx.b.example") == {f"u{i}@two.example": 1 for i in range(30)}


def test_the_next_host_is_not_for_what_the_first_one_will_take(town: Town, place: Place) -> None:
    town.domain("two.example", "mx.a.example", "mx.b.example")
    place.push(*[mail(f"u{i}@two.example") for i in range(500)])
    worker(place, town, concurrency=1)
    all_settled(place)
    assert town.sinks["mx.a.example"].count == 500
    assert town.sinks["mx.b.example"].count == 0


def test_a_probe_of_the_first_host_keeps_nobody_waiting(town: Town, place: Place) -> None:
    relay = worker(place, town).lanes.directs["default"]
    now = time.monotonic()
    route = relay.route_to(Site("x", (("a.example",), ("b.example",))), now)
    first, second = route.lanes
    assert route.choose(now) is first
    first.fail("away", Trouble.VERDICT, began=now)
    assert route.choose(now) is second
    later = now + 3600
    assert route.choose(later) is first
    first.in_hand = 1  # the probe
    assert route.choose(later) is second
    assert route.room(later) == second.room(later)
    first.health.recover(later, is_used=False, live=0)
    first.in_hand = 1_000_000
    assert route.choose(later) is None
    assert route.room(later) == 0
    first.in_hand = 0


def test_where_all_sites_are_busy_a_list_with_little_in_hand_has_some_more(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_ENOUGH", sys.maxsize)  # all of them are counted
    relay = worker(place, town, queue=["queue:bulk=1", "queue:urgent=8"]).lanes.directs["default"]
    now, most = time.monotonic(), relay._most_sites()
    for busy, extra in ((most, most // 8), (most + most // 8, 0)):
        sites = [Site(f"s{number}", (("a.example",),)) for number in range(busy)]
        routes = [relay.route_to(site, now) for site in sites]
        for route in routes:
            route.lanes[0].in_hand = 1_000_000
        assert relay.room(now) == 0
        known = sum(route.room_for("queue:urgent", 8 / 9, now) for route in routes)
        assert relay.room_for("queue:urgent", 8 / 9, now) - known == extra
    for route in routes:
        route.lanes[0].in_hand = 0


def test_equal_hosts_share_the_mail(town: Town, place: Place) -> None:
    town.dns.add("even.example 300 MX 5 mx.a.example.")
    town.dns.add("even.example 300 MX 5 mx.b.example.")
    place.push(*[mail(f"u{i}@even.example") for i in range(500)])
    worker(place, town)
    all_settled(place)
    counts = [sink.count for sink in town.sinks.values()]
    assert sum(counts) == 500
    assert min(counts) > 100


def test_the_first_host_is_gone_back_to(town: Town, place: Place) -> None:
    town.domain("two.example", "mx.a.example", "mx.b.example")
    gone = town.sinks["mx.a.example"]
    gone.stop()
    place.push(mail("x@two.example"))
    worker(place, town)
    all_settled(place)
    gone.start()
    numbers = iter(range(10_000))

    def has_come_back() -> bool:
        place.push(mail(f"u{next(numbers)}@two.example"))
        return gone.count > 3

    until(has_come_back, within_s=WITHIN_S)
    all_settled(place)
    # One probes a host that was away, and the others don't wait for it.
    assert town.sinks["mx.b.example"].count + gone.count == next(numbers) + 1


def test_a_host_without_an_address_is_passed_over(town: Town, place: Place) -> None:
    town.domain("half.example", "gone.example", "mx.a.example")
    place.push(mail("x@half.example"))
    worker(place, town)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@half.example": 1}


def test_nobody_waits_for_another_ones_answer(town: Town, place: Place) -> None:
    place.push(*[mail(f"x@dead.d{i}.example") for i in range(20)])
    hired = worker(place, town)
    until(lambda: hired.lanes.directs["default"].searching == 20, within_s=WITHIN_S)
    place.push(*[mail(f"u{i}@a.example") for i in range(50)])
    until(lambda: town.sinks["mx.a.example"].count == 50, within_s=8)
    assert hired.lanes.directs["default"].searching == 20


def test_more_than_are_looked_up_at_a_time_wait_in_redis(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_MOST_SEARCHES", 5)
    place.push(*[mail(f"x@dead.d{i}.example") for i in range(20)])
    hired = worker(place, town)
    until(lambda: sum(place.counts().parked.values()) >= 10, within_s=WITHIN_S)
    assert hired.lanes.directs["default"].searching <= 5
    hired.tell()
    assert hired.wait(WITHIN_S) == 0
    assert place.held() == 20


def test_what_is_known_goes_on_while_no_more_are_looked_up(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_MOST_SEARCHES", 5)
    hired = worker(place, town)
    place.push(mail("x@a.example"))
    all_settled(place)
    place.push(*[mail(f"x@dead.d{i}.example") for i in range(20)])
    until(lambda: hired.lanes.directs["default"].searching == 5, within_s=WITHIN_S)
    place.push(*[mail(f"u{i}@a.example") for i in range(500)])
    until(lambda: town.sinks["mx.a.example"].count == 501, within_s=8)
    assert hired.lanes.directs["default"].searching == 5


def test_slow_name_servers_for_one_list_keep_no_other_waiting(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_MOST_SEARCHES", 16)
    place.redis.lpush("queue:bulk", *[mail(f"x@dead.d{i}.example") for i in range(60)])
    hired = worker(place, town, queue=["queue:bulk=1", "queue:urgent=8"])
    relay = hired.lanes.directs["default"]
    until(lambda: relay.searching == 16, within_s=WITHIN_S)
    place.redis.lpush("queue:urgent", mail("u@a.example"))
    until(lambda: town.sinks["mx.a.example"].count == 1, within_s=8)
    assert relay.searching == 16
    assert relay.searching_of == {"queue:bulk": 16, "queue:urgent": 0}


def test_a_fault_of_ours_in_a_search_is_no_end_of_the_mail(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    works = Sites.find

    def broken(sites: Sites, domain: str) -> Found:
        if not failed:
            failed.append(domain)
            raise RuntimeError("a bug of ours")
        return works(sites, domain)

    monkeypatch.setattr(Sites, "find", broken)
    place.push(mail("x@a.example"))
    hired = worker(place, town)
    all_settled(place)
    assert failed == ["a.example"]
    assert town.took("mx.a.example") == {"x@a.example": 1}
    assert (hired.lanes.in_hand(), hired.lanes.bytes_in_hand) == (0, 0)


def test_a_drain_gives_back_what_waits_for_dns(town: Town, place: Place) -> None:
    place.push(mail("x@dead.example"), mail("y@a.example"))
    hired = worker(place, town)
    until(lambda: hired.lanes.directs["default"].searching == 1, within_s=WITHIN_S)
    until(lambda: town.sinks["mx.a.example"].count == 1, within_s=WITHIN_S)
    hired.tell()
    assert hired.wait(WITHIN_S) == 0
    counts = place.counts()
    assert (counts.waiting, counts.in_flight, counts.delayed) == (1, 0, 0)


def shown_of(place: Place) -> list[tuple[str, str, int]]:
    seen = board.look(Link(place.server.url), ["queue:email"])
    return [(host.route, host.state, host.parked) for host in seen.hosts]


def test_mail_for_a_closed_site_waits_in_redis_under_its_name(town: Town, place: Place) -> None:
    gone = town.sinks["mx.a.example"]
    gone.stop()
    place.push(*[mail(f"u{i}@a.example") for i in range(20)], mail("y@b.example"))
    hired = worker(place, town, backoff_base_s=2, backoff_cap_s=2)
    name = "default/mx.a.example"
    until(lambda: place.counts().parked.get(name) == 20, within_s=WITHIN_S)
    until(lambda: town.sinks["mx.b.example"].count == 1, within_s=WITHIN_S)
    assert hired.lanes.routes[name].last_error()
    until(lambda: (name, "closed", 20) in shown_of(place), within_s=WITHIN_S)
    gone.start()
    all_settled(place)
    assert town.took("mx.a.example") == {f"u{i}@a.example": 1 for i in range(20)}


def test_another_worker_finds_what_one_has_parked(town: Town, place: Place) -> None:
    gone = town.sinks["mx.a.example"]
    gone.stop()
    place.push(mail("x@a.example"))
    first = worker(place, town)
    until(lambda: sum(place.counts().parked.values()) == 1, within_s=WITHIN_S)
    first.tell()
    assert first.wait(WITHIN_S) == 0
    gone.start()
    worker(place, town)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1}


def test_what_is_held_asks_nobody(town: Town, place: Place) -> None:
    place.desk.hold("relay", "default", on=True)
    place.push(mail("x@a.example"))
    hired = worker(place, town)
    until(lambda: hired.lanes.routes["default"].is_held, within_s=WITHIN_S)
    gevent.sleep(0.3)
    assert town.dns.asked == []
    assert place.held() == 1
    place.desk.hold("relay", "default", on=False)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1}


def test_a_site_is_held_with_its_relay(town: Town, place: Place) -> None:
    hired = worker(place, town)
    place.push(mail("x@a.example"))
    all_settled(place)
    place.desk.hold("relay", "default", on=True)
    until(lambda: hired.lanes.routes["default/mx.a.example"].is_held, within_s=WITHIN_S)
    place.push(mail("y@a.example"))
    gevent.sleep(0.3)
    assert place.held() == 1
    place.desk.hold("relay", "default", on=False)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1, "y@a.example": 1}


def test_what_many_domains_leave_behind_is_bounded(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 10)
    for i in range(300):
        town.dns.add(f"mx.d{i}.example 300 A 127.0.0.2")
        town.domain(f"d{i}.example", f"mx.d{i}.example")
    place.push(*[mail(f"x@d{i}.example") for i in range(300)])
    hired = worker(place, town, idle_s=0.2)
    all_settled(place)
    assert town.took("mx.a.example") == {f"x@d{i}.example": 1 for i in range(300)}
    until(lambda: len(hired.lanes.routes) <= 11 and not hired.lanes.lanes, within_s=WITHIN_S)
    assert hired.lanes.bytes_in_hand == 0


def test_many_silent_domains_keep_nobody_waiting_for_ever(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 10)
    for i in range(60):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    place.push(*[mail(f"x@d{i}.example") for i in range(60)])
    hired = worker(place, town)
    until(lambda: sum(place.counts().parked.values()) == 60, within_s=WITHIN_S)
    place.push(*[mail(f"u{i}@a.example") for i in range(20)])
    until(lambda: town.sinks["mx.a.example"].count == 20, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 11 + 20, within_s=WITHIN_S)
    assert place.counts().dead == 0


def test_a_forgotten_host_that_is_closed_is_left_alone_until_it_is_due(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 5)
    for i in range(40):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    place.push(*[mail(f"x@d{i}.example") for i in range(40)])
    hired = worker(place, town, backoff_base_s=60, backoff_cap_s=60)
    until(lambda: sum(place.counts().parked.values()) == 40, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 6, within_s=WITHIN_S)
    before = metrics.snapshot()["host_failures"]
    place.push(*[mail(f"u{i}@a.example") for i in range(20)])  # rounds of the popper
    until(lambda: town.sinks["mx.a.example"].count == 20, within_s=WITHIN_S)
    assert metrics.snapshot()["host_failures"] - before <= 5


def test_new_mail_for_a_forgotten_host_that_is_closed_waits_too(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_ROUTES", 5)
    for i in range(20):
        town.dns.add(f"d{i}.example 300 A 127.0.0.99")  # nobody listens there
    hired = worker(place, town, backoff_base_s=60, backoff_cap_s=60)
    place.push(*[mail(f"x@d{i}.example") for i in range(20)])
    until(lambda: sum(place.counts().parked.values()) == 20, within_s=WITHIN_S)
    until(lambda: len(hired.lanes.routes) <= 6, within_s=WITHIN_S)
    before = metrics.snapshot()["host_failures"]
    place.push(*[mail(f"y@d{i}.example") for i in range(20)])
    until(lambda: sum(place.counts().parked.values()) == 40, within_s=WITHIN_S)
    assert metrics.snapshot()["host_failures"] == before


def test_a_forgotten_host_is_tried_when_its_pause_is_over(
    town: Town, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hired = worker(place, town, idle_s=0.1)
    place.push(mail("x@a.example"))
    all_settled(place)
    (known,) = hired.lanes.directs.values()
    (route,) = known.routes.values()
    monkeypatch.setattr(direct, "MOST_ROUTES", 0)
    for lane in route.lanes:
        lane.health.strikes, lane.health.connects_from = 1, time.monotonic() + 3.0
    until(lambda: not known.routes, within_s=WITHIN_S)
    place.push(mail("y@a.example"))
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1, "y@a.example": 1}


def test_redirected_mail_goes_to_the_hosts_of_that_address(town: Town, place: Place) -> None:
    place.push(mail("x@a.example", "y@nowhere.example"))
    worker(place, town, redirect_to="staging@b.example")
    all_settled(place)
    assert town.took("mx.b.example") == {"staging@b.example": 1}
    assert town.took("mx.a.example") == {}


def test_more_recipients_than_a_transaction_takes(town: Town, place: Place) -> None:
    place.push(mail(*[f"u{i}@{domain}.example" for i in range(5) for domain in "ab"]))
    worker(place, town, max_recipients=2)
    all_settled(place)
    assert town.took("mx.a.example") == {f"u{i}@a.example": 1 for i in range(5)}
    assert town.sinks["mx.a.example"].count == 3


def test_a_reload_keeps_what_is_known(town: Town, place: Place) -> None:
    hired = worker(place, town)
    place.push(mail("x@a.example"))
    all_settled(place)
    asked = list(town.dns.asked)
    hired.hang_up()
    place.push(mail("y@a.example"))
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1, "y@a.example": 1}
    assert town.dns.asked == asked


def test_a_site_that_is_quiet_at_a_reload_is_looked_after_again(town: Town, place: Place) -> None:
    hired = worker(place, town, idle_s=0.01)
    place.push(mail("x@a.example"))
    all_settled(place)
    route = hired.lanes.routes["default/mx.a.example"]
    until(lambda: not route.is_in_use, within_s=WITHIN_S)
    hired.lanes.directs["default"].route_to(Site("mx.a.example", ()), time.monotonic())
    hired.hang_up()
    assert route.lanes[0] not in hired.lanes.lanes
    hired.lanes.directs["default"].route_to(Site("mx.a.example", ()), time.monotonic())
    assert route.lanes[0] in hired.lanes.lanes


def test_clear_hosts_get_nothing_where_tls_is_required(town: Town, place: Place) -> None:
    address, port = town.dns.address
    file = place.folder.parent / "geomail.toml"
    file.write_text(f'[relay.default]\nurl = "mx:{town.port}"\ntls = "required"\n')
    place.push(mail("x@a.example"))
    hired = place.worker(file=file, nameserver=f"{address}:{port}")
    until(lambda: sum(place.counts().parked.values()) == 1, within_s=WITHIN_S)
    assert "TLS" in (hired.lanes.routes["default/mx.a.example"].last_error() or "")
    assert town.sinks["mx.a.example"].count == 0


def test_a_burst_leaves_when_all_is_sent(town: Town, place: Place) -> None:
    place.push(mail("x@a.example", "y@b.example"), mail("z@nowhere.example"))
    hired = worker(place, town, burst="true")
    assert hired.wait(WITHIN_S) == 0
    assert place.counts().dead == 1
    assert place.held() == 1


def test_without_that_relay_nobody_pays_for_it() -> None:
    code = "import geomail.worker.life, sys; sys.exit('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_repeated_key_is_one_mail(town: Town, place: Place) -> None:
    before = metrics.snapshot().get("duplicates", 0)
    place.push(*[mail("x@a.example", "y@b.example", dedupe_key="once") for _ in range(3)])
    worker(place, town)
    all_settled(place)
    assert town.took("mx.a.example") == {"x@a.example": 1}
    assert town.took("mx.b.example") == {"y@b.example": 1}
    assert metrics.snapshot()["duplicates"] == before + 2
