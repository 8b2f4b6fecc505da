"""What a setting's value may be: readers, each made once and used by every setting of its kind.

A reader takes what a flag, a variable or a file gave and returns the value that is meant. What it
can't use raises ValueError with the words that follow "must be" in an error line. It knows neither
where a value comes from nor what it is for.
"""

import base64
import ipaddress
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

Read = Callable[[object], object]

WEBHOOK_PREFIX = "whsec_"

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[(?P<six>(?i:IPv6:))?(?P<address>[0-9A-Fa-f:.]+)\]")
_LISTEN_HOST = re.compile(r"[^\[\]/@\s]*|\[[^\[\]/\s]+\]")
_NAME_SERVER = re.compile(r"(?:\[(?P<ip6>[^\]]+)\]|(?P<ip4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
_NAME_SERVERS = "an IP address, ADDRESS:PORT, or a list of them"


def whole(low: int, high: int = 10**9) -> Callable[[object], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(value: object) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not text.isascii() or not text.isdigit():
            raise ValueError(f"a whole number from {low} to {high}")
        if not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def seconds(
    low: float = 0.01, high: float = 10_000_000, unit: str = "seconds"
) -> Callable[[object], float]:
    """Return a reader of durations in `unit`, from `low` to `high`."""

    def read(value: object) -> float:
        number = float("nan")
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError):
                number = float(value)
        if not low <= number <= high:
            raise ValueError(f"a number of {unit} from {low:g} to {high:.12g}")
        return number

    return read


def name_servers(value: object) -> tuple[tuple[str, int], ...]:
    """Read ADDRESS or ADDRESS:PORT, or a list of them, each an IPv4 or [IPv6] address."""
    named = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(named, Sequence) or not named:
        raise ValueError(_NAME_SERVERS)
    return tuple(_name_server(each) for each in named)


def _name_server(value: object) -> tuple[str, int]:
    text = str(value).strip()
    found = _NAME_SERVER.fullmatch(text)
    address, port = (found["ip6"] or found["ip4"], found["port"]) if found else (text, "")
    try:
        return str(ipaddress.ip_address(address)), whole(1, 65535)(port or 53)
    except ValueError:
        raise ValueError(_NAME_SERVERS) from None


def one_of(*names: str) -> Callable[[object], str]:
    """Return a reader of one of `names`."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError(" or ".join(names))
        return str(value)

    return read


def switch(value: object) -> bool:
    """Return true or false, from TOML's own words or what people write in variables."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("true or false")
    return words[value.lower()]


def text(value: object) -> str:
    """Return text in one line, which is not empty."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("text in one line")
    return value


def webhook_secret(value: object) -> str:
    """Return a key of the Standard Webhooks scheme: whsec_ and base64, or any other text."""
    secret = text(value)
    if not secret.startswith(WEBHOOK_PREFIX):
        return secret
    try:
        if base64.b64decode(secret.removeprefix(WEBHOOK_PREFIX), validate=True):
            return secret
    except ValueError:
        pass
    raise ValueError(f"base64 behind {WEBHOOK_PREFIX}, or text that does not begin so")


def listen_address(value: object) -> tuple[str, int]:
    """Return host and port of HOST:PORT, [IPV6]:PORT, :PORT or PORT; without a host, loopback."""
    host, _, port = text(str(value)).strip().rpartition(":")
    if port.isascii() and port.isdigit() and int(port) < 65536 and _LISTEN_HOST.fullmatch(host):
        return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
    raise ValueError("an address to listen on, as 127.0.0.1:9501")


def listed(value: object) -> list[str]:
    """Return the words of a list, or of text with commas or spaces between them."""
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise ValueError("a list of words")
    return list(words)


def host_patterns(value: object) -> tuple[str, ...]:
    """Return names of hosts, each also as *.NAME (all under it), or * (any)."""
    patterns = []
    for word in listed(value):
        bare = word.lower().removeprefix("*.")
        if word != "*" and not _HOST.fullmatch(bare) and _version(bare.strip("[]")) is None:
            raise ValueError("names of hosts, as example.org, *.example.org or *")
        patterns.append(word.lower())
    return tuple(patterns)


def networks(value: object) -> tuple[str, ...]:
    """Return networks of IP addresses, each in its shortest spelling."""
    try:
        return tuple(str(ipaddress.ip_network(word)) for word in listed(value))
    except ValueError:
        raise ValueError("networks, as 10.0.0.0/8 or fd00::/8") from None


def modules(value: object) -> tuple[str, ...]:
    """Return names of Python modules, with dots."""
    names = listed(value)
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError("names of Python modules, as shop.tasks")
    return tuple(names)


def mail_address(value: object) -> str:
    """Return a mail address, with or without a name in front."""
    given = text(value)
    if not given.rstrip(">").partition("@")[2]:
        raise ValueError("an address such as news@example.com")
    return given


def ip_address(value: object) -> str:
    """Return the address of one network interface, in its shortest spelling."""
    try:
        address = ipaddress.ip_address(text(value))
        if not address.is_unspecified and not address.is_multicast:
            return str(address)
    except ValueError:
        pass
    raise ValueError("an IPv4 or IPv6 address of this machine, such as 192.0.2.1")


def host_name(value: object) -> str:
    """Return the name of a host or domain, as DNS has it."""
    if isinstance(value, str) and _HOST.fullmatch(value) and _version(value) is None:
        return value
    raise ValueError("a name such as example.org")


def a_labels(name: str) -> str:
    """Return a domain in lower case, as A-labels where it is not ASCII; "" when it is none."""
    if name.isascii():
        return name.lower()
    import idna  # 20 ms that only such a domain costs

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        return ""


def helo_name(value: object) -> str:
    """Return a name for EHLO (RFC 5321 section 4.1.4): a host's, or an address literal."""
    if isinstance(value, str):
        literal = _LITERAL.fullmatch(value)
        if literal is None:
            is_name = _HOST.fullmatch(value) is not None and _version(value) is None
        else:
            is_name = _version(literal["address"]) == (6 if literal["six"] else 4)
        if is_name:
            return value
    raise ValueError("a host's name, or an address as in [192.0.2.1] or [IPv6:2001:db8::1]")


def _version(address: str) -> int | None:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None
