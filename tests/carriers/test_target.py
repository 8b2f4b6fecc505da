"""Targets: one reading of a URL, and no URL that others may read otherwise."""

import ipaddress

import pytest
from hypothesis import given, strategies

from geomail.carriers.target import Target, target_of
from geomail.errors import PayloadError


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.org", Target("http", "example.org", 80, "/")),
        ("HTTPS://Example.ORG:8443/A?b#c", Target("https", "example.org", 8443, "/A?b")),
        ("https://example.org.:/", Target("https", "example.org", 443, "/")),
        ("http://example.org?x=1", Target("http", "example.org", 80, "/?x=1")),
        ("http://example.org#x@evil.org/", Target("http", "example.org", 80, "/")),
        ("http://example.org/a@b:c", Target("http", "example.org", 80, "/a@b:c")),
        ("http://[2001:DB8:0::1]:8080/", Target("http", "2001:db8::1", 8080, "/")),
        ("http://192.0.2.1/", Target("http", "192.0.2.1", 80, "/")),
        ("http://bücher.example/ü%C3?ß=ä b".replace(" ", "+"),
         Target("http", "xn--bcher-kva.example", 80, "/%C3%BC%C3?%C3%9F=%C3%A4+b")),
        ("http://127。0。0。1/", Target("http", "127.0.0.1", 80, "/")),
        ("http://my_host/", Target("http", "my_host", 80, "/")),
    ],
)  # fmt: skip
def test_reads(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "//example.org/", "example.org", "http:/example.org", "http://"),
        *("http:///x", "http://:80/", "http://user@example.org/", "http://a:secret@example.org/"),
        *("http://example.org\\@169.254.169.254/", "http://example.org@169.254.169.254/"),
        *("http://example.org /", "http://example.org/\r\nX: y", "http://example.org/\x00", "\thttp://a/"),
        *("http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://127.0.0.1.2/", "http://0x7f.0.0.1/", "http://127.0.0.0x1/", "http://256.0.0.1/"),
        *("http://1.1.1.1.:x/", "http://%31%32%37.0.0.1/", "http://exa%6dple.org/"),
        *("http://example.org:0/", "http://example.org:65536/", "http://example.org:+80/"),
        *("http://example.org:80:80/", "http://example.org:8O/"),
        *("http://[::1/", "http://::1/", "http://[::1]x/", "http://[fe80::1%25eth0]/"),
        *("http://a..b/", "http://.a/", "http://" + "a" * 64 + "/", "http://" + "a." * 130 + "b/"),
        *("http://a,b/", "http://a;b/", "http://a'b/", "http://(a)/", "http://\ud800/", "http://a\u200b../"),
    ],
)  # fmt: skip
def test_refuses(url: str) -> None:
    with pytest.raises(PayloadError) as refused:
        target_of(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/y?z", "https://example.org:8443/y?z"),
        ("y", "https://example.org:8443/a/y"),
        ("?q", "https://example.org:8443/a/b?q"),
        ("/caf\udce9 x", "https://example.org:8443/caf%E9%20x"),
        ("https://b\u00fccher.example/", "https://xn--bcher-kva.example/"),
        ("//other.org/", "https://other.org/"),
        ("http://other.org/", "http://other.org/"),
    ],
)
def test_goes_on_from_here(location: str, url: str) -> None:
    here = target_of("https://example.org:8443/a/b?c=d")
    assert here.redirected(location) == target_of(url)


@pytest.mark.parametrize(
    "location",
    [
        *("javascript:alert(1)", "file:///etc/passwd", "gopher://a/", "//a@b/", "/\\evil.org"),
        *("//2130706433", "/\r\nX: y", "http://[x", "http://a b/", "//\udce9/"),
    ],
)  # fmt: skip
def test_does_not_go_everywhere(location: str) -> None:
    with pytest.raises(PayloadError):
        target_of("https://example.org/").redirected(location)


def test_says_where_it_is() -> None:
    assert target_of("http://[::1]/").key == "[::1]:80"
    assert target_of("http://[::1]/").authority == "[::1]"
    assert target_of("https://a:443/").authority == "a"
    assert target_of("https://a:80/").authority == "a:80"


@given(strategies.text())
def test_whatever_it_is_there_is_a_target_or_a_reason(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a{text}/", f"http://a/{text}"):
        try:
            target = target_of(url)
        except PayloadError:
            continue
        line = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}"
        assert line.isascii()
        assert len(line.split()) == 5
        assert target.path.startswith("/")


@given(strategies.ip_addresses(v=4), strategies.sampled_from(["{:d}", "0x{:x}", "0{:o}"]))
def test_numbers_are_no_names(address: ipaddress.IPv4Address, form: str) -> None:
    with pytest.raises(PayloadError):
        target_of(f"http://{form.format(int(address))}/")
    assert target_of(f"http://{address}./").host == str(address)
