"""The door is killed while clients send: what was acknowledged is there, whatever else is."""

import json
import socket
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from http_house import MAIL, WITHIN_S, lines, until
from http_process import Listening

from geomail.queue import Link, Queue

_ONE = json.dumps(MAIL).encode()
_HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/"
_SINGLE = _HEAD + b"json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ONE), _ONE)
_MANY = _HEAD + b"x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
_LINES = lines(*[MAIL] * 20)
_CHUNK = b"%x\r\n%b\r\n" % (len(_LINES), _LINES)


def told_ids(line: bytes) -> list[str]:
    return [json.loads(line)["id"]] if line.startswith(b'{"id"') and line.endswith(b"}\n") else []


def send_singles(port: int, told: list[str]) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), WITHIN_S) as sock:
        answers = sock.makefile("rb")
        while True:
            sock.sendall(_SINGLE)
            while not (line := answers.readline()).startswith(b"{"):
                if not line:
                    return
            told += told_ids(line)


def send_many(port: int, told: list[str]) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), WITHIN_S) as sock:
        answers = sock.makefile("rb")
        sock.sendall(_MANY)
        while True:
            sock.sendall(_CHUNK)
            missing = 20
            while missing:
                line = answers.readline()
                if not line:
                    return
                missing -= line.startswith(b"{")
                told += told_ids(line)


@pytest.mark.parametrize("enough", [1, 150, 1000])
def test_what_was_acknowledged_is_there(redis_url: str, tmp_path: Path, enough: int) -> None:
    told: list[str] = []
    with Listening(redis_url, tmp_path) as door:
        busy = [gevent.spawn(send_singles, door.port, told) for _ in range(4)]
        busy += [gevent.spawn(send_many, door.port, told) for _ in range(4)]
        until(lambda: len(told) >= enough)
        door.kill()
        gevent.joinall(busy, timeout=WITHIN_S, raise_error=True)
    queue = Queue(Link(redis_url), "queue:email")
    assert len(set(told)) == len(told) <= queue.counts().waiting
    assert all(queue.outcome(name) == {"outcome": "waiting"} for name in told)
    queue.close()


def test_who_leaves_answers_first(redis_url: str, tmp_path: Path) -> None:
    told: list[str] = []
    with Listening(redis_url, tmp_path) as door:
        busy = [gevent.spawn(send_singles, door.port, told) for _ in range(8)]
        until(lambda: len(told) >= 100)
        assert door.leave() == 0
        gevent.joinall(busy, timeout=WITHIN_S, raise_error=True)
    queue = Queue(Link(redis_url), "queue:email")
    assert queue.counts().waiting == len(told)
    queue.close()
