"""Mail that programs send to the SMTP door: it arrives as it was sent, and no kill loses one."""

import random
import signal
import smtplib
import socket
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO

import gevent
import pytest

from scenarios.stage import Process, Stage, free_port, until

ALL_BYTES = bytes(byte for byte in range(256) if byte not in b"\r\n")
BODIES = [
    *[b"", b"\r\n", b".\r\n", b"..\r\n.\r\n", b"no end of line", b"one\r\n.two\r\n...three\r\n"],
    *[ALL_BYTES + b"\r\n", (b"." * 998 + b"\r\n") * 3, "Grüße aus Österreich\r\n".encode() * 5000],
]


def door_of(stage: Stage, port: int) -> Process:
    """Start a process that does nothing but listen."""
    process = stage.geomail("listen", "--smtp", f"127.0.0.1:{port}")
    process.says("listening door=smtp")
    return process


def letter(number: int, body: bytes) -> bytes:
    head = f"Subject: {number}\r\nDate: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <{number}@x>"
    return head.encode() + b"\r\n\r\n" + body


def content_of(mail: bytes) -> bytes:
    """Return what stands behind the field of the door, which has three lines."""
    assert mail.startswith(b"Received: from me.example ([127.0.0.1])\r\n\tby ")
    return mail.split(b"\r\n", 3)[3]


def test_what_arrives_is_what_was_sent(stage: Stage) -> None:
    port = free_port()
    door_of(stage, port)
    host = stage.host(keeps=True)
    worker = stage.worker(relay=host)
    worker.says("running")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="me.example", timeout=20) as client:
        for number, body in enumerate(BODIES):
            to = [f"u{number}@y.example", f"v{number}@y.example"]
            client.sendmail("", to, letter(number, body), mail_options=["BODY=8BITMIME"])
    host.has_taken(len(BODIES))
    for mail in host.look():
        number = int(mail.id.strip("<>").partition("@")[0])
        body = BODIES[number]
        whole = body + b"\r\n" if body and not body.endswith(b"\r\n") else body
        assert mail.to == [f"u{number}@y.example", f"v{number}@y.example"]
        assert mail.sender == ""
        assert content_of(mail.content) == letter(number, whole)
    assert len({mail.id for mail in host.look()}) == len(BODIES)


def test_a_mail_by_chunks_without_a_last_line_end(stage: Stage) -> None:
    port = free_port()
    door_of(stage, port)
    content = letter(1, b"one\r\n.two")
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"EHLO me.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n")
        client.sendall(b"BDAT %d LAST\r\n" % len(content) + content + b"QUIT\r\n")
        while client.recv(4096):
            pass
    host = stage.host(keeps=True)
    stage.burst(relay=host)
    [mail] = host.look()
    assert content_of(mail.content) == content + b"\r\n"


def test_what_can_not_be_is_said_at_once(stage: Stage, tmp_path: Path) -> None:
    port = free_port()
    said = stage.refusal("listen", "--smtp", str(port), status=2, door_logins=tmp_path / "none")
    assert f"can't read logins from {tmp_path}/none: No such file or directory" in said
    door_of(stage, port)
    said = stage.refusal("listen", "--smtp", str(port), status=2)
    assert f"the smtp door can't listen on 127.0.0.1:{port}: Address already in use" in said


FLOOD = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"EHLO x\\r\\nMAIL FROM:<a@x>\\r\\nRCPT TO:<b@y>\\r\\nDATA\\r\\n")
while True:
    sock.sendall(b"x" * 1_000_000)
"""


def test_who_floods_the_door_keeps_nobody_out_and_it_in(stage: Stage) -> None:
    """Content without an end, as fast as it goes: others are served, and the door can leave."""
    port = free_port()
    door = door_of(stage, port)
    floods = [stage.program(sys.executable, "-c", FLOOD, str(port)) for _ in range(2)]
    for number in range(3):
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.sendmail("a@x.example", "b@y.example", letter(number, b""))
    assert all(flood.is_running for flood in floods)
    door.signal(signal.SIGTERM)
    assert door.wait(20) == 0
    assert stage.held() == 3


class Sender:
    """Sends mails for ever, each as a pipelining client does, and remembers what was answered."""

    numbers = count()

    def __init__(self, port: int) -> None:
        self._port = port
        self.acknowledged: list[str] = []
        self.sent = 0

    def run(self) -> None:
        """Go on, over one connection after the other."""
        while True:
            with suppress(OSError):
                self._talk()
            gevent.sleep(0.01)

    def _talk(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 20) as sock:
            replies = sock.makefile("rb")
            sock.sendall(b"HELO me.example\r\n")
            _expect(replies, b"220", b"250")
            while True:
                recipient = f"u{next(self.numbers)}@y.example"
                envelope = f"MAIL FROM:<a@x.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
                self.sent += 1
                sock.sendall(envelope.encode())
                _expect(replies, b"250", b"250", b"354")
                sock.sendall(letter(1, b"") + b".\r\n")
                _expect(replies, b"250")
                self.acknowledged.append(recipient)


def _expect(replies: IO[bytes], *codes: bytes) -> None:
    for code in codes:
        if not replies.readline().startswith(code):
            raise ConnectionError


def test_the_door_of_a_worker(stage: Stage) -> None:
    """It takes mail and delivers it, all in one process; then it leaves, and nothing is left."""
    port = free_port()
    host = stage.host(keeps=True)
    worker = stage.worker("--smtp", f"127.0.0.1:{port}", relay=host)
    worker.says("listening door=smtp")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="me.example", timeout=20) as client:
        for number in range(10):
            client.sendmail("a@x.example", f"u{number}@y.example", letter(number, b"one\r\n"))
            host.has_taken(number + 1)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert client.noop()[0] == 421
    assert content_of(host.look()[9].content) == letter(9, b"one\r\n")
    assert stage.held() == 0


def test_a_redis_that_is_killed(stage: Stage) -> None:
    """What was answered 250 is there when it comes back; then 250 is answered again."""
    port = free_port()
    door = door_of(stage, port)
    senders = [Sender(port) for _ in range(8)]
    busy = [gevent.spawn(sender.run) for sender in senders]
    for _ in range(3):
        before = sum(len(sender.acknowledged) for sender in senders)
        until(lambda: sum(len(sender.acknowledged) for sender in senders) > before + 50)  # noqa: B023
        stage.server.kill()
        stage.restart_redis()
    gevent.killall(busy)
    acknowledged = {each for sender in senders for each in sender.acknowledged}
    assert door.is_running
    host = stage.host()
    stage.burst("--concurrency", "10", relay=host)
    assert acknowledged <= host.arrivals().keys()


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_door_has_told_no_lie(stage: Stage, seed: int) -> None:
    """Killed at any moment, again and again: who was told 250 gets delivered."""
    port = free_port()
    chance = random.Random(seed)
    senders = [Sender(port) for _ in range(8)]
    busy = [gevent.spawn(sender.run) for sender in senders]
    for _ in range(4):
        door = door_of(stage, port)
        before = sum(len(sender.acknowledged) for sender in senders)
        until(lambda: sum(len(sender.acknowledged) for sender in senders) > before + 50)  # noqa: B023
        time.sleep(chance.uniform(0, 0.05))  # any moment is right
        door.kill()
    gevent.killall(busy)
    acknowledged = {each for sender in senders for each in sender.acknowledged}
    host = stage.host()
    stage.burst("--concurrency", "10", relay=host)
    arrivals = host.arrivals()
    assert acknowledged <= arrivals.keys()
    assert sum(arrivals.values()) == len(arrivals) <= sum(sender.sent for sender in senders)
