"""One host of a relay: what its URL says.

    smtp://mail.example.com:25            clear, or TLS when offered, unverified; no login
    smtp+starttls://ann:pw@example.com    port 587, TLS required and verified
    smtps://ann:pw@example.com            port 465, TLS from the first byte, verified
    smtp://ann:pw@example.com             a login: TLS required and verified here too
    mx                                    no host at all: straight to those of each recipient's
                                          domain, clear, or TLS when offered, unverified
    mx:2525                               the same at another port than 25, for trying it out: hosts
                                          on this machine are spoken to as well

The login is what stands before the last @ and is percent-encoded where it holds : or %. A password
may come from the URL, from GEOMAIL_RELAY_PASSWORD (GEOMAIL_RELAY_<NAME>_PASSWORD for another relay
than `default`), or from `password` in the file; the nearer to the command line, the stronger. It
stands in no repr, and no error repeats what could be one. Nothing here knows files or settings.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote_to_bytes

from geomail import spelling
from geomail.errors import ConfigError

VARIABLES = ("GEOMAIL_RELAY", "GEOMAIL_RELAY_PASSWORD")

Tls = Literal["may", "starttls", "implicit"]

_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_MX = re.compile(r"mx(?::(?P<port>[0-9]+))?", re.IGNORECASE)
_URL = re.compile(
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*) ://
        (?: (?P<login>.*) @ )?
        (?: \[ (?P<ip6>[0-9A-Fa-f:.]+) \] | (?P<host>[^\s:/?\#@\[\]]+) )
        (?: : (?P<port>[0-9]+) )? /?""",
    re.VERBOSE | re.DOTALL,
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_LONGEST_HOST, _LONGEST_LABEL = 253, 63  # RFC 1035 section 2.3.4, as text


@dataclass(frozen=True, slots=True)
class Member:
    """One host of a relay, and as whom we speak to it."""

    scheme: Literal["smtp", "smtp+starttls", "smtps", "mx"]
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> Tls:
        """Return how TLS begins: when offered, by STARTTLS and never without, or at once."""
        if self.scheme == "smtps":
            return "implicit"
        return "may" if self.scheme in ("smtp", "mx") and self.user is None else "starttls"

    @property
    def verified(self) -> bool:
        """Tell whether the host has to prove its name: always, but with bare smtp://."""
        return self.tls != "may"


def parse_relay_url(url: str) -> Member:
    """Return what `url` says. Raises ConfigError, one line that never repeats the login."""
    if mx := _MX.fullmatch(url.strip()):
        return Member("mx", "mx", _port(mx["port"], "mx", "mx"))
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
    port = int(text) if text and len(text) < 6 else 0 if text else _PORTS.get(scheme, 25)
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
