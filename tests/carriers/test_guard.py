"""The guard: which hosts, ports and addresses requests may go to."""

import ipaddress

import pytest
from hypothesis import given, strategies

from geomail.carriers.guard import Guard, is_public, meant
from geomail.carriers.target import target_of

_ANY = Guard(["*"], [])
_HOME = Guard(["*"], ["127.0.0.0/8", "10.0.0.0/8", "::1/128"])


def test_is_off_until_hosts_are_named() -> None:
    reason = Guard([], ["127.0.0.0/8"]).against(target_of("http://example.org/"))
    assert reason == "URL tasks are off: name the hosts they may go to in url_hosts"


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("http://example.org/", True),
        ("http://EXAMPLE.org.:8080/", True),
        ("http://www.example.org/", False),
        ("http://a.example.net/", True),
        ("http://a.b.example.net/", True),
        ("http://example.net/", False),
        ("http://evilexample.net/", False),
        ("http://example.org.evil.net/", False),
        ("http://8.8.8.8/", False),
        ("http://9.9.9.9/", True),
        ("http://[2606:4700::1111]/", True),
    ],
)
def test_hosts(url: str, is_allowed: bool) -> None:
    guard = Guard(["example.org", "*.example.net", "9.9.9.9", "[2606:4700:0::1111]"], [])
    assert (guard.against(target_of(url)) is None) is is_allowed


@pytest.mark.parametrize("port", [22, 25, 465, 587, 2525, 6379, 6667, 11211])
def test_ports_of_others(port: int) -> None:
    assert _HOME.against(target_of(f"http://127.0.0.1:{port}/")) == (
        f"port {port} is not for HTTP requests"
    )


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255"),
        *("192.168.0.1", "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1"),
        *("255.255.255.255", "240.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1"),
        *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "64:ff9b:1::1", "2001:2::1", "::8.8.8.8"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "2002:c0a8:101::1"),
        *("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "2001:0:7f00:1::", "2606::5efe:10.0.0.1"),
        *("2001:0:808:808:0:0:80ff:fffe", "::ffff:0:127.0.0.1"),
        *("localhost", "", "1.2.3"),
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert _ANY.against_addresses("host.example", [address])
    assert _ANY.against_addresses("host.example", ["8.8.8.8", address, "9.9.9.9"])


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "223.255.255.255", "11.0.0.1"),
        *("2606:4700::1111", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
        *("2001:200::1", "2620:4f:8000::1"),
    ],
)  # fmt: skip
def test_addresses_that_are_public(address: str) -> None:
    assert _ANY.against_addresses("host.example", [address]) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "::1"])
def test_networks_that_are_allowed(address: str) -> None:
    assert _HOME.against_addresses("host.example", [address, "8.8.8.8"]) is None
    assert _HOME.against_addresses("host.example", [address, "192.168.0.1"])


def test_literals_are_known_before_anything_is_asked() -> None:
    assert _ANY.against(target_of("http://[::ffff:169.254.169.254]/"))
    assert _HOME.against(target_of("http://127.0.0.1/")) is None


@given(strategies.ip_addresses(v=4))
def test_every_form_of_an_ipv4_address_is_judged_alike(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    forms = (
        ipaddress.IPv6Address(0xFFFF00000000 + number),
        ipaddress.IPv6Address((0x2002 << 112) + (number << 80) + 1),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + number),
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("2606::5efe:0:0")) + number),
    )
    for form in forms:
        assert all(map(is_public, meant(form))) is is_public(address)


@given(strategies.ip_addresses())
def test_nothing_is_public_that_python_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if all(map(is_public, meant(address))) and meant(address) == (address,):
        assert address.is_global
        assert not address.is_multicast
