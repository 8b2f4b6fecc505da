"""A TCP proxy that cuts connections at the worst moments: a thread of the chaos bench.

`cut()` chooses one of its connections at random and one of three ways to lose it: at once; in the
middle of what the client sends next; or instead of the answer to that, so that the other side did
what it was told and nobody heard of it. Half of the ends are a FIN, half an RST.
"""

import enum
import random
import selectors
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass

_BLOCK = 65536
_AGAIN_S = 0.1
_RESET = struct.pack("ii", 1, 0)


class Way(enum.Enum):
    """How a connection will be lost."""

    AT_ONCE = "at once"
    HALF_WAY = "half of a request goes through"
    UNHEARD = "a request goes through, its answer does not"


@dataclass(eq=False, slots=True)
class Pair:
    """A connection of a client, and ours for it."""

    client: socket.socket
    server: socket.socket
    way: Way | None = None


class Cutter(threading.Thread):
    """The proxy; `port` is where it listens on 127.0.0.1, `target` where it leads to."""

    def __init__(self, target: int) -> None:
        super().__init__(name="cutter", daemon=True)
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pairs: list[Pair] = []
        self._ended = threading.Event()
        self.start()

    def cut(self) -> None:
        """Let one connection be lost; one that is idle will be when it is used next."""
        healthy = [pair for pair in tuple(self._pairs) if pair.way is None]
        if not healthy:
            return
        pair = random.choice(healthy)
        pair.way = random.choice(list(Way))
        if pair.way is Way.AT_ONCE:
            with suppress(OSError):  # it has just ended by itself
                pair.client.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Hang up everything."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Carry bytes until `stop`."""
        while not self._ended.is_set():
            for key, _ in self._selector.select(_AGAIN_S):
                if key.data is None:
                    self._accept()
                elif key.data in self._pairs:
                    self._carry(key.data, key.fileobj is key.data.client)
        for pair in tuple(self._pairs):
            self._hang_up(pair)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        pair = Pair(client, server)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(10)
            self._selector.register(end, selectors.EVENT_READ, pair)
        self._pairs.append(pair)

    def _carry(self, pair: Pair, is_request: bool) -> None:
        source, sink = (pair.client, pair.server) if is_request else (pair.server, pair.client)
        try:
            block = source.recv(_BLOCK)
            if is_request and pair.way is Way.HALF_WAY:
                sink.sendall(block[: len(block) // 2])
                block = b""
            if block and not (pair.way is Way.UNHEARD and not is_request):
                sink.sendall(block)
                return
        except OSError:
            pass
        self._hang_up(pair)

    def _hang_up(self, pair: Pair) -> None:
        self._pairs.remove(pair)
        is_rude = pair.way is not None and random.random() < 0.5
        for end in (pair.client, pair.server):
            self._selector.unregister(end)
            if is_rude:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
