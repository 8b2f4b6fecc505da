"""Where mail goes: relays, each one or several hosts in the order in which they are tried.

    smtp://mail.example.com:25            clear, or TLS when offered, unverified; no login
    smtp+starttls://ann:pw@example.com    port 587, TLS required and verified
    smtps://ann:pw@example.com            port 465, TLS from the first byte, verified
    smtp://ann:pw@example.com             a login: TLS required and verified here too

The login is what stands before the last @ and is percent-encoded where it holds : or %. A password
may come from the URL, from GEOMAIL_RELAY_PASSWORD (GEOMAIL_RELAY_<NAME>_PASSWORD for another relay
than `default`), or from `password` in the file; the nearer to the command line, the stronger. It
stands in no repr, and no error repeats what could be one.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote_to_bytes

from geomail import spelling
from geomail.errors import ConfigError

VARIABLES = ("GEOMAIL_RELAY", "GEOMAIL_RELAY_PASSWORD")

Tls = Literal["may", "starttls", "implicit"]
Pipeline = Literal["off", "message", "overlap"]

_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_KEYS = ("url", "urls", "tls", "ca_file", "helo", "pipeline", "password")
_URL = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*) ://
        (?: (?P<login>.*) @ )?
        (?: \[ (?P<ip6>[0-9A-Fa-f:.]+) \] | (?P<host>[^\s:/?\#@\[\]]+) )
        (?: : (?P<port>[0-9]+) )? /?""",
    re.VERBOSE | re.DOTALL,
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_LONGEST_HOST, _LONGEST_LABEL = 253, 63  # RFC 1035 section 2.3.4, as text
# What stands in EHLO and HELO: what would end a word or a path is for no name.
_HELO = re.compile(r"[!-~]{1,255}")
_NOT_IN_HELO = frozenset('<>"\\')
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Member:
    """One host of a relay, and as whom we speak to it."""

    scheme: Literal["smtp", "smtp+starttls", "smtps"]
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> Tls:
        """Return how TLS begins: when offered, by STARTTLS and never without, or at once."""
        if self.scheme == "smtps":
            return "implicit"
        return "may" if self.scheme == "smtp" and self.user is None else "starttls"

    @property
    def verified(self) -> bool:
        """Tell whether the host has to prove its name: always, but with bare smtp://."""
        return self.tls != "may"


@dataclass(frozen=True, slots=True)
class Relay:
    """Hosts under one name, in the order in which they are tried."""

    name: str
    members: tuple[Member, ...]
    tls_required: bool = False
    ca_file: str | None = None
    helo: str | None = None
    pipeline: Pipeline = "overlap"


def parse_relay_url(url: str) -> Member:
    """Return what `url` says. Raises ConfigError, one line that never repeats the login."""
    if url.strip() == "mx" or url.startswith("mx:"):
        raise ConfigError(
            "the relay mx (straight to the recipients' hosts) is not available yet in this release:"
            " name a mail server, as smtp://HOST:25"
        )
    found = _URL.fullmatch(url.strip())
    if found is None:
        raise ConfigError(f"{_trouble(url)}: write smtp://HOST:PORT or smtps://USER@HOST")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise ConfigError(
            f"a relay's URL can't begin with {scheme}:// (known: smtp://, smtp+starttls://,"
            f" smtps://){spelling.hint(scheme, _PORTS)}"
        )
    host = _ip6(found["ip6"]) if found["ip6"] else _host(found["host"])
    user, password = _login(found["login"], host)
    return Member(scheme, host, _port(found["port"], scheme, host), user, password)  # type: ignore[arg-type]


def password_variable(name: str) -> str:
    """Return the name of the variable that may hold the password of relay `name`."""
    middle = "" if name == "default" else re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_"
    return f"GEOMAIL_RELAY_{middle}PASSWORD"


def is_password_variable(variable: str) -> bool:
    """Tell whether `variable` is a relay's password, of whatever relay."""
    return variable.startswith("GEOMAIL_RELAY_") and variable.endswith("PASSWORD")


def read_helo(value: object) -> str:
    """Return a name for EHLO; raises ValueError with the words that follow "must be"."""
    if not isinstance(value, str) or not _HELO.fullmatch(value) or _NOT_IN_HELO & set(value):
        raise ValueError("a host's name, or an address in [ ]")
    return value


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

    def _tables(self, tables: object) -> Mapping[str, Mapping[str, object]]:
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise ConfigError(f"relay in {self.place} must be tables: [relay.default] url = …")
        for name, table in tables.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(f"a relay's name is of letters, digits and . _ -, not {name!r}")
            for key in table:
                if key not in _KEYS:
                    where = f"{key!r} in [relay.{name}] of {self.place}"
                    raise ConfigError(f"unknown key {where}{spelling.hint(key, _KEYS)}")
        return tables

    def _relay(self, name: str, table: Mapping[str, object], flag_urls: Sequence[str]) -> Relay:
        return Relay(
            name=name,
            members=self._members(name, table, flag_urls),
            tls_required=self._choice(name, table, "tls", ("may", "required")) == "required",
            ca_file=self._text(name, table, "ca_file"),
            helo=self._helo(name, table),
            pipeline=self._choice(name, table, "pipeline", ("overlap", "message", "off")),  # type: ignore[arg-type]
        )

    def _members(
        self, name: str, table: Mapping[str, object], flag_urls: Sequence[str]
    ) -> tuple[Member, ...]:
        password = self.environ.get(password_variable(name))
        variable = self.environ.get("GEOMAIL_RELAY", "").replace(",", " ").split()
        if name == "default" and flag_urls:
            members = [_at("--relay", url) for url in flag_urls]
            self._warn_of_passwords_in_flags(members)
        elif name == "default" and variable:
            members = [_at("GEOMAIL_RELAY", url) for url in variable]
        else:
            members = [_at(self._where(name, "url"), url) for url in self._urls(name, table)]
            if password is None:  # the file's, for the file's hosts only
                password = self._text(name, table, "password")
            else:
                members = [replace(member, password=None) for member in members]
        return tuple(_with_password(member, password) for member in members)

    def _warn_of_passwords_in_flags(self, members: Sequence[Member]) -> None:
        if any(member.password is not None for member in members):
            self.warnings.append(
                "the process list shows a password given by --relay:"
                f" set {password_variable('default')} instead"
            )

    def _urls(self, name: str, table: Mapping[str, object]) -> Sequence[str]:
        given = table.get("url", table.get("urls"))
        urls = [given] if isinstance(given, str) else given
        if not isinstance(urls, list) or not urls or not all(isinstance(u, str) for u in urls):
            raise ConfigError(f"{self._where(name, 'url')} must be a URL, or a list of URLs")
        return urls

    def _text(self, name: str, table: Mapping[str, object], key: str) -> str | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigError(f"{self._where(name, key)} must be text")
        return value

    def _helo(self, name: str, table: Mapping[str, object]) -> str | None:
        try:
            return read_helo(table["helo"]) if "helo" in table else None
        except ValueError as error:
            raise ConfigError(f"{self._where(name, 'helo')} must be {error}") from None

    def _choice(
        self, name: str, table: Mapping[str, object], key: str, choices: Sequence[str]
    ) -> str:
        value = table.get(key, choices[0])
        if value not in choices:
            allowed = " or ".join(choices)
            raise ConfigError(f"{self._where(name, key)} must be {allowed}, not {value!r}")
        return str(value)

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


def _login(login: str | None, host: str) -> tuple[str | None, str | None]:
    if login is None:
        return None, None
    user, colon, password = login.partition(":")
    plain_user = _decoded(user, host)
    if not plain_user or not plain_user.isprintable():
        raise ConfigError(f"the relay's URL for {host} has no readable user name before its @")
    return plain_user, _decoded(password, host) if colon else None


def _decoded(text: str, host: str) -> str:
    # The only thing that can be wrong: a % that means itself.
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"in the relay's login for {host} a % must be written as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"the relay's login for {host} is not UTF-8, percent-encoded") from None


def _ip6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ConfigError(f"[{text}] in a relay's URL is not an IPv6 address") from None


def _host(text: str) -> str:
    host = text if text.isascii() else _ascii_host(text)
    if not _HOST.fullmatch(host) or ".." in host:
        raise ConfigError(f"{text!r} in a relay's URL is not the name of a host")
    name = host.removesuffix(".")
    if len(name) > _LONGEST_HOST or max(map(len, name.split("."))) > _LONGEST_LABEL:
        raise ConfigError(
            f"the host {host[:20]}… in a relay's URL is too long: a name has at most"
            f" {_LONGEST_HOST} characters, and {_LONGEST_LABEL} between two dots"
        )
    return host.lower()


def _ascii_host(text: str) -> str:
    import idna  # 20 ms that only such a host costs

    try:
        return idna.encode(text, uts46=True).decode()
    except idna.IDNAError:
        raise ConfigError(f"{text!r} in a relay's URL is not the name of a host") from None


def _port(text: str | None, scheme: str, host: str) -> int:
    port = int(text) if text and len(text) < 6 else 0 if text else _PORTS[scheme]
    if not 1 <= port <= 65535:
        raise ConfigError(f"the port in the relay's URL for {host} is not from 1 to 65535")
    return port


def _trouble(url: str) -> str:
    # What stands before an @, or behind a colon where a port should be, may be a secret.
    scheme, there, rest = url.strip().partition("://")
    if not there:
        return "a relay's URL begins with smtp://, smtp+starttls:// or smtps://"
    host = re.match(r"[\w.-]*", rest.rpartition("@")[2])
    login = "…@" if "@" in rest else ""
    return f"can't read the relay's URL {scheme[:20]}://{login}{host[0] if host else ''}…"
