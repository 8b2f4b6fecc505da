"""Settings: where a value comes from, and what is said of one that can't be used."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from geomail import config, relays
from geomail.config import Settings, load, parse_relay_url
from geomail.errors import ConfigError

_LONG = "a" * 63 + ".ab" * 63 + "c"  # 253 characters, which is the most, and a label of 63


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "geomail.toml"


def loaded(
    file: Path, text: str = "", *, environ: Mapping[str, str] = {}, **flags: object
) -> Settings:
    file.write_text(text)
    named = {"--" + name.replace("_", "-"): value for name, value in flags.items()}
    return load(named, environ, places=[file])


def test_defaults_are_the_documented_ones() -> None:
    settings = load({}, {}, places=[])
    assert (settings.concurrency, settings.grace_s, settings.retries) == (20, 30, 20)
    assert settings.queues == (("queue:email", 1),)
    assert (settings.relays, settings.redis, settings.warnings) == ({}, None, ())


def test_a_flag_goes_over_a_variable_over_the_file_over_the_default(file: Path) -> None:
    text, environ = "concurrency = 2", {"GEOMAIL_CONCURRENCY": "3"}
    assert loaded(file, "").concurrency == 20
    assert loaded(file, text).concurrency == 2
    assert loaded(file, text, environ=environ).concurrency == 3
    assert loaded(file, text, environ=environ, concurrency="4").concurrency == 4


def test_flags_that_were_not_given_say_nothing(file: Path) -> None:
    settings = loaded(file, "burst = true", concurrency=None, queue=[], burst=False)
    assert settings.burst
    assert settings.queues == (("queue:email", 1),)


UNLIKE_AN_ADDRESS = {
    "helo": "b",
    "nameserver": "192.0.2.1:54",
    "listen_tcp": "9501",
    "listen_http": "[::1]:8025",
    "listen_smtp": "127.0.0.1:2587",
    "listen_smtps": ":465",
    "url_hosts": "*.example.org",
    "url_networks": "10.0.0.0/8",
    "tasks": "shop.tasks",
}


def test_every_setting_can_be_given_in_each_way(file: Path) -> None:
    for setting in config.SETTINGS:
        value = setting.default if isinstance(setting.default, str | int | float) else "a@b"
        value = UNLIKE_AN_ADDRESS.get(setting.name, value)
        shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
        by_file = loaded(file, f"{setting.name} = {shown}")
        by_variable = loaded(file, environ={setting.variable: shown.strip('"')})
        assert getattr(by_file, setting.field) == getattr(by_variable, setting.field)


_AN_ADDRESS = "an address to listen on, as 127.0.0.1:9501"


@pytest.mark.parametrize(
    ("written", "servers"),
    [
        ('"192.0.2.1"', (("192.0.2.1", 53),)),
        ('"192.0.2.1:5353, [2001:db8::1]:54"', (("192.0.2.1", 5353), ("2001:db8::1", 54))),
        ('["2001:DB8::1", "[::1]"]', (("2001:db8::1", 53), ("::1", 53))),
    ],
)
def test_name_servers(file: Path, written: str, servers: tuple[tuple[str, int], ...]) -> None:
    assert loaded(file, f"nameserver = {written}").nameservers == servers


@pytest.mark.parametrize(
    "written", ['"dns.example"', '""', "[]", "5", '"192.0.2.1:0"', '"192.0.2.1:70000"', '["x"]']
)
def test_what_is_no_name_server(file: Path, written: str) -> None:
    with pytest.raises(ConfigError, match=r"nameserver in .* must be an IP address"):
        loaded(file, f"nameserver = {written}")


def test_a_config_file_named_by_flag_or_variable_goes_over_the_places(tmp_path: Path) -> None:
    for name, n in (("here", 2), ("there", 3), ("elsewhere", 4)):
        (tmp_path / name).write_text(f"concurrency = {n}")
    here, there, elsewhere = (str(tmp_path / name) for name in ("here", "there", "elsewhere"))
    places = [tmp_path / "nowhere", Path(here)]
    assert load({}, {}, places=places).concurrency == 2
    assert load({}, {"GEOMAIL_CONFIG": there}, places=places).concurrency == 3
    environ = {"GEOMAIL_CONFIG": there}
    assert load({"--config": elsewhere}, environ, places=places).concurrency == 4


def test_a_read_again_sees_what_changed_and_keeps_the_flags(file: Path) -> None:
    settings = loaded(file, "retries = 1\ngrace_s = 1", grace="5")
    file.write_text("retries = 2\ngrace_s = 2")
    again = settings.again()
    assert (again.retries, again.grace_s) == (2, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurency = 1", "unknown setting 'concurency' in FILE: did you mean concurrency?"),
        ("grace = 1", "unknown setting 'grace' in FILE: did you mean grace_s?"),
        ("rate = '1/s'", "unknown setting 'rate' in FILE: it belongs into [relay.NAME]"),
        ("qqqq = 1", "unknown setting 'qqqq' in FILE"),
        (
            "concurrency = 0",
            "concurrency in FILE must be a whole number from 1 to 10000, not 0",
        ),
        (
            "concurrency = true",
            "concurrency in FILE must be a whole number from 1 to 10000, not True",
        ),
        (
            "grace_s = 'soon'",
            "grace_s in FILE must be a number of seconds from 0 to 10000000, not 'soon'",
        ),
        (
            "grace_s = nan",
            "grace_s in FILE must be a number of seconds from 0 to 10000000, not nan",
        ),
        *(
            (
                f"listen_tcp = '{where}'",
                f"listen_tcp in FILE must be {_AN_ADDRESS}, not '{where}'",
            )
            for where in ("[::1", "http://127.0.0.1:80", "::1]:80", "127.0.0.1", "[]:80")
        ),
        ("burst = 'maybe'", "burst in FILE must be true or false, not 'maybe'"),
        ("unknown = 'ask'", "unknown in FILE must be retry or hold, not 'ask'"),
        (
            "from = 'Ann'",
            "from in FILE must be an address such as news@example.com, not 'Ann'",
        ),
        (
            'helo = "a\\nb"',
            (
                "helo in FILE must be a host's name, or an address as in [192.0.2.1] or"
                " [IPv6:2001:db8::1], not 'a\\nb'"
            ),
        ),
        (
            "queue = 'a=0'",
            "queue in FILE must be NAME or NAME=WEIGHT with a weight from 1 to 1000, not 'a=0'",
        ),
        (
            "queue = ['a', 'a=2']",
            "queue in FILE must be a list in which each queue stands once, not ['a', 'a=2']",
        ),
        ("queue = 7", "queue in FILE must be NAME or NAME=WEIGHT, or a list of them, not 7"),
        ('redis = "redis://:geheim@h\\n"', "redis in FILE must be text in one line"),
        ("beat_s = 20", "lease_s (30) must be at least twice beat_s (20)"),
        ("retry_cap_s = 1", "retry_base_s must not be greater than retry_cap_s"),
        ("relay = 'smtp://h'", "relay in FILE must be tables: [relay.default] url = …"),
        ("[relay.a]", "url of [relay.a] in FILE must be a URL, or a list of URLs"),
        ("[relay.a]\nurl = []", "url of [relay.a] in FILE must be a URL, or a list of URLs"),
        (
            "[relay.a]\nulr = 'smtp://h'",
            "unknown key 'ulr' in [relay.a] of FILE: did you mean url?",
        ),
        (
            "[relay.a]\nurl = 'smtp://h'\ntls = 'yes'",
            "tls of [relay.a] in FILE must be may or required, not 'yes'",
        ),
        (
            "[relay.a]\nurl = 'smtp://h:0'",
            "url of [relay.a] in FILE: the port in the relay's URL for h is not from 1 to 65535",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(file, text)
    assert str(raised.value) == said.replace("FILE", str(file))


@pytest.mark.parametrize(
    "helo",
    [
        *("", "a b", "<a>", "a>b", '"a"', "a\\b", "a\x7f", "ä.example", "a,b", "!", "a@b.example"),
        *("a.", ".a", "a..b", "-a", "a-", "a.-b", "a" * 64, "a." * 127 + "bc", "a\n"),
        *(
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "[IPv6:192.0.2.1]",
            "[192.0.2]",
            "[256.0.0.1]",
        ),
        *("[192.0.2.1", "192.0.2.1]", "[]", "[a.example]", "[IPv6:fe80::1%eth0]", "[192.0.2.1]x"),
    ],
)
def test_a_name_that_can_not_stand_in_ehlo_is_refused(file: Path, helo: str) -> None:
    shown = json.dumps(helo)
    with pytest.raises(ConfigError, match=r"^helo in .* must be a host's name"):
        loaded(file, f"helo = {shown}")
    with pytest.raises(ConfigError, match=r"^helo of \[relay\.a\] in .* must be a host's name"):
        loaded(file, f"[relay.a]\nurl = 'smtp://h'\nhelo = {shown}")


@pytest.mark.parametrize(
    "helo",
    [
        *("mail.example.com", "x_1", "localhost", "_a.b", "xn--bcher-kva.example", "3com.example"),
        *("a.1", "10", "a" * 63 + ".example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "[ipv6:::1]"),
    ],
)
def test_names_that_can_stand_in_ehlo(file: Path, helo: str) -> None:
    settings = loaded(file, f"helo = '{helo}'\n[relay.a]\nurl = 'smtp://h'\nhelo = '{helo}'")
    assert settings.helo == settings.relays["a"].helo == helo


def test_a_file_that_is_not_toml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("concurrency = = 1")
    (tmp_path / "digits").write_text("concurrency = 1" + "0" * 5000)
    (tmp_path / "deep").write_text("concurrency = " + "[" * 5000)
    (tmp_path / "utf-16").write_text("concurrency = 1", "utf-16")
    for name, said in (
        ("bad", "is not TOML: .*line 1"),
        ("digits", "is not TOML: .*digits"),
        ("deep", "is not TOML: nested too deep"),
        ("utf-16", "utf-16 is not UTF-8 text"),
        ("none", "No such file"),
        ("", "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=said):
            load({"--config": str(tmp_path / name)}, {}, places=[])


def test_a_file_as_windows_editors_write_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfconcurrency = 7\r\n[relay.a]\r\nurl = 'mx'\r\n")
    settings = load({"--config": str(tmp_path / "file")}, {}, places=[])
    assert settings.concurrency == 7
    assert "a" in settings.relays


def test_flags_and_variables_are_named_in_errors(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--concurrency must be a whole number .* not 'many'$"):
        loaded(file, concurrency="many")
    with pytest.raises(ConfigError, match=r"^GEOMAIL_GRACE_S must be a number of seconds"):
        loaded(file, environ={"GEOMAIL_GRACE_S": "soon"})


def test_a_mistyped_variable_is_an_error_and_a_strange_one_a_warning(file: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean GEOMAIL_GRACE_S"):
        loaded(file, environ={"GEOMAIL_GRACE": "3"})
    with pytest.raises(ConfigError, match="did you mean GEOMAIL_RELAY"):
        loaded(file, environ={"GEOMAIL_RELAYS": "smtp://h"})
    settings = loaded(file, environ={"GEOMAIL_SERVICE_HOST": "10.0.0.1", "GEOMAIL_VENV": "x"})
    assert settings.warnings == ("the variable GEOMAIL_SERVICE_HOST means nothing here",)


def test_queues_carry_weights(file: Path) -> None:
    assert loaded(file, queue=["a", "b=3"]).queues == (("a", 1), ("b", 3))
    assert loaded(file, environ={"GEOMAIL_QUEUE": "a, b=3"}).queues == (("a", 1), ("b", 3))


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "user", "password", "tls"),
    [
        ("smtp://h", "smtp", "h", 25, None, None, "may"),
        ("smtp://h:465", "smtp", "h", 465, None, None, "may"),
        ("SMTP://Mail.Example.COM:2525/", "smtp", "mail.example.com", 2525, None, None, "may"),
        ("smtp://127.0.0.1:1", "smtp", "127.0.0.1", 1, None, None, "may"),
        ("smtp://[::1]:25", "smtp", "::1", 25, None, None, "may"),
        ("smtp://bücher.example", "smtp", "xn--bcher-kva.example", 25, None, None, "may"),
        (f"smtp://{_LONG}.", "smtp", f"{_LONG}.", 25, None, None, "may"),
        ("smtp://mail_relay", "smtp", "mail_relay", 25, None, None, "may"),
        ("smtp://ann:pw@h", "smtp", "h", 25, "ann", "pw", "starttls"),
        ("smtp+starttls://h", "smtp+starttls", "h", 587, None, None, "starttls"),
        ("smtps://ann@h", "smtps", "h", 465, "ann", None, "implicit"),
        ("smtps://ann@x.org:p%40s%25@h", "smtps", "h", 465, "ann@x.org", "p@s%", "implicit"),
        ("smtps://ann:a:b/c?d#e@h", "smtps", "h", 465, "ann", "a:b/c?d#e", "implicit"),
        ("smtps://ann:@h", "smtps", "h", 465, "ann", "", "implicit"),
        ("mx", "mx", "mx", 25, None, None, "may"),
        ("MX:2525", "mx", "mx", 2525, None, None, "may"),
    ],
)
def test_relay_urls(
    url: str,
    scheme: str,
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    tls: str,
) -> None:
    member = parse_relay_url(url)
    assert dataclasses.astuple(member) == (scheme, host, port, user, password)
    assert member.tls == tls
    assert member.verified == (tls != "may")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mx:0", "the port in the relay's URL for mx is not from 1 to 65535"),
        ("mx:70000", "the port in the relay's URL for mx is not from 1 to 65535"),
        ("mx:", "a relay's URL begins with"),
        ("mail.example.com", "a relay's URL begins with smtp://"),
        ("ann:geheim@mail.example.com", "a relay's URL begins with smtp://"),
        ("smpt://h", "can't begin with smpt://.*did you mean smtp"),
        ("http://h", "can't begin with http://"),
        ("smtp://", "can't read the relay's URL"),
        ("smtp://h:0", "port .* for h is not from 1 to 65535"),
        ("smtp://h:65536", "port .* for h is not from 1 to 65535"),
        ("smtp://h:99999999999999", "port .* for h is not from 1 to 65535"),
        ("smtp://ann:geheim", "can't read the relay's URL smtp://ann"),
        ("smtp://h h", "can't read the relay's URL"),
        ("smtp://h/path", "can't read the relay's URL"),
        ("smtp://a..b", "is not the name of a host"),
        ("smtp://-h", "is not the name of a host"),
        (f"smtp://{'a' * 64}.example", "too long: a name has at most 253 .* 63 between two dots"),
        (f"smtp://{'ab.' * 84}ab", "too long"),
        (f"smtp://ann:geheim@{'a' * 300}", "too long"),
        ("smtp://[:::]", "is not an IPv6 address"),
        ("smtp://☃..example", "is not the name of a host"),
        ("smtps://:geheim@h", "no readable user name"),
        ("smtps://a%0d%0ab:geheim@h", "no readable user name"),
        ("smtps://ann:geheim%@h", "a % must be written as %25"),
        ("smtps://ann:geheim%ff@h", "is not UTF-8"),
    ],
)
def test_a_relay_url_that_cannot_be_used_is_one_line_without_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        parse_relay_url(url)
    assert "\n" not in str(raised.value)
    assert "geheim" not in str(raised.value)


def test_repeated_relay_flags_are_members_of_default_in_order(file: Path) -> None:
    text = "[relay.default]\nurl = 'smtp://old'\ntls = 'required'\n[relay.bulk]\nurl = 'smtp://b'"
    found = loaded(file, text, relay=["smtp://one", "smtp://two"]).relays
    assert [member.host for member in found["default"].members] == ["one", "two"]
    assert found["default"].tls_required
    assert found["bulk"].members == (parse_relay_url("smtp://b"),)


def test_relays_in_the_file(file: Path) -> None:
    text = """
        [relay.default]
        urls = ["smtps://ann@one", "smtps://ann@two:4650"]
        password = "geheim"
        ca_file = "/ca.pem"
        helo = "out.example.com"
        pipeline = "message"
    """
    relay = loaded(file, text).relays["default"]
    assert [(m.host, m.port, m.password) for m in relay.members] == [
        ("one", 465, "geheim"),
        ("two", 4650, "geheim"),
    ]
    assert (relay.ca_file, relay.helo, relay.pipeline) == (
        "/ca.pem",
        "out.example.com",
        "message",
    )


def test_a_relay_from_a_variable(file: Path) -> None:
    environ = {
        "GEOMAIL_RELAY": "smtps://ann@one, smtps://ann:own@two",
        "GEOMAIL_RELAY_PASSWORD": "p",
    }
    members = loaded(file, environ=environ).relays["default"].members
    assert [(m.host, m.password) for m in members] == [("one", "p"), ("two", "own")]


def test_a_password_comes_from_the_strongest_place(file: Path) -> None:
    text = "[relay.a-b]\nurl = 'smtps://ann:in-url@h'\npassword = 'in-file'"
    assert loaded(file, text).relays["a-b"].members[0].password == "in-url"
    environ = {"GEOMAIL_RELAY_A_B_PASSWORD": "in-variable"}
    assert loaded(file, text, environ=environ).relays["a-b"].members[0].password == "in-variable"


def test_the_files_password_goes_to_the_files_hosts_only(file: Path) -> None:
    text = "[relay.default]\nurl = 'smtps://ann@h'\npassword = 'geheim'"
    settings = loaded(file, text, relay=["smtps://ann@other"])
    assert settings.relays["default"].members[0].password is None


def test_a_password_in_a_flag_works_and_warns(file: Path) -> None:
    settings = loaded(file, relay=["smtps://ann:geheim@h"])
    assert settings.relays["default"].members[0].password == "geheim"
    assert "set GEOMAIL_RELAY_PASSWORD instead" in settings.warnings[0]


def test_no_repr_shows_a_secret(file: Path) -> None:
    environ = {"GEOMAIL_REDIS": "redis://:geheim@h", "GEOMAIL_RELAY_PASSWORD": "geheim"}
    settings = loaded(file, environ=environ, relay=["smtps://ann@h"])
    assert settings.relays["default"].members[0].password == "geheim"
    assert "geheim" not in repr(settings)


def test_relays_are_required_whole(file: Path) -> None:
    with pytest.raises(ConfigError, match="no relay to send to: pass --relay"):
        config.require_relays(loaded(file))
    with pytest.raises(ConfigError, match=r"no password .* at h: set GEOMAIL_RELAY_BULK_PASSWORD"):
        config.require_relays(loaded(file, "[relay.bulk]\nurl = 'smtps://ann@h'"))
    config.require_relays(loaded(file, relay=["smtp://h"]))


def test_a_password_for_no_relay_warns(file: Path) -> None:
    environ = {"GEOMAIL_RELAY_BULC_PASSWORD": "x"}
    assert loaded(file, environ=environ).warnings == ()
    settings = loaded(file, environ=environ, relay=["smtp://h"])
    assert "no relay of that name" in settings.warnings[0]


def test_the_data_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert config.default_data_dir({"HOME": "/h"}) == "/h/.local/state/geomail"
    assert config.default_data_dir({"XDG_STATE_HOME": "/s"}) == "/s/geomail"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert config.default_data_dir({"HOME": "/h"}) == "/var/lib/geomail"


def test_the_table_has_every_setting_once() -> None:
    rows = config.settings_table().splitlines()
    assert len(rows) == 2 + len(config.SETTINGS)
    assert (
        "| `concurrency` | 20 | `--concurrency` | connections at a time, over all hosts |" in rows
    )
    assert {row.count(" | ") for row in rows[2:]} == {3}


def test_names_of_password_variables() -> None:
    assert relays.password_variable("default") == "GEOMAIL_RELAY_PASSWORD"
    assert relays.password_variable("eu.bulk") == "GEOMAIL_RELAY_EU_BULK_PASSWORD"
