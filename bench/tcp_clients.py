"""Clients of the TCP door, in a process of their own: plain sockets and threads.

    python bench/tcp_clients.py PORT WAY CONNECTIONS COUNT SIZE

`kept`: each connection sends all of its documents as fast as the door reads them, and reads the
answers beside. `turns`: each waits for the answer before it sends the next. `hang-up`: a connection
a document, closed without waiting, as swoole_client does. Prints the seconds as JSON.
"""

import json
import socket
import sys
import threading
import time

_PIECE = 64 * 1024
_NAMES = ("from_email", "to_email", "title", "content")


def document(number: int, size: int) -> bytes:
    """Return a mail as the TCP task servers' producers write it."""
    fields = ("shop@example.org", f"u{number}@example.com", f"Your order {number}", "x" * size)
    return json.dumps(dict(zip(_NAMES, fields, strict=True))).encode()


def kept(port: int, documents: list[bytes]) -> None:
    """Send everything over one connection, and count the answers."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        stream = b"".join(documents)
        sending = threading.Thread(target=sock.sendall, args=(stream,))
        sending.start()
        answers = 0
        while answers < len(documents):
            block = sock.recv(_PIECE)
            if not block or b'"error"' in block:
                raise SystemExit(f"an answer that is none: {block[:200]!r}")
            answers += block.count(b"\n")
        sending.join()


def turns(port: int, documents: list[bytes]) -> None:
    """Send one when the one before is answered."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in documents:
            sock.sendall(each)
            if b'"id"' not in sock.recv(_PIECE):
                raise SystemExit("an answer that is none")


def hang_up(port: int, documents: list[bytes]) -> None:
    """Send each over a connection of its own, and close that."""
    for each in documents:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(each)


def main() -> None:
    """Do it, and say how long it took."""
    port, way, connections, count, size = sys.argv[1:]
    documents = [document(number, int(size)) for number in range(int(count))]
    work = {"kept": kept, "turns": turns, "hang-up": hang_up}[way]
    many = int(connections)
    threads = [
        threading.Thread(target=work, args=(int(port), documents[first::many]))
        for first in range(many)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
