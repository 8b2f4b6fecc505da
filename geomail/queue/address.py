"""What a Redis URL says: which servers to ask, and how to speak to them.

    redis://[user:password@]host[:6379][/db]                                one server
    unix://[user:password@]/path[?db=0]                                     one server
    redis+sentinel://[user:password@]host[:26379][,host…]/master[/db]       sentinels
    redis+cluster://[user:password@]host[:6379][,host…]                     nodes of a cluster

With `rediss` instead of `redis` every connection is TLS, and certificates are verified. User and
password are those of the Redis servers; the sentinels' own are `?sentinel_username=` and
`?sentinel_password=`. Other options are redis-py's: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
`ssl_check_hostname`, … Special characters are written as %XX.

Promised: no message, and no `repr`, repeats a password or a piece of one.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis.connection

from geomail.errors import RedisUnusable

Node = tuple[str, int]
Kind = Literal["single", "sentinel", "cluster"]

WHAT_A_URL_IS = (
    "redis://[user:password@]host[:port][/db], unix:///path, redis+sentinel://host,host/master or"
    " redis+cluster://host,host, or rediss… for TLS"
)
_KINDS: dict[str, Kind] = {"sentinel": "sentinel", "cluster": "cluster"}
_PORTS = {"sentinel": 26379, "cluster": 6379}
_NODE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?")
_parse: Callable[[str], dict[str, Any]] = redis.connection.parse_url


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis, as its URL gives it."""

    kind: Kind
    label: str
    """What people call it: no user, no password."""
    wire: Any
    """redis-py's class of connection, made with `options` for a server, `seed_options` for a
    seed."""
    options: dict[str, Any] = field(repr=False)
    seeds: tuple[Node, ...] = ()
    """The sentinels, or some nodes of the cluster."""
    seed_options: dict[str, Any] = field(default_factory=dict, repr=False)
    master: str = ""
    """The name by which the sentinels know the server."""


def read_url(url: str) -> Address:
    """Read a URL; raises RedisUnusable, without repeating it, when it can't be used."""
    try:
        bare, hosts = _apart(url)
        split = urlsplit(bare)
        if split.fragment:
            raise ValueError("a # that is not written as %23")
        scheme, _, kind = split.scheme.partition("+")
        address = _read_many(split, hosts, scheme, kind) if kind else _read_one(url, split)
    except (KeyError, ValueError):
        # Not chained: a parser's message may repeat a piece of the password.
        raise RedisUnusable(
            f"the Redis URL is malformed: expected {WHAT_A_URL_IS}; special characters as %XX"
        ) from None
    _check_files(address.options)
    return address


def _apart(url: str) -> tuple[str, str]:
    """Return a URL of several hosts with one in their place, and the hosts.

    Pythons with the check of gh-105704 take no IPv6 address in a list.
    """
    scheme, mark, rest = url.partition("://")
    if "+" not in scheme:
        return url, ""
    netloc = re.match(r"[^/?#]*", rest)
    assert netloc is not None
    login, at, hosts = netloc[0].rpartition("@")
    return f"{scheme}{mark}{login}{at}seed{rest[netloc.end() :]}", hosts


def _read_one(url: str, split: SplitResult) -> Address:
    options = _parse(url)
    wire = options.pop("connection_class", redis.connection.Connection)
    if split.scheme == "unix":
        return Address("single", options["path"], wire, options)
    if not re.fullmatch(r"/?\d*", split.path):
        raise ValueError("the database is not a number")
    node = (options.get("host", "localhost"), options.get("port", 6379))
    return Address("single", label_of(node), wire, options)


def _read_many(split: SplitResult, hosts: str, scheme: str, named: str) -> Address:
    kind = _KINDS[named]
    login, at, _ = split.netloc.rpartition("@")
    seeds = tuple(_read_node(text, _PORTS[kind]) for text in hosts.split(","))
    master, db = _read_path(split.path, kind)
    asked = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
    own = {name: asked.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    # The parser of one server's URL is right for all that is left.
    options = _parse(f"{scheme}://{login}{at}seed/{db}?{urlencode(asked)}")
    wire = options.pop("connection_class", redis.connection.Connection)
    del options["host"]
    if kind == "cluster" and (options.get("db") or any(own.values())):
        raise ValueError("a cluster has one database, and no sentinels")
    seed_options = options
    if kind == "sentinel":
        seed_options = {name: options[name] for name in options if name.startswith("ssl_")} | own
    label = (f"{master} of " if master else "") + ",".join(map(label_of, seeds))
    return Address(kind, label, wire, options, seeds, seed_options, master)


def _read_node(text: str, port: int) -> Node:
    found = _NODE.fullmatch(text)
    if not found or int(found[2] or port) > 65535:
        raise ValueError("no host and port")
    return unquote(found[1]).strip("[]"), int(found[2] or port)


def _read_path(path: str, kind: Kind) -> tuple[str, str]:
    pattern = r"/([^/]+)(?:/(\d*))?" if kind == "sentinel" else r"/?()(0?)"
    found = re.fullmatch(pattern, path)
    if not found:
        raise ValueError("no name of the master, or a database that is no number")
    return unquote(found[1]), found[2] or "0"


def label_of(node: Node) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_files(options: dict[str, Any]) -> None:
    """Raise RedisUnusable for certificates that can't be read: no waiting mends that."""
    cafile, capath = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    context = ssl.create_default_context()
    try:
        if cafile or capath:
            context.load_verify_locations(cafile, capath)
        if certificate or key:
            context.load_cert_chain(
                cast("str", certificate), key, password=options.get("ssl_password")
            )
    except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
        names = ", ".join(filter(None, (cafile, capath, certificate, key)))
        raise RedisUnusable(
            f"the Redis URL names certificates that can't be read: {names} ({error})"
        ) from None
