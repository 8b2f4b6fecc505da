"""A proxy that does to a connection what networks and crashes do, at one exact moment.

It stands in front of Redis or of a host. Two functions of the test are asked: `asked(talk, verb)`
for each request before it goes on, `answered(talk, verb, data)` for each block of a reply; what
they return goes on, None cuts both sides. They may kill somebody, or wait. In front of Redis a
request is one command, and its verb the name of the script or of the command; in front of a host
it is a block of bytes, and its verb what those begin with.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gevent
import hiredis
import redis
from gevent import socket
from gevent.server import StreamServer

from geomail.queue.link import Script

SCRIPTS = {Script(verb).sha: verb for verb in ("take", "lift", "settle", "beat", "leave", "reap")}
BLOCK = 1 << 18

Found = TypeVar("Found")


class Talk:
    """One connection through the proxy."""

    def __init__(self, client: Any, server: Any) -> None:
        self.client, self.server = client, server
        self.verb = ""

    def cut(self) -> None:
        """End both sides."""
        for sock in (self.client, self.server):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


Asked = Callable[[Talk, str, bytes], bytes | None]


def let_through(_talk: Talk, _verb: str, data: bytes) -> bytes | None:
    """Change nothing."""
    return data


def cut_off(_talk: Talk, _verb: str, _data: bytes) -> bytes | None:
    """Cut the connection."""
    return None


class Meddler:
    """The proxy; `asked` and `answered` may be changed at any time."""

    def __init__(self, port: int) -> None:
        self.asked: Asked = let_through
        self.answered: Asked = let_through
        self.talks: list[Talk] = []
        self._target = port
        self._server = StreamServer(("127.0.0.1", 0), self._relay)
        self._server.start()
        self.port = int(self._server.server_port or 0)

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        self._server.stop()
        for talk in self.talks:
            talk.cut()

    def _relay(self, client: Any, _peer: object) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talk = Talk(client, server)
            self.talks.append(talk)
            down = gevent.spawn(self._carry_replies, talk)
            with suppress(OSError):
                self._carry_requests(talk)
            talk.cut()
            down.join()

    def _carry_requests(self, talk: Talk) -> None:
        while block := talk.client.recv(BLOCK):
            talk.verb = block[:4].decode("latin-1").upper().strip()
            passed = self.asked(talk, talk.verb, block)
            if passed is None:
                return
            talk.server.sendall(passed)

    def _carry_replies(self, talk: Talk) -> None:
        with suppress(OSError):
            while block := talk.server.recv(BLOCK):
                passed = self.answered(talk, talk.verb, block)
                if passed is None:
                    break
                talk.client.sendall(passed)
        talk.cut()


class RedisMeddler(Meddler):
    """A proxy in front of Redis, in which all scripts are loaded: each call is one request."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        with redis.Redis(port=port) as server:
            for verb in SCRIPTS.values():
                server.script_load(Script(verb).source.decode())
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _carry_requests(self, talk: Talk) -> None:
        reader = hiredis.Reader()
        while block := talk.client.recv(BLOCK):
            reader.feed(block)
            while (command := reader.gets()) is not False:
                talk.verb = verb_of(command)
                passed = self.asked(talk, talk.verb, hiredis.pack_command(tuple(command)))
                if passed is None:
                    return
                talk.server.sendall(passed)


def verb_of(command: list[bytes]) -> str:
    """Return the script that a command runs, else its name."""
    name = command[0].upper()
    if name == b"EVALSHA":
        return SCRIPTS.get(command[1], "?")
    return name.decode()
