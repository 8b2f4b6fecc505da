"""Targets: where one HTTP request goes, read from a URL in one strict way.

What decides where the connection goes, what the host is compared with, and what the Host header
says are the same three values here, so no two readers can be played off against each other. What
other programs read in more than one way is refused: a name and password in front of the host,
backslashes, escapes in the host, white space and control characters, IPv4 addresses in decimal,
octal or hexadecimal, ports that are none. Internationalized names become A-labels first (UTS 46,
which turns full-width digits into digits), then the same checks follow.

A reason quotes nothing of a URL but its host, because URLs carry secrets.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin

from geomail.errors import PayloadError
from geomail.job.fields import shown
from geomail.values import a_labels

_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?", re.IGNORECASE
)
_AUTHORITY = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@]+))(?::(?P<port>\d*))?")
_NEVER = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
# A space, or a byte that is no UTF-8 (surrogateescape).
_RAW = re.compile(r"[ \udc80-\udcff]")
_AS_IT_IS = "/?:@!$&'()*+,;=%~-._"


@dataclass(frozen=True, slots=True)
class Target:
    """One place: `host` in lower case without brackets or last dot, `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return what a kept connection is kept under (RFC 6454 section 4)."""
        return self.scheme, self.host, self.port

    @property
    def is_literal(self) -> bool:
        """Tell whether the host is an address; no name ends with a number."""
        return ":" in self.host or self.host.rpartition(".")[2].isdigit()

    @property
    def key(self) -> str:
        """Return HOST:PORT, or [IPV6]:PORT."""
        return f"{self._named}:{self.port}"

    @property
    def authority(self) -> str:
        """Return what the Host header says: the port only where it is not the scheme's own."""
        return self._named if self.port == _PORTS[self.scheme] else self.key

    @property
    def _named(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def redirected(self, location: str) -> "Target":
        """Return where a Location header leads from here; raises PayloadError.

        What can't be in a URL is escaped, where it is read in one way alone.
        """
        base = f"{self.scheme}://{self.authority}{self.path}"
        location = _RAW.sub(_percent, location)  # as browsers do
        if _NEVER.search(location):
            raise PayloadError("the URL has a space, a backslash or a control character in it")
        try:
            return target_of(urljoin(base, location))
        except ValueError:
            raise PayloadError("it leads to no http:// or https:// URL") from None


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]) & 0xFF:02X}"


def target_of(url: str) -> Target:
    """Return the place that a URL names; raises PayloadError with what is wrong with it."""
    if _NEVER.search(url):
        raise PayloadError("the URL has a space, a backslash or a control character in it")
    found = _URL.fullmatch(url.partition("#")[0])
    if found is None:
        raise PayloadError("no http:// or https:// URL")
    scheme = found["scheme"].lower()
    host, port = _place(found["authority"])
    path = (found["path"] or "/") + (found["query"] or "")
    return Target(scheme, host, _PORTS[scheme] if port is None else port, _escaped(path))


@lru_cache(maxsize=1024)
def _place(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        raise PayloadError(
            "the URL has a name or password in front of its host: send an Authorization header"
        )
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise PayloadError(f"{shown(authority)} is no host with a port")
    port = int(found["port"][:6]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise PayloadError(f"{shown(authority)}: the port is from 1 to 65535")
    return _ip6(found["ip6"]) if found["ip6"] else _host(found["name"]), port


def _ip6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise PayloadError(f"{shown(text)} is no IPv6 address") from None


def _host(name: str) -> str:
    host = a_labels(name).removesuffix(".")
    if not _NAME.fullmatch(host):
        raise PayloadError(f"{shown(name)} can't be the name of a host")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):  # an IPv4 address to some reader or other
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise PayloadError(
                f"{shown(name)} is no IPv4 address: four decimal numbers expected, as 192.0.2.1"
            ) from None
    return host


def _escaped(path: str) -> str:
    return path if path.isalnum() and path.isascii() else quote(path, safe=_AS_IT_IS)
