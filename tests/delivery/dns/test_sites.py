"""Sites over a DNS server on loopback that is whole, slow, dead, or lies."""

import time
from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest
from dns_host import DnsHost, dns_host
from gevent.server import DatagramServer

from geomail.delivery.dns.nameservers import NameServers
from geomail.delivery.dns.site import Answer, Said, Site, Unroutable
from geomail.delivery.dns.sites import Sites

ZONE = (
    "example.org 300 MX 20 mx2.example.org.",
    "example.org 300 MX 10 mx1.example.org.",
    "sister.example 300 MX 5 mx1.example.org.",
    "sister.example 300 MX 6 mx2.example.org.",
    "mx1.example.org 600 A 127.0.0.2",
    "mx1.example.org 600 AAAA ::1",
    "mx2.example.org 600 CNAME real.example.org.",
    "real.example.org 600 A 127.0.0.3",
    "alias.example 300 CNAME example.org.",
    "plain.example 300 A 127.0.0.4",
    "null.example 300 MX 0 .",
    "txt.example 300 TXT nothing",
    "lost.example 300 MX 10 gone.example.",
    "broken.example 300 MX 10 servfail.example.",
    "half.example 300 MX 10 gone.example.",
    "half.example 300 MX 20 mx1.example.org.",
    "loop.example 300 MX 10 us.example.",
    "round.example 300 CNAME round2.example.",
    "round2.example 300 CNAME round.example.",
    "big.example 300 A 127.0.0.5",
    *(
        f"{way}.example 300 MX 10 mx1.example.org."
        for way in ("slow", "cut", "hollow", "shut", "lame", "number", "other", "forged", "noise")
    ),
    *(f"cut.many.example 300 MX {i} host-number-{i}.a-longer-name.example." for i in range(200)),
    *(f"host-number-{i}.a-longer-name.example 300 A 127.0.1.{i}" for i in range(200)),
)


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def host() -> Iterator[DnsHost]:
    with dns_host(*ZONE) as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sites_of(
    *hosts: DnsHost,
    clock: Clock | None = None,
    most_kept: int = 100,
    within_s: float = 30.0,
    try_s: float = 5.0,
) -> Sites:
    servers = NameServers([host.address for host in hosts], within_s=within_s, try_s=try_s)
    return Sites(
        servers,
        ours={"us.example"},
        is_at_home=True,
        most_kept=most_kept,
        clock=clock or time.monotonic,
    )


def site(sites: Sites, domain: str) -> Site:
    found = sites.find(domain)
    assert isinstance(found, Site), found
    return found


def reason(sites: Sites, domain: str) -> Unroutable:
    found = sites.find(domain)
    assert isinstance(found, Unroutable), found
    return found


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("example.org", ["mx1.example.org", "mx2.example.org"]),
        ("alias.example", ["mx1.example.org", "mx2.example.org"]),
        ("plain.example", ["plain.example"]),
        ("half.example", ["mx1.example.org"]),
        ("slow.example", ["mx1.example.org"]),
        ("cut.example", ["mx1.example.org"]),
        ("number.example", ["mx1.example.org"]),
        ("other.example", ["mx1.example.org"]),
        ("forged.example", ["mx1.example.org"]),
        ("noise.example", ["mx1.example.org"]),
        ("[127.0.0.9]", ["127.0.0.9"]),
    ],
)
def test_it_finds_the_hosts(host: DnsHost, domain: str, hosts: list[str]) -> None:
    assert site(sites_of(host), domain).hosts == hosts


@pytest.mark.parametrize(
    ("domain", "code", "words"),
    [
        ("null.example", "5.1.10", "RFC 7505"),
        ("nowhere.example", "5.1.2", "nowhere.example"),
        ("txt.example", "5.4.4", "neither"),
        ("lost.example", "4.4.4", "gone.example"),
        ("broken.example", "4.4.3", "SERVFAIL"),
        ("loop.example", "5.4.6", "us.example"),
        ("servfail.example", "4.4.3", "SERVFAIL"),
        ("refused.example", "4.4.3", "REFUSED"),
        ("hollow.example", "4.4.3", "cut short"),
        ("lame.example", "4.4.3", "referral"),
        ("shut.example", "4.4.3", ""),
        ("round.example", "4.4.3", ""),
        ("[127.0.0.999]", "5.1.3", ""),
    ],
)
def test_it_says_why_there_is_none(host: DnsHost, domain: str, code: str, words: str) -> None:
    found = reason(sites_of(host), domain)
    assert found.code == code
    assert words in found.text
    assert found.text.isprintable()


def test_null_mx_and_what_does_not_exist_cost_one_question(host: DnsHost) -> None:
    sites = sites_of(host)
    reason(sites, "null.example")
    reason(sites, "nowhere.example")
    assert host.asked == ["MX null.example", "MX nowhere.example"]


def test_an_answer_that_is_cut_short_is_asked_for_by_tcp(host: DnsHost) -> None:
    assert len(site(sites_of(host), "cut.many.example").hosts) == 64
    assert host.by_tcp == ["MX cut.many.example"]


def test_the_second_server_answers_for_a_dead_one(host: DnsHost) -> None:
    with dns_host() as deaf:
        deaf.stop()
        assert site(sites_of(deaf, host, try_s=0.5), "example.org")


def test_a_port_where_nobody_listens_is_no_answer() -> None:
    with dns_host() as gone:
        pass
    assert reason(sites_of(gone, within_s=1.0), "example.org").code == "4.4.3"


def test_silence_ends_with_the_deadline(host: DnsHost) -> None:
    found = reason(sites_of(host, within_s=1.0, try_s=0.4), "dead.example")
    assert found.code == "4.4.3"
    assert "no answer within 1 s" in found.text
    assert 2 <= len(host.asked) <= 3


def test_noise_and_nothing_else_ends_with_the_deadline() -> None:
    def babble(data: bytes, whence: tuple[str, int]) -> None:
        for _ in range(50):
            server.sendto(data[:2] + b"\x80\x00 nonsense", whence)

    server = DatagramServer("127.0.0.1:0", babble)  # type: ignore[arg-type]
    server.start()
    assert server.server_port is not None
    with closing(server):
        servers = NameServers([("127.0.0.1", server.server_port)], within_s=1.0, try_s=0.3)
        began = time.monotonic()
        assert servers.mx("example.org").said is Said.FAILED
        assert time.monotonic() - began < 10


def test_addresses_of_both_kinds_and_through_an_alias(host: DnsHost) -> None:
    sites = sites_of(host)
    assert sites.addresses("mx1.example.org").records == ("127.0.0.2", "::1")
    assert sites.addresses("mx2.example.org").records == ("127.0.0.3",)
    assert sites.addresses("gone.example") == Answer(Said.NO_NAME, (), 60)


def test_addresses_of_this_machine_are_none(host: DnsHost) -> None:
    sites = Sites(NameServers([host.address]), ours=())
    assert reason(sites, "example.org").code == "4.4.4"
    assert reason(sites, "plain.example").code == "5.4.4"


def test_domains_with_the_same_hosts_share_a_site(host: DnsHost) -> None:
    sites = sites_of(host)
    assert site(sites, "example.org") == site(sites, "sister.example")
    assert host.asked.count("A mx1.example.org") == 1


def test_one_search_serves_all_who_ask_meanwhile(host: DnsHost) -> None:
    sites = sites_of(host)
    asking = [gevent.spawn(sites.find, "slow.example") for _ in range(50)]
    gevent.joinall(asking, timeout=20, raise_error=True)
    assert {str(each.value) for each in asking} == {str(sites.known("slow.example"))}
    assert host.asked.count("MX slow.example") == 1


def test_who_gives_up_ends_nobody_elses_search(host: DnsHost) -> None:
    sites = sites_of(host)
    first, second = (gevent.spawn(sites.find, "slow.example") for _ in range(2))
    gevent.sleep(0)
    first.kill()
    second.join(20)
    assert isinstance(second.value, Site)


def test_a_slow_search_lets_others_through(host: DnsHost) -> None:
    sites = sites_of(host)
    waiting = gevent.spawn(sites.find, "dead.example")
    gevent.sleep(0)
    assert site(sites, "example.org")
    assert not waiting.ready()
    waiting.kill()


def test_at_most_so_many_questions_are_under_way(host: DnsHost) -> None:
    sites = sites_of(host)
    asking = [gevent.spawn(sites.find, f"slow.d{i}.example") for i in range(300)]
    gevent.joinall(asking, timeout=20, raise_error=True)
    assert all(isinstance(each.value, Unroutable) for each in asking)
    assert 50 < host.most_at_once <= 100


@pytest.mark.parametrize(
    ("ttl", "kept_s"), [(0, 5.0), (300, 300.0), (90_000, 86_400.0), (2**31 - 1, 86_400.0)]
)
def test_answers_are_kept_by_their_ttl(clock: Clock, ttl: int, kept_s: float) -> None:
    zone = (f"a.example {ttl} MX 10 b.example.", f"b.example {ttl} A 127.0.0.2")
    with dns_host(*zone, negative_ttl_s=100_000) as host:
        sites = sites_of(host, clock=clock)
        kept_s = min(kept_s, 86_400.0)
        site(sites, "a.example")
        clock.now += kept_s - 0.1
        assert sites.known("a.example") is not None
        clock.now += 0.2
        assert sites.known("a.example") is None


@pytest.mark.parametrize(("minimum", "kept_s"), [(0, 5.0), (60, 60.0), (86_400, 3_600.0)])
def test_what_does_not_exist_is_kept_by_the_soa(clock: Clock, minimum: int, kept_s: float) -> None:
    with dns_host("x.example 5 A 127.0.0.2", negative_ttl_s=minimum) as host:
        sites = sites_of(host, clock=clock)
        assert reason(sites, "nowhere.example").code == "5.1.2"
        clock.now += kept_s - 0.1
        assert sites.known("nowhere.example") is not None
        clock.now += 0.2
        assert sites.known("nowhere.example") is None


def test_failures_are_kept_for_half_a_minute(host: DnsHost, clock: Clock) -> None:
    sites = sites_of(host, clock=clock)
    for _ in range(3):
        reason(sites, "refused.example")
    assert host.asked == ["MX refused.example"]
    clock.now += 30.1
    reason(sites, "refused.example")
    assert len(host.asked) == 2


def test_records_that_change_are_seen_when_their_time_is_over(clock: Clock) -> None:
    with dns_host("a.example 60 A 127.0.0.2") as host:
        sites = sites_of(host, clock=clock)
        assert site(sites, "a.example").hosts == ["a.example"]
        host.add("a.example 60 MX 10 mx.a.example.")
        host.add("mx.a.example 60 A 127.0.0.3")
        clock.now += 61
        assert site(sites, "a.example").hosts == ["mx.a.example"]


def test_a_bounded_number_is_kept(host: DnsHost) -> None:
    sites = sites_of(host, most_kept=5)
    for i in range(20):
        reason(sites, f"d{i}.nowhere.example")
    assert sites.known("d19.nowhere.example") is not None
    assert sites.known("d14.nowhere.example") is None
