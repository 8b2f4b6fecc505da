"""What a relay's table says of TLS, logins, chunking and source; what it can't mean is refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from geomail import relays
from geomail.config import Settings, load
from geomail.errors import ConfigError
from geomail.relays import Relay

LOGIN = "smtps://ann@mail.example.com"
BARE = "smtp://mail.example.com"
AN_ADDRESS = "an IPv4 or IPv6 address of this machine, such as 192.0.2.1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "geomail.toml"


def settings_of(
    file: Path,
    text: str,
    *,
    url: str | None = LOGIN,
    environ: Mapping[str, str] = {},
    relay: list[str] | None = None,
) -> Settings:
    line = f"url = '{url}'\n" if url else ""
    file.write_text(f"[relay.default]\n{line}{text}")
    return load({"--relay": relay}, environ, places=[file])


def relay_of(file: Path, text: str, *, url: str | None = LOGIN) -> Relay:
    return settings_of(file, text, url=url).relays["default"]


def test_what_stands_nowhere_is_the_safe_side(file: Path) -> None:
    relay = relay_of(file, "")
    assert (relay.chunking, relay.in_flight, relay.verify) == ("off", 8, True)
    assert (relay.cert_file, relay.key_file, relay.token_file) == (None, None, None)
    assert (relay.source_address, relay.auth_in_clear) == (None, False)
    for key in relays.KEYS:
        if key.name not in ("url", "password", "tls"):
            assert getattr(relay, key.name) == key.default


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("chunking = 'on'", "chunking", "on"),
        ("in_flight = 64", "in_flight", 64),
        ("verify = false", "verify", False),
        ("verify = true", "verify", True),
        ("cert_file = '/c.pem'", "cert_file", "/c.pem"),
        ("cert_file = '/c.pem'\nkey_file = '/k.pem'", "key_file", "/k.pem"),
        ("source_address = '192.0.2.1'", "source_address", "192.0.2.1"),
        ("source_address = '2001:DB8:0:0::1'", "source_address", "2001:db8::1"),
        ("token_file = '/run/token'", "token_file", "/run/token"),
    ],
)
def test_keys_of_a_relay(file: Path, text: str, field: str, value: object) -> None:
    assert getattr(relay_of(file, text), field) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "chuncking = 'on'",
            "unknown key 'chuncking' in [relay.default] of FILE: did you mean chunking?",
        ),
        ("chunking = 'yes'", "chunking of HERE must be off or on, not 'yes'"),
        ("in_flight = 0", "in_flight of HERE must be a whole number from 1 to 64, not 0"),
        ("in_flight = 65", "in_flight of HERE must be a whole number from 1 to 64, not 65"),
        ("verify = 'perhaps'", "verify of HERE must be true or false, not 'perhaps'"),
        ("verify = 0", "verify of HERE must be true or false, not 0"),
        ("cert_file = ''", "cert_file of HERE must be text in one line, not ''"),
        ("key_file = 7", "key_file of HERE must be text in one line, not 7"),
        ("password = 7", "password of HERE must be text in one line"),
        *[
            (
                f"weights = {weights}",
                f"weights of HERE must be a list of whole numbers from 0 to 1000, not {weights}",
            )
            for weights in ([], 3, [-1], [1001], [1.5], ["a"])
        ],
        *[
            (
                f"source_address = '{text}'",
                f"source_address of HERE must be {AN_ADDRESS}, not '{text}'",
            )
            for text in ("mail.example.com", "192.0.2.1:25", "[::1]", "0.0.0.0", "ff02::1")
        ],
    ],
)
def test_a_key_that_cannot_be_used_is_one_line(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        relay_of(file, text)
    expected = said.replace("HERE", "[relay.default] in FILE").replace("FILE", str(file))
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("url", "text", "said"),
    [
        (LOGIN, "verify = false\nca_file = '/ca.pem'", "verify = false trusts anybody"),
        (LOGIN, "key_file = '/k.pem'", "key_file is of no use without cert_file"),
        (LOGIN, "token_file = '/t'\npassword = 'geheim'", "two ways to log in"),
        ("smtps://ann:geheim@h", "token_file = '/t'", "two ways to log in"),
        ("smtps://h", "token_file = '/t'", "without a user: write USER@"),
        (
            "smtp://ann@h",
            "token_file = '/t'\nauth_in_clear = true",
            "a token is never sent without TLS",
        ),
        ("smtp://ann@h", "auth_in_clear = true\ntls = 'required'", "exclude each other"),
        (LOGIN, "auth_in_clear = true", "for smtp:// with a login"),
        (BARE, "auth_in_clear = true", "for smtp:// with a login"),
        (BARE, "ca_file = '/ca.pem'", "ca_file is of no use where no host is verified"),
        (BARE, "verify = true", "a host is verified with smtps:// or smtp"),
        ("smtp://ann@h", "verify = true\nauth_in_clear = true", "a host is verified with"),
        (LOGIN, "chunking = 'on'\npipeline = 'message'", 'needs pipeline = "overlap"'),
        ("smtps://[2001:db8::1]", "source_address = '192.0.2.1'", "2001:db8::1 can't be reached"),
        ("smtps://192.0.2.9", "source_address = '::1'", "192.0.2.9 can't be reached"),
    ],
)
def test_what_contradicts_itself_is_refused(file: Path, url: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        relay_of(file, text, url=url)
    assert str(raised.value).startswith(f"[relay.default] in {file}: ")
    assert "\n" not in str(raised.value)
    assert "geheim" not in str(raised.value)


TWO = "url = ['smtp://a.example', 'smtp://b.example']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TWO}weights = [1]", "weights need one number for each URL"),
        (f"{TWO}weights = [1, 2, 3]", "weights need one number for each URL"),
        (f"{TWO}weights = [0, 0]", "no host gets mail first"),
        ("url = 'mx'\nweights = [1]", "mx is every domain's own"),
        ("url = ['smtp://a', 'smtp://A:25']", "the same host and port stand twice"),
        ("url = ['smtp://a:465', 'smtps://ann:geheim@a']", "the same host and port stand twice"),
    ],
)
def test_hosts_that_contradict_each_other_are_refused(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        relay_of(file, text, url=None)
    assert str(raised.value).startswith(f"[relay.default] in {file}: ")
    assert "geheim" not in str(raised.value)


def test_weights_are_for_the_tables_own_hosts(file: Path) -> None:
    assert relay_of(file, f"{TWO}weights = [3, 0]", url=None).weights == (3, 0)
    settings = settings_of(file, f"{TWO}weights = [3, 0]", url=None, relay=["smtp://c.example"])
    assert settings.relays["default"].weights == ()
    assert settings.warnings[0].startswith("weights of [relay.default]")


def test_a_token_beside_a_password_in_a_variable_is_refused(file: Path) -> None:
    environ = {"GEOMAIL_RELAY_PASSWORD": "geheim"}
    with pytest.raises(ConfigError, match="two ways to log in") as raised:
        settings_of(file, "token_file = '/t'", environ=environ)
    assert "geheim" not in str(raised.value)


def test_hosts_stand_in_one_place(file: Path) -> None:
    with pytest.raises(ConfigError, match="url and urls say the same: leave one of them out"):
        relay_of(file, "urls = ['smtps://other']")


def test_a_variable_that_is_empty_is_no_password(file: Path) -> None:
    environ = {"GEOMAIL_RELAY_PASSWORD": ""}
    assert settings_of(file, "token_file = '/t'", environ=environ).relays["default"].token_file
    (member,) = settings_of(file, "password = 'geheim'", environ=environ).relays["default"].members
    assert member.password == "geheim"
    environ["GEOMAIL_RELAY"] = "smtps://ann@h"
    (member,) = settings_of(file, "", environ=environ).relays["default"].members
    assert member.password is None


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_a_password_with_a_line_end_is_taken_and_pointed_out(file: Path, end: str) -> None:
    environ = {"GEOMAIL_RELAY_PASSWORD": f"geheim{end}"}
    settings = settings_of(file, "", environ=environ)
    assert settings.relays["default"].members[0].password == f"geheim{end}"
    (warning,) = settings.warnings
    assert warning == "GEOMAIL_RELAY_PASSWORD ends in a space or a line end: is that meant?"


@pytest.mark.parametrize("key", ["token_file", "key_file", "password"])
def test_a_secret_that_can_not_be_meant_is_not_repeated(file: Path, key: str) -> None:
    text = f'{key} = """-----BEGIN PRIVATE KEY-----\ngeheim{"A" * 40}"""'
    with pytest.raises(ConfigError, match=rf"{key} of .* must be text in one line$"):
        relay_of(file, text)


@pytest.mark.parametrize(
    ("url", "text", "tls", "is_verified"),
    [
        ("smtp://h", "", "may", False),
        ("smtp://h", "tls = 'required'", "starttls", False),
        ("smtp://h", "verify = false", "may", False),
        ("smtp://ann@h", "", "starttls", True),
        ("smtp://ann@h", "verify = false", "starttls", False),
        ("smtp://ann@h", "auth_in_clear = true", "may", False),
        ("smtp+starttls://h", "", "starttls", True),
        ("smtp+starttls://h", "verify = false", "starttls", False),
        ("smtps://h", "tls = 'required'", "implicit", True),
        ("smtps://h", "verify = false", "implicit", False),
    ],
)
def test_how_tls_begins_and_whether_it_is_verified(
    file: Path, url: str, text: str, tls: str, is_verified: bool
) -> None:
    relay = relay_of(file, text, url=url)
    assert relay.tls_of(relay.members[0]) == tls
    assert relay.verifies(relay.members[0]) == is_verified


def test_a_login_in_clear_is_for_smtp_alone(file: Path) -> None:
    file.write_text(
        "[relay.default]\nurls = ['smtp://ann@a', 'smtps://ann@b', 'smtp+starttls://ann@c']\n"
        "auth_in_clear = true"
    )
    relay = load({}, {}, places=[file]).relays["default"]
    assert [relay.tls_of(member) for member in relay.members] == ["may", "implicit", "starttls"]
    assert [relay.verifies(member) for member in relay.members] == [False, True, True]


@pytest.mark.parametrize("where", ["flag", "variable"])
def test_what_a_table_entrusts_to_its_hosts_is_not_for_others(file: Path, where: str) -> None:
    text = "token_file = '/t'\nverify = false\ncert_file = '/c.pem'"
    other = "smtps://bo@other.example"
    flag, environ = ([other], {}) if where == "flag" else (None, {"GEOMAIL_RELAY": other})
    settings = settings_of(file, text, relay=flag, environ=environ)
    relay = settings.relays["default"]
    assert (relay.token_file, relay.verify, relay.cert_file) == (None, True, "/c.pem")
    [warning] = settings.warnings
    assert warning == (
        f"token_file, verify of [relay.default] in {file} is for the hosts there,"
        " and not for those named in their place"
    )
    bare = settings_of(file, "auth_in_clear = true", url="smtp://ann@h", relay=["smtp://bo@o"])
    assert not bare.relays["default"].auth_in_clear


def test_limits_of_sites_are_for_mx_alone_whoever_names_it(file: Path) -> None:
    sites = "connections = 5\n[relay.default.site.'a.example']\nconnections = 1"
    there = settings_of(file, sites, url="mx", relay=["smtp://other.example"])
    assert (there.relays["default"].site, there.relays["default"].connections) == ((), 5)
    [warning] = there.warnings
    assert warning.startswith(f"site of [relay.default] in {file} is for the hosts there,")
    direct = settings_of(file, sites, url="mx", relay=["mx:2525"])
    assert direct.relays["default"].site
    assert not direct.warnings


def test_a_table_without_hosts_is_for_those_that_a_variable_names(file: Path) -> None:
    environ = {"GEOMAIL_RELAY": "smtps://bo@other.example"}
    settings = settings_of(file, "token_file = '/t'\nverify = false", url=None, environ=environ)
    relay = settings.relays["default"]
    assert (relay.token_file, relay.verify, settings.warnings) == ("/t", False, ())


def test_a_host_of_another_kind_may_be_tried_in_place_of_the_files(file: Path) -> None:
    relay = ["smtp://127.0.0.1:2525"]
    found = settings_of(file, "ca_file = '/ca.pem'\nsource_address = '::1'", relay=relay)
    assert found.relays["default"].members[0].port == 2525


def test_the_table_has_every_key_once() -> None:
    rows = relays.keys_table().splitlines()
    assert len(rows) == 2 + len(relays.KEYS) == 2 + len({key.name for key in relays.KEYS})
    assert {row.count(" | ") for row in rows[2:]} == {2}
    start = "| `in_flight` | 8 | "
    assert any(row.startswith(start) for row in rows)


def test_a_password_without_a_user_is_pointed_out(file: Path) -> None:
    (warning,) = settings_of(file, "password = 'geheim'", url=BARE).warnings
    assert warning.endswith("is for nobody: write USER@ before the host")
    assert settings_of(file, "password = 'geheim'").warnings == ()
