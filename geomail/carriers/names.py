"""Names: the addresses of hosts that URL tasks go to.

They are asked of the system's resolver (/etc/hosts, search domains and all), as those of relays
are, but in threads of their own: a name whose servers are silent keeps a thread for half a minute,
and whoever writes URLs could keep all that mail needs. With the setting `nameserver` those servers
are asked instead.

No answer is kept: who asks while a question is under way shares it, and a kept connection needs
none. Kept is which names had an address last time: those have threads of their own, so that no
flood of names that nobody answers for is in their way. Who waits for a thread beyond his deadline
gives up, and has asked nothing.
"""

import _socket
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import gevent
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from geomail.delivery.dns.nameservers import NameServers
from geomail.delivery.dns.site import Answer, Said

_Asked: TypeAlias = "AsyncResult[Answer[str]] | gevent.Greenlet[..., Answer[str]]"

_MOST_THREADS, _MOST_THREADS_OF_KNOWN = 32, 8
_MOST_KNOWN = 10_000


class Names:
    """Where names are looked up."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        """Ask `servers`, (address, port) each; without any the system."""
        self._servers = NameServers(servers) if servers else None
        self._threads: dict[bool, ThreadPool] = {}
        self._known: dict[str, None] = {}
        self._under_way: dict[str, _Asked] = {}

    def addresses(self, host: str) -> Answer[str]:
        """Return all addresses that the name `host` has; waits as long as it is let."""
        asked = self._under_way.get(host)
        if asked is None:
            asked = self._under_way[host] = self._ask(host)
            asked.rawlink(partial(self._note, host))
        found = asked.get()
        assert found is not None
        return found

    def _note(self, host: str, asked: _Asked) -> None:
        """Note what came of a question, also where all who asked have given up by now."""
        self._under_way.pop(host, None)
        self._known.pop(host, None)
        if asked.successful() and asked.value is not None and asked.value.records:
            self._known[host] = None
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]

    def _ask(self, host: str) -> _Asked:
        if self._servers is not None:
            return gevent.spawn(_ask_servers, self._servers, host)
        is_known = host in self._known
        if is_known not in self._threads:
            most = _MOST_THREADS_OF_KNOWN if is_known else _MOST_THREADS
            self._threads[is_known] = ThreadPool(most)
        return self._threads[is_known].spawn(_look_up, host)


def _look_up(host: str) -> Answer[str]:
    """Ask the system, in a thread."""
    try:
        # The C module's, which nobody patches: this is no greenlet.
        found = _socket.getaddrinfo(host, None, 0, _socket.SOCK_STREAM)
    except UnicodeError:
        return Answer(Said.FAILED, text="no name of a host")
    except OSError as error:
        return Answer(Said.FAILED, text=error.strerror or str(error))
    return Answer(Said.RECORDS, tuple(dict.fromkeys(str(each[4][0]) for each in found)))


def _ask_servers(servers: NameServers, host: str) -> Answer[str]:
    ip4, ip6 = servers.ip4(host), servers.ip6(host)
    records = ip6.records + ip4.records
    if records:
        return Answer(Said.RECORDS, records)
    worst = ip4 if ip4.said is not Said.NOTHING else ip6
    return Answer(worst.said, text=worst.text or worst.said.value)
