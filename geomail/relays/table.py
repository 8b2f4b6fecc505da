"""Tables of relays: [relay.NAME] of geomail.toml, variables and flags together, as Relays.

KEYS is the one truth about what may stand in such a table: how a value is read, the default, and
what people are told; the README's table derives from it. Each error names the key, the relay and
the file, and what is allowed there; for an unknown key the nearest one. Settings that contradict
each other are refused.

Hosts named by --relay or GEOMAIL_RELAY take the place of those in the table `default`. What the
table entrusts to its own hosts (_ENTRUSTED, and `password`) is not for them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from geomail import spelling
from geomail.errors import ConfigError
from geomail.relays.limits import READERS, sites
from geomail.relays.relay import Relay, contradiction
from geomail.relays.url import Member, is_password_variable, parse_relay_url, password_variable
from geomail.values import Read, helo_name, ip_address, one_of, switch, text, whole

Table = Mapping[str, object]

_OF_TASKS = ("url", "call")  # routes that `hold` and `hosts` know by these names
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is known about one key of a relay's table."""

    name: str
    read: Read
    default: object
    help: str
    is_secret: bool = False

    @property
    def default_text(self) -> str:
        """Return what stands for the default in tables."""
        if self.default is None or self.default == ():
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


def _urls(value: object) -> Sequence[str]:
    urls = [value] if isinstance(value, str) else value
    if not isinstance(urls, list) or not urls or not all(isinstance(u, str) for u in urls):
        raise ValueError("a URL, or a list of URLs")
    return urls


def _weights(value: object) -> Sequence[int]:
    weights = value if isinstance(value, list) else []
    if not weights or not all(type(each) is int and 0 <= each <= 1000 for each in weights):
        raise ValueError("a list of whole numbers from 0 to 1000")
    return tuple(weights)


KEYS = (
    Key("url", _urls, None, "one host, or a list in the order in which they are tried"),
    Key("weights", _weights, (), "how the hosts share; 0: only when no other is open"),
    Key("password", text, None, "of the login; better in a variable", is_secret=True),
    Key("token_file", text, None, "file with an OAuth 2 token, read again when it changes"),
    Key("tls", one_of("may", "required"), "may", "with bare smtp://: whether to do without TLS"),
    Key("verify", switch, True, "false: any certificate will do, whoever shows it"),
    Key("ca_file", text, None, "PEM file of authorities to trust besides the system's"),
    Key("cert_file", text, None, "PEM file of the certificate that we show to the host"),
    Key("key_file", text, None, "PEM file of its key, where `cert_file` doesn't hold it too"),
    Key("auth_in_clear", switch, False, "true: with smtp:// a login may go without TLS"),
    Key("helo", helo_name, None, "our name in EHLO here"),
    Key("source_address", ip_address, None, "IPv4 or IPv6 address of ours to connect from"),
    Key(
        "pipeline",
        one_of("overlap", "message", "off"),
        "overlap",
        "what goes in one write: the end of a mail and the next envelope, an envelope, a command",
    ),
    Key(
        "chunking",
        one_of("off", "on"),
        "off",
        "on: mails go by BDAT where the host announces it and swallows what it refuses",
    ),
    Key("in_flight", whole(1, 64), 8, "with `chunking`: most unanswered mails on a connection"),
    Key("connections", READERS["connections"], None, "most at a time, over all workers"),
    Key("rate", READERS["rate"], (), 'most mails: "100/s", "500/min", "5000/h", or a list of such'),
    Key("messages_per_connection", READERS["messages_per_connection"], None, "then it is left"),
    Key("max_recipients", READERS["max_recipients"], None, "in one transaction here"),
    Key(
        "site", sites, (), 'with `mx`: these four for a domain or MX host, `[relay.NAME.site."…"]`'
    ),
)
_BY_NAME = {key.name: key for key in KEYS} | {"urls": KEYS[0]}
# Said of the table's own hosts; to others a token would be given away, protection be lost, and a
# weight mean nothing.
_ENTRUSTED = ("token_file", "verify", "auth_in_clear", "weights")
_OF_RELAY = [key.name for key in KEYS if key.name not in ("url", "password", "tls")]


def keys_table() -> str:
    """Return the table of all keys of a relay in Markdown, for the README."""
    rows = ["| key | default | |", "|---|---|---|"]
    rows += [f"| `{key.name}` | {key.default_text} | {key.help} |" for key in KEYS]
    return "\n".join(rows) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Makes relays of what file, variables and flags say together."""

    environ: Mapping[str, str] = field(repr=False)
    place: str
    warnings: list[str]

    def read(self, tables: object, flag_urls: Sequence[str]) -> dict[str, Relay]:
        """Return the relays by name; `tables` is what the file has under `relay`."""
        named = dict(self._tables(tables))
        if flag_urls or self.environ.get("GEOMAIL_RELAY"):
            named.setdefault("default", {})
        found = {name: self._relay(name, table, flag_urls) for name, table in named.items()}
        self._warn_of_passwords_for_nobody(found)
        return found

    def _tables(self, tables: object) -> Mapping[str, Table]:
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise ConfigError(f"relay in {self.place} must be tables: [relay.default] url = …")
        for name, table in tables.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(f"a relay's name is of letters, digits and . _ -, not {name!r}")
            if name in _OF_TASKS:
                where = f"[relay.{name}] in {self.place}"
                raise ConfigError(f"{where}: tasks go by that name; choose another")
            for key in table:
                if key not in _BY_NAME:
                    where = f"{key!r} in [relay.{name}] of {self.place}"
                    raise ConfigError(f"unknown key {where}{spelling.hint(key, _BY_NAME)}")
        return tables

    def _relay(self, name: str, table: Table, flag_urls: Sequence[str]) -> Relay:
        others = self._other_hosts(name, flag_urls)
        are_meant = others is None or not ("url" in table or "urls" in table)
        if not are_meant:
            table = self._without_entrusted(name, table, others or ())
        values: dict[str, Any] = {key: self._value(name, table, key) for key in _OF_RELAY}
        relay = Relay(
            name=name,
            members=self._own_hosts(name, table) if others is None else others,
            tls_required=self._value(name, table, "tls") == "required",
            **values,
        )
        if said := contradiction(relay, table.keys(), are_meant=are_meant):
            flag = "--relay" if flag_urls else "GEOMAIL_RELAY"
            where = f"[relay.{name}] in {self.place}" if table else flag
            raise ConfigError(f"{where}: {said}")
        return relay

    def _other_hosts(self, name: str, flag_urls: Sequence[str]) -> tuple[Member, ...] | None:
        """Return the hosts of `default` that stand elsewhere than in the file."""
        variable = self.environ.get("GEOMAIL_RELAY", "").replace(",", " ").split()
        if name != "default" or not (flag_urls or variable):
            return None
        if flag_urls:
            members = [_at("--relay", url) for url in flag_urls]
            self._warn_of_passwords_in_flags(members)
        else:
            members = [_at("GEOMAIL_RELAY", url) for url in variable]
        password = self._password(name)
        return tuple(_with_password(member, password) for member in members)

    def _own_hosts(self, name: str, table: Table) -> tuple[Member, ...]:
        if {"url", "urls"} <= table.keys():
            where = f"[relay.{name}] in {self.place}"
            raise ConfigError(f"{where}: url and urls say the same: leave one of them out")
        key = "url" if "url" in table else "urls"
        members = [_at(self._where(name, "url"), url) for url in self._value(name, table, key)]
        password = self._password(name)
        if password is None:
            password = self._value(name, table, "password")
            if password is not None and not any(member.user for member in members):
                where = self._where(name, "password")
                self.warnings.append(f"{where} is for nobody: write USER@ before the host")
        else:
            members = [replace(member, password=None) for member in members]
        return tuple(_with_password(member, password) for member in members)

    def _password(self, name: str) -> str | None:
        """Return the password in the relay's variable; an empty one says nothing."""
        variable = password_variable(name)
        password = self.environ.get(variable) or None
        if password is not None and password != password.rstrip():
            self.warnings.append(f"{variable} ends in a space or a line end: is that meant?")
        return password

    def _without_entrusted(self, name: str, table: Table, others: Sequence[Member]) -> Table:
        left_out = [key for key in _ENTRUSTED if key in table]
        if "site" in table and not any(member.scheme == "mx" for member in others):
            left_out.append("site")
        if left_out:
            self.warnings.append(
                f"{', '.join(left_out)} of [relay.{name}] in {self.place} is for the hosts there,"
                " and not for those named in their place"
            )
        return {key: value for key, value in table.items() if key not in left_out}

    def _warn_of_passwords_in_flags(self, members: Sequence[Member]) -> None:
        if any(member.password is not None for member in members):
            self.warnings.append(
                "the process list shows a password given by --relay:"
                f" set {password_variable('default')} instead"
            )

    def _value(self, name: str, table: Table, key: str) -> Any:
        known = _BY_NAME[key]
        if key not in table and key != "urls":
            return known.default
        value = table.get(key)
        try:
            return known.read(value)
        except ValueError as error:
            # What is long may be a token or a key, written where its file should be named.
            is_shown = not known.is_secret and known.read is not _urls and len(repr(value)) <= 60
            shown = f", not {value!r}" if is_shown else ""
            raise ConfigError(f"{self._where(name, known.name)} must be {error}{shown}") from None

    def _where(self, name: str, key: str) -> str:
        return f"{key} of [relay.{name}] in {self.place}"

    def _warn_of_passwords_for_nobody(self, found: Mapping[str, Relay]) -> None:
        wanted = {password_variable(name) for name in found}
        for variable in self.environ:
            if is_password_variable(variable) and found and variable not in wanted:
                self.warnings.append(f"{variable} is set, and there is no relay of that name")


def _at(origin: str, url: str) -> Member:
    try:
        return parse_relay_url(url)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _with_password(member: Member, password: str | None) -> Member:
    if member.user is None or member.password is not None:
        return member
    return replace(member, password=password)
