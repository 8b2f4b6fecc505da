"""What a relay's table says of limits, in general and for sites; what can't be meant is refused."""

from pathlib import Path

import pytest

from geomail.config import load
from geomail.errors import ConfigError
from geomail.relays import Limits, Rate, Relay, SiteLimits


def relay_of(folder: Path, text: str, *, url: str = "smtp://mail.example.com") -> Relay:
    file = folder / "geomail.toml"
    file.write_text(f"[relay.default]\nurl = '{url}'\n{text}")
    return load({}, {}, places=[file]).relays["default"]


def test_without_limits_there_are_none(tmp_path: Path) -> None:
    assert relay_of(tmp_path, "").limits == SiteLimits(Limits(), {})
    assert not Limits().are_shared
    assert not Limits(messages_per_connection=1, max_recipients=1).are_shared


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'100/s'", (Rate(100, 1),)),
        ("['100/s']", (Rate(100, 1),)),
        ("' 5 / min '", (Rate(5, 60),)),
        ("'5/m'", (Rate(5, 60),)),
        ("['5000/h', '100/s']", (Rate(100, 1), Rate(5000, 3600))),
        ("['2/s', '100/min', '5000/h']", (Rate(2, 1), Rate(100, 60), Rate(5000, 3600))),
    ],
)
def test_rates_the_pace_first(tmp_path: Path, written: str, meant: tuple[Rate, ...]) -> None:
    assert relay_of(tmp_path, f"rate = {written}").limits.general.rates == meant


def test_a_site_has_what_its_table_says_and_else_the_relays(tmp_path: Path) -> None:
    relay = relay_of(
        tmp_path,
        """
        connections = 10
        rate = '100/s'
        messages_per_connection = 100
        max_recipients = 50
        [relay.default.site."Example.org."]
        connections = 2
        [relay.default.site."mx.example.net"]
        rate = '1/s'
        [relay.default.site."example.net"]
        rate = ["2/s", "100/h"]
        max_recipients = 1
        [relay.default.site."Bücher.example"]
        connections = 3
        """,
        url="mx",
    )
    limits = relay.limits
    assert limits.of_domain("xn--bcher-kva.example") is not None
    general = Limits(
        connections=10, rates=(Rate(100, 1),), messages_per_connection=100, max_recipients=50
    )
    assert limits.general == general
    assert general.are_shared
    domain = limits.of_domain("example.org")
    assert domain is not None
    assert (domain.connections, domain.rates) == (2, general.rates)
    assert limits.of_domain("example.com") is None
    assert limits.of_hosts(["a.example.com"]) == general
    assert limits.of_hosts(["a.example.com", "b.example.net"]).max_recipients == 1
    assert limits.of_hosts(["b.mx.example.net", "example.net"]).rates == (Rate(1, 1),)
    assert limits.of_hosts(["badexample.net"]) == general


A_RATE = 'mails a second, minute or hour, such as "100/s", "500/min" or "5000/h", or a list of them'
SITES = "tables of connections, rate, messages_per_connection, max_recipients"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connections = 0", "connections of HERE must be a whole number from 1 to 100000, not 0"),
        ("max_recipients = 0", "max_recipients of HERE must be a whole number from 1 to 1000, not"),
        ("messages_per_connection = 0", "must be a whole number from 1 to"),
        ("rate = '0/s'", "must be a rate from 1 to 1000000; `geomail hold --relay` is the way"),
        ("rate = '2000000/s'", "must be a rate from 1 to 1000000"),
        ("rate = 100", f"rate of HERE must be {A_RATE}, not 100"),
        ("rate = '100'", f"rate of HERE must be {A_RATE}, not '100'"),
        ("rate = '100/day'", f"rate of HERE must be {A_RATE}; the units are s, min and h, not"),
        ("rate = []", f"rate of HERE must be {A_RATE}, not []"),
        ("rate = ['1/s', '2/s']", "must be one rate for each of s, min and h"),
        ("rate = ['1/s', '3600/h']", "rates that each hold: 1/s allows no more than 3600/h anyway"),
        ("[relay.default.site.'a.example']\nrate = '1/s'", "site is for the relay mx"),
        ("[relay.default.site.'a b']\nrate = '1/s'", f"{SITES}, each named by a domain or host"),
        ("[relay.default.site.'10.0.0.1']\nrate = '1/s'", "each named by a domain or host"),
        (
            "[relay.default.site.'a.example']\nrates = '1/s'",
            f"{SITES}; 'rates' of a.example is none: did you mean rate?",
        ),
        (
            "[relay.default.site.'a.example']\nconnections = 0",
            "such that connections of a.example is a whole number from 1 to 100000, not 0",
        ),
        (
            "[relay.default.site.a.example]\nconnections = 1",
            f'{SITES}; a name with dots needs quotes, as site."a.example"',
        ),
        (
            "[relay.default.site.'a.b']\nrate = '1/s'\n[relay.default.site.'A.b']\nrate = '2/s'",
            "such that a.b stands there once",
        ),
        ("site = 3", f"site of HERE must be {SITES}, not 3"),
    ],
)
def test_what_cant_be_meant(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        relay_of(tmp_path, text)
    here = f"[relay.default] in {tmp_path / 'geomail.toml'}"
    assert said.replace("HERE", here) in str(caught.value)
