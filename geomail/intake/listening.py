"""Where doors listen: sockets that are bound here, or handed over by a parent or by systemd.

    geomail run --processes 4 --tcp 127.0.0.1:9501
        parent  binds, and hands each worker the same sockets (GEOMAIL_DOORS=tcp:5,http:6)
        worker  accepts from them; one that retires leaves the queue of connections to the others

systemd's sockets (LISTEN_FDS) are told apart by FileDescriptorName=tcp, http, smtp or smtps, else
by their addresses, else they serve the doors that are configured, in this order.

Promised: a door that can't be opened is one line and exit status 2, before anything is accepted.
Not promised: a door that is safe on a public address without a token, logins or TLS; that is
warned of. No gevent here: the parent of several workers binds too.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from ipaddress import ip_address

from geomail import log
from geomail.config import Settings
from geomail.errors import ConfigError

Listeners = dict[str, socket.socket]

NAMES = ("tcp", "http", "smtp", "smtps")
DOORS_VARIABLE = "GEOMAIL_DOORS"
_BACKLOG = 4096  # or what the system allows, if that is less
_FIRST_FD = 3  # sd_listen_fds(3)
BY_LOGIN = frozenset(("smtp", "smtps"))  # others: by door_token
_ANYBODY = "anybody who reaches it can send: set door_token, or listen on 127.0.0.1"
_THIS_MACHINE = "only programs on this machine can send: set door_logins, or listen on 127.0.0.1"
_READABLE = "the secret can be read on its way: set door_cert"
_NO_PLAIN = "mail can be read on its way, and from elsewhere AUTH PLAIN is refused: set door_cert"


def wanted(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return the addresses of the doors that are configured, by name."""
    asked = {name: getattr(settings, f"listen_{name}") for name in NAMES}
    return {name: address for name, address in asked.items() if address is not None}


def open_all(settings: Settings, environ: MutableMapping[str, str] = os.environ) -> Listeners:
    """Return a listening socket for each door: what was handed over, else what is bound now.

    The variables that tell of sockets are taken out of `environ`: no child is to believe them. A
    burst opens none: it leaves when it has done what there is. Raises ConfigError.
    """
    # A worker that bound what its parent does not know would keep the others out.
    addresses = {} if settings.process or settings.burst else wanted(settings)
    listeners = _from_parent(environ) or _from_systemd(addresses, environ)
    try:
        require_certificate(settings, [*listeners, *addresses])
        for name, address in addresses.items():
            if name not in listeners:
                listeners[name] = bind(name, address)
    except ConfigError:
        close_all(listeners)
        raise
    if not settings.process:
        for name, listener in listeners.items():
            _warn_of_strangers(name, listener, settings)
    return listeners


@contextmanager
def opened(settings: Settings) -> Iterator[Listeners]:
    """Give what `open_all` opens, for as long as the block runs."""
    listeners = open_all(settings)
    try:
        yield listeners
    finally:
        close_all(listeners)


def require(listeners: Listeners) -> None:
    """Raise ConfigError when there is nothing to listen on."""
    if not listeners:
        raise ConfigError(
            "listen on what? pass --tcp, --http, --smtp or --smtps, each with an address,"
            " as --tcp 127.0.0.1:9501"
        )


def require_certificate(settings: Settings, names: Iterable[str]) -> None:
    """Raise ConfigError where a door that begins with TLS has no certificate."""
    if "smtps" in names and settings.door_cert is None:
        raise ConfigError(
            "the smtps door begins with TLS and has no certificate:"
            " set door_cert to a PEM file with certificate and key"
        )


def bind(name: str, address: tuple[str, int]) -> socket.socket:
    """Return a socket that listens on `address`. Raises ConfigError."""
    listener = None
    try:
        listener = bound(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise cannot_listen(name, address, error) from None
    return listener


def bound(address: tuple[str, int]) -> socket.socket:
    """Return a socket that has `address`, and does not listen yet. Raises OSError."""
    host, port = address
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    owner = socket.socket(family, kind, protocol)
    try:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        owner.bind(where)
    except OSError:
        owner.close()
        raise
    return owner


def cannot_listen(name: str, address: tuple[str, int], error: OSError) -> ConfigError:
    """Return the error for an address that a door can't have."""
    return ConfigError(
        f"the {name} door can't listen on {shown(address)}: {error.strerror}"
        " (pass another address, or stop who uses it)"
    )


def hand_over(listeners: Mapping[str, socket.socket]) -> dict[str, str]:
    """Return the variables that tell a child of the sockets it inherits."""
    told = ",".join(f"{name}:{listener.fileno()}" for name, listener in listeners.items())
    return {DOORS_VARIABLE: told} if told else {}


def close_all(listeners: Mapping[str, socket.socket]) -> None:
    """Close all of them; those of other processes stay open."""
    for listener in listeners.values():
        listener.close()


def shown(address: tuple[str, int]) -> str:
    """Return HOST:PORT as people write it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can come from, or to, an address; unknown names can't."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _from_parent(environ: MutableMapping[str, str]) -> Listeners:
    told = environ.pop(DOORS_VARIABLE, "")
    pairs = [word.rpartition(":") for word in told.split(",") if word]
    return {name: _adopted(name, int(fd)) for name, _, fd in pairs}


def _from_systemd(
    addresses: Mapping[str, tuple[str, int]], environ: MutableMapping[str, str]
) -> Listeners:
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: Listeners = {}
    others: list[socket.socket] = []
    for place in range(int(count)):
        given = names[place] if place < len(names) else ""
        listener = _adopted(given, _FIRST_FD + place)
        name = given if given in NAMES else _name_by_port(listener, addresses)
        if name is None or name in found:
            others.append(listener)
        else:
            found[name] = listener
    free = [name for name in addresses if name not in found]
    if len(others) > len(free):
        left = address_shown(others[-1])
        close_all(found | dict(zip(map(str, range(len(others))), others, strict=True)))
        raise ConfigError(
            f"systemd hands over a socket that no door is for: {left};"
            " name it by FileDescriptorName=tcp, http, smtp or smtps"
        )
    return found | dict(zip(free, others, strict=False))


def _name_by_port(listener: socket.socket, addresses: Mapping[str, tuple[str, int]]) -> str | None:
    port = _address_of(listener)[1]
    return next((name for name, address in addresses.items() if address[1] == port), None)


def _adopted(name: str, fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"no socket was handed over as {name or fd}: {error.strerror}") from None
    if not is_listening or listener.type != socket.SOCK_STREAM:
        listener.close()
        raise ConfigError(f"the socket that was handed over as {name or fd} listens to no stream")
    os.set_inheritable(fd, False)
    return listener


def address_shown(listener: socket.socket) -> str:
    """Return where a socket listens, as people write it."""
    return shown(_address_of(listener))


def _address_of(listener: socket.socket) -> tuple[str, int]:
    name = listener.getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)


def _warn_of_strangers(name: str, listener: socket.socket, settings: Settings) -> None:
    address = _address_of(listener)
    if listener.family not in (socket.AF_INET, socket.AF_INET6) or is_loopback(address[0]):
        return
    is_smtp = name in BY_LOGIN
    if (settings.door_logins if is_smtp else settings.door_token) is None:
        event, hint = (
            ("door_for_this_machine", _THIS_MACHINE) if is_smtp else ("open_door", _ANYBODY)
        )
        log.warning(event, door=name, address=shown(address), hint=hint)
    elif settings.door_cert is None:
        hint = _NO_PLAIN if is_smtp else _READABLE
        log.warning("door_without_tls", door=name, address=shown(address), hint=hint)
