"""[[route]]: which relay takes whose mail, and what is refused because it can't be meant."""

from pathlib import Path

import pytest

from geomail import config
from geomail.errors import ConfigError
from geomail.relays import Routing, Rule

RELAYS = "".join(f"[relay.{name}]\nurl = 'smtp://{name}.example'\n" for name in ("default", "east"))


def settings_of(folder: Path, text: str) -> config.Settings:
    file = folder / "geomail.toml"
    file.write_text(f"{text}\n{RELAYS}")
    return config.load({}, {}, places=[file])


def routing_of(folder: Path, *entries: str) -> Routing:
    return settings_of(folder, "\n".join(f"[[route]]\n{entry}" for entry in entries)).routing


def test_without_entries_there_is_nothing_to_ask(tmp_path: Path) -> None:
    assert not settings_of(tmp_path, "").routing
    assert not config.Settings().routing


@pytest.mark.parametrize(
    ("recipient", "sender", "relay"),
    [
        ("example.com", "", "itself"),
        ("a.example.com", "", "under"),
        ("b.a.example.com", "", "under"),
        ("special.example.com", "", "special"),
        ("notexample.com", "", None),
        ("example.com.org", "", None),
        ("com", "", None),
        ("", "", None),
        ("other.example", "shop.example", "shop"),
        ("other.example", "www.shop.example", "late"),
        ("other.example", "", "late"),
        ("both.example", "shop.example", "both"),
        ("both.example", "x.shop.example", "both"),
        ("both.example", "elsewhere.example", None),
        ("both.example", "", None),
        ("list2.example", "shop.example", "list"),
        ("xn--bcher-kva.example", "", "idn"),
        ("[192.0.2.1]", "", None),
    ],
)
def test_the_first_entry_that_fits(recipient: str, sender: str, relay: str | None) -> None:
    routing = Routing(
        [
            Rule("itself", ("example.com",)),
            Rule("special", ("special.example.com",)),
            Rule("under", ("*.example.com",)),
            Rule("both", ("both.example",), ("shop.example", "*.shop.example")),
            Rule("list", ("list1.example", "list2.example")),
            Rule("shop", (), ("shop.example",)),
            Rule("idn", ("xn--bcher-kva.example",)),
            Rule("late", ("other.example",)),
        ]
    )
    assert routing.relay_of(recipient, sender) == relay
    assert routing.relay_of(recipient, sender) == relay  # and so it is remembered


def test_what_is_remembered_is_bounded() -> None:
    routing = Routing([Rule("east", ("*.example",))])
    for number in range(25_000):
        assert routing.relay_of(f"d{number}.example", "") == "east"
    assert len(routing._remembered) <= 10_000


def test_domains_are_read_as_dns_has_them(tmp_path: Path) -> None:
    routing = routing_of(
        tmp_path,
        "recipient = ['Example.COM.', '*.Bücher.example']\nrelay = 'east'",
        "sender = 'Straße.example'\nrelay = 'default'",
    )
    assert routing.rules == (
        Rule("east", ("example.com", "*.xn--bcher-kva.example")),
        Rule("default", (), ("xn--strae-oqa.example",)),
    )
    assert [str(rule) for rule in routing.rules] == [
        "to example.com, *.xn--bcher-kva.example: relay east",
        "from xn--strae-oqa.example: relay default",
    ]


DOMAINS = "a domain such as example.com or *.example.com, or a list of them"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "recipient = 'a.example'\nrelay = 'esat'",
            "relay of HERE: no relay is named 'esat': did you mean east?",
        ),
        (
            "recipient = 'a.example'\nrelay = 'xyz'",
            "relay of HERE: no relay is named 'xyz'; known: default, east",
        ),
        ("recipient = 'a.example'", "relay of HERE must be the name of a relay"),
        ("recipient = 'a.example'\nrelay = 7", "relay of HERE must be the name of a relay, not 7"),
        (
            "recipent = 'a'\nrelay = 'east'",
            "unknown key 'recipent' in HERE: did you mean recipient?",
        ),
        ("relay = 'east'", "HERE would take all mail: name a recipient or a sender"),
        *[
            (
                f"recipient = {value}\nrelay = 'east'",
                f"recipient of HERE must be {DOMAINS}, not {shown}",
            )
            for value, shown in [
                ("'ann@a.example'", "'ann@a.example'"),
                ("'*'", "'*'"),
                ("'a.*.example'", "'a.*.example'"),
                ("'*a.example'", "'*a.example'"),
                ("'a..example'", "'a..example'"),
                ("['a.example', '']", "''"),
                ("[]", "[]"),
                ("7", "7"),
                ("'ü ü'", "'ü ü'"),
            ]
        ],
        (
            "sender = ['a.example', 'A.example']\nrelay = 'east'",
            "sender of HERE: 'A.example' stands twice",
        ),
    ],
)
def test_an_entry_that_cannot_be_meant_is_one_line(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        routing_of(tmp_path, "recipient = 'first.example'\nrelay = 'east'", entry)
    expected = said.replace("HERE", f"[[route]] 2 in {tmp_path / 'geomail.toml'}")
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["route = 'east'", "[route]\nrecipient = 'a'", "route = [1]"])
def test_entries_are_tables(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"route in .* must be tables: \[\[route\]\]"):
        settings_of(tmp_path, text)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["to a", "to a"], "'a' of [[route]] 2 in FILE never fits: [[route]] 1 has"),
        (["to *.a", "to b.a"], "'b.a' of [[route]] 2"),
        (["to *.a", "to *.b.a"], "'*.b.a' of [[route]] 2"),
        (["to a c", "to b c"], "'c' of [[route]] 2"),
        (["from s", "from s to a"], "'a' of [[route]] 2"),
        (["to a", "to a from s"], "'a' of [[route]] 2"),
        (["from s", "to a", "to b from s t"], "'s' of [[route]] 3"),
        (["to a from s", "to a from s"], "'a' of [[route]] 2"),
        (["to a from s", "to a from t", "to a from s t"], "'a' of [[route]] 3"),
        (["to *.a", "to a"], None),
        (["to b.a", "to *.a"], None),
        (["to a from s", "to a"], None),
        (["to a b from s", "to a c from s t"], None),
        (["to a", "from s"], None),
        (["from s", "to a"], None),
    ],
)
def test_what_an_earlier_entry_leaves_nothing_is_refused(
    tmp_path: Path, entries: list[str], said: str | None
) -> None:
    tables = [_table(entry) for entry in entries]
    if said is None:
        assert len(routing_of(tmp_path, *tables).rules) == len(entries)
        return
    with pytest.raises(ConfigError) as raised:
        routing_of(tmp_path, *tables)
    assert str(raised.value).startswith(said.replace("FILE", str(tmp_path / "geomail.toml")))


def _table(entry: str) -> str:
    """Return the table for words such as `to a b from s`."""
    found: dict[str, list[str]] = {}
    for word in entry.split():
        if word in ("to", "from"):
            domains = found.setdefault({"to": "recipient", "from": "sender"}[word], [])
        else:
            domains.append(word)
    return "\n".join([*(f"{key} = {value}" for key, value in found.items()), "relay = 'east'"])


def test_a_hundred_thousand_entries_are_read_in_a_moment() -> None:
    routing = Routing([Rule("east", (f"d{i}.example",)) for i in range(100_000)])
    assert routing.unreachable() is None
    assert routing.relay_of("d99999.example", "s.example") == "east"


def test_a_misspelt_table_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'routes' in .*: did you mean route\?"):
        settings_of(tmp_path, "[[routes]]\nrelay = 'east'")
