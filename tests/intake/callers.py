"""Clients of doors, as tests play them."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from geomail.intake.gate import Gate
from geomail.queue import Queue

NewGate = Callable[..., Gate]
OpenDoor = Callable[..., tuple[str, int]]

DEADLINE_S = 20.0


def mail(number: int = 0) -> bytes:
    """Return a mail as the five systems' producers write one."""
    to = f"u{number}@example.org"
    fields = {"from_email": "a@example.org", "to_email": to, "title": "t", "content": "ü {"}
    return json.dumps(fields, ensure_ascii=False).encode()


URL = b'{"url":"http://127.0.0.1/x","param":{"a":[1,2]}}'
CALL = b'{"worker":"resize","class":"Image","params":[1]}'


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, DEADLINE_S)


def lines_of(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    """Read so many answers."""
    heard = b""
    while heard.count(b"\n") < count:
        block = sock.recv(65536)
        assert block, f"it ended after {heard!r}"
        heard += block
    return [json.loads(line) for line in heard.splitlines()]


def all_of(sock: socket.socket) -> list[dict[str, Any]]:
    """Read answers until the door hangs up."""
    heard = b""
    while block := sock.recv(65536):
        heard += block
    return [json.loads(line) for line in heard.splitlines()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def taken(queue: Queue, count: int) -> list[bytes]:
    """Take so many jobs, and return their bytes."""
    found: list[bytes] = []

    def look() -> bool:
        found.extend(slot.payload for slot in queue.take(1000).slots)
        return len(found) >= count

    until(look)
    assert len(found) == count
    return found
