"""Straight to the recipients' hosts: workers in processes of their own, killed, several at once."""

import signal
from collections.abc import Iterator

import pytest
from dns_host import DnsHost

from scenarios.stage import Host, Process, Stage, until

DOMAINS = ("a.example", "b.example", "c.example")


@pytest.fixture
def dns() -> Iterator[DnsHost]:
    """Give a DNS server for three domains, whose hosts are this machine under two names."""
    host = DnsHost()
    for domain, name in zip(DOMAINS, ("mx1", "mx2", "mx1"), strict=True):
        host.add(f"{domain} 300 MX 10 {name}.example.")
    for name in ("mx1", "mx2"):
        host.add(f"{name}.example 300 A 127.0.0.1")
    yield host
    host.stop()


def server(dns: DnsHost) -> str:
    address, port = dns.address
    return f"{address}:{port}"


def worker(stage: Stage, host: Host, dns: DnsHost, *flags: str) -> Process:
    return stage.worker(*flags, relay=f"mx:{host.port}", nameserver=server(dns))


def jobs(count: int) -> tuple[list[object], list[str]]:
    """Return jobs with a recipient in each domain, and all recipients."""
    found = [[f"u{number}@{domain}" for domain in DOMAINS] for number in range(count)]
    return [{"to": to, "text": "t"} for to in found], [one for to in found for one in to]


def test_nobody_is_forgotten_when_workers_are_killed(stage: Stage, dns: DnsHost) -> None:
    host = stage.host()
    work, recipients = jobs(300)
    stage.push(work)
    first = worker(stage, host, dns)
    until(lambda: len(host.look()) >= 100, "mails of the first worker")
    first.signal(signal.SIGKILL)
    first.wait()
    worker(stage, host, dns)
    worker(stage, host, dns)
    until(lambda: stage.held() == 0, "everything is settled", within_s=60)
    arrivals = host.arrivals()
    assert set(arrivals) == set(recipients)
    assert sum(arrivals.values()) - len(recipients) <= 2 * 3 * 20  # what had no answer read yet


def test_several_processes_and_a_burst(stage: Stage, dns: DnsHost) -> None:
    host = stage.host()
    work, recipients = jobs(200)
    stage.push([*work, {"to": ["x@nowhere.example", "y@a.example"], "text": "t"}])
    several = worker(stage, host, dns, "--processes", "2", "--burst")
    assert several.wait(60) == 0, several.stderr
    assert dict(host.arrivals()) == dict.fromkeys([*recipients, "y@a.example"], 1)
    (letter,) = stage.dead()
    assert "5.1.2 there is no domain nowhere.example" in letter.reason


def test_check_asks_the_name_servers(stage: Stage, dns: DnsHost) -> None:
    said = stage.ask("check", "--relay", "mx", nameserver=server(dns))
    assert "relay default: mx" in said
    assert "they answer" in said
    assert dns.asked == ["MX example.com"]
