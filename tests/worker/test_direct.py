"""The relay mx: a worker, hosts of several domains on loopback, and DNS that leads to them."""

import subprocess
import sys
import time

import pytest
from hired import Place, until
from town import WITHIN_S, Town, all_settled, mail, worker

from geomail import metrics
from geomail.delivery import direct
from geomail.delivery.dns.site import Site
from geomail.delivery.dns.sites import Found, Sites
from geomail.delivery.host.health import Trouble

pytest_plugins = ("worker_fixtures", "town_fixtures")


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
