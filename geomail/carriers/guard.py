"""The guard: where requests may go, by host, port and address.

A job's author chooses the URL, and with it whom this machine speaks to; so nothing may go anywhere
until the operator names the hosts. Behind a name that is allowed any address may stand, so each
one that it resolves to is looked at, and one that is not public refuses the request, whatever
the others are. An address that carries an IPv4 address (IPv4-mapped, 6to4, NAT64, Teredo, ISATAP)
is as public as that. `networks` are allowed although they are not public; the host still has to be.

What is public is a table of our own, from IANA's registries of special-purpose addresses (RFC
6890), because Python's changed with its releases. Ports of protocols that read lines, and would
take an HTTP request for commands (mail, FTP, IRC, Redis …), are refused everywhere: WHATWG Fetch's
"bad ports", and those of databases.

Pure: who asks for a name's addresses, and that the connection goes to one of those which were
looked at, is told in names.py and connections.py.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from geomail.carriers.target import Target

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_NOT_PUBLIC = {
    4: _networks(
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    ),
    # Of IPv6 only 2000::/3 is given out; these parts of it are not for hosts.
    6: _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
}
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = frozenset((0x00005EFE, 0x02005EFE))
_LAST_32 = 0xFFFFFFFF
_BAD_PORTS = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161),
        *(179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563),
        *(587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060),
        *(5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        *(24, 445, 1433, 2525, 3306, 5432, 6379, 6380, 11211, 26379, 27017),
    )
)


class Guard:
    """What the operator allows."""

    def __init__(self, hosts: Sequence[str], networks: Sequence[str]) -> None:
        """Allow `hosts` (NAME, *.NAME for all under it, * for any); `networks`: also these."""
        self._names = frozenset(_bare(host) for host in hosts if not host.startswith("*"))
        self._endings = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._is_any = "*" in hosts
        self._allowed = _networks(*networks)

    def against(self, target: Target) -> str | None:
        """Return why a request may not go there, before its name is looked up; None: it may."""
        if not (self._is_any or self._names or self._endings):
            return "URL tasks are off: name the hosts they may go to in url_hosts"
        host = target.host
        if not (self._is_any or host in self._names or host.endswith(self._endings)):
            return f"{host} is not among url_hosts"
        if target.port in _BAD_PORTS:
            return f"port {target.port} is not for HTTP requests"
        if not target.is_literal:
            return None
        return self._reason(ipaddress.ip_address(host))

    def against_addresses(self, host: str, addresses: Iterable[str]) -> str | None:
        """Return why no request may go to `host`, which these addresses are of."""
        for text in addresses:
            address = _address(text)
            if address is None:
                return f"{host} has the address {text[:80]}, which is none"
            if reason := self._reason(address):
                return f"{host} leads to {reason}"
        return None

    def _reason(self, address: IpAddress) -> str | None:
        if all(is_public(each) or self._is_allowed(each) for each in meant(address)):
            return None
        return f"{address}, which is not public: url_networks would have to allow it"

    def _is_allowed(self, address: IpAddress) -> bool:
        return any(address in network for network in self._allowed)


def meant(address: IpAddress) -> tuple[IpAddress, ...]:
    """Return the addresses that have to be public for `address` to be: those that it carries."""
    if address.version == 4:
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    last = ipaddress.IPv4Address(int(address) & _LAST_32)
    if address in _NAT64:
        return (last,)
    if (int(address) >> 32) & _LAST_32 in _ISATAP:
        return (address, last)
    return (address,)


def is_public(address: IpAddress) -> bool:
    """Return whether an address that carries no other one is a host's in the public network."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.scope_id is not None or address not in _GIVEN_OUT
    ):
        return False
    return not any(address in network for network in _NOT_PUBLIC[address.version])


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _bare(host: str) -> str:
    bare = host.strip("[]").removesuffix(".")
    address = _address(bare)
    return bare if address is None else str(address)
