"""An HTTP server for urls.py: answers each request 200 after so many seconds, and does no more.

    python bench/url_host.py SECONDS

It writes its port on standard output, and how many connections and requests there were when its
standard input ends.
"""

import geomail.__main__  # noqa: F401, I001 - patches, before all else

import sys

import gevent
from gevent.server import StreamServer

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
)


class WebHost:
    """The server."""

    def __init__(self, delay_s: float) -> None:
        self.connections = self.requests = 0
        self._delay_s = delay_s
        self.server = StreamServer(("127.0.0.1", 0), self._serve, backlog=1024)
        self.server.start()

    def _serve(self, connection: gevent.socket.socket, _whence: object) -> None:
        self.connections += 1
        data = b""
        while piece := connection.recv(65536):
            data += piece
            while b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
                if self._delay_s:
                    gevent.sleep(self._delay_s)
                connection.sendall(_ANSWER)
                self.requests += 1


def main() -> None:
    """Serve until standard input ends."""
    host = WebHost(float(sys.argv[1]))
    print(host.server.server_port, flush=True)
    gevent.get_hub().threadpool.apply(sys.stdin.read)
    print(host.connections, host.requests, flush=True)


if __name__ == "__main__":
    main()
