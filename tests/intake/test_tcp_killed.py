"""No answer of the TCP door precedes Redis: killed, cut off or refused, what was told is there."""

import json
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
from callers import DEADLINE_S, OpenDoor, connect, lines_of, mail, taken, until
from http_process import Listening

from geomail.queue import Link, Queue

pytest_plugins = ("door_fixtures",)


def send_on(port: int, told: list[str], at_once: int) -> None:
    """Send documents until the door is gone; note the ids that it told."""
    number = 0
    with suppress(OSError), closing(connect(("127.0.0.1", port))) as sock:
        answers = sock.makefile("rb")
        while True:
            sock.sendall(b"".join(mail(number + each) for each in range(at_once)))
            number += at_once
            for _ in range(at_once):
                line = answers.readline()
                if not line.endswith(b"\n"):
                    return
                told.append(json.loads(line)["id"])


@pytest.mark.parametrize("enough", [1, 100, 3000])
def test_what_was_acknowledged_is_there(redis_url: str, tmp_path: Path, enough: int) -> None:
    told: list[str] = []
    with Listening(redis_url, tmp_path, door="tcp") as door:
        busy = [gevent.spawn(send_on, door.port, told, at_once) for at_once in (1, 1, 10, 50)]
        until(lambda: len(told) >= enough)
        door.kill()
        gevent.joinall(busy, timeout=DEADLINE_S, raise_error=True)
    with closing(Queue(Link(redis_url))) as queue:
        assert len(set(told)) == len(told) <= queue.counts().waiting
        assert all(queue.outcome(name) == {"outcome": "waiting"} for name in told)


def test_who_is_told_to_leave_answers_all_that_has_come(redis_url: str, tmp_path: Path) -> None:
    told: list[str] = []
    with Listening(redis_url, tmp_path, door="tcp") as door:
        busy = [gevent.spawn(send_on, door.port, told, 1) for _ in range(8)]
        until(lambda: len(told) >= 300)
        assert door.leave() == 0
        gevent.joinall(busy, timeout=DEADLINE_S, raise_error=True)
    with closing(Queue(Link(redis_url))) as queue:
        # A document may have come in the moment of the end, and its answer not have left.
        assert len(told) <= queue.counts().waiting <= len(told) + 8


def test_no_answer_while_redis_stands_still(open_door: OpenDoor, raw: Any, queue: Queue) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(mail())
        lines_of(sock, 1)
        raw.client_pause(1000)
        began = time.monotonic()
        sock.sendall(mail(1) * 20)
        lines_of(sock, 20)
        assert time.monotonic() - began > 0.7
    assert queue.counts().waiting == 21


def test_a_full_redis_is_said_and_who_has_gone_is_kept(
    open_door: OpenDoor, raw: Any, queue: Queue
) -> None:
    address = open_door("tcp", patience_s=0.5)
    raw.config_set("maxmemory", 1)
    try:
        with closing(connect(address)) as sock:
            sock.sendall(mail() * 2)
            for answer in lines_of(sock, 2):
                assert "OOM" in answer["error"]
                assert answer["retry_after_s"] > 0
        with closing(connect(address)) as sock:
            sock.sendall(mail(1) + mail(2))
        with closing(connect(address)) as sock:  # the one before has come in by then
            sock.sendall(mail())
            assert "OOM" in lines_of(sock, 1)[0]["error"]
        assert queue.counts().waiting == 0
    finally:
        raw.config_set("maxmemory", 0)
    assert taken(queue, 2) == [mail(1), mail(2)]


def test_a_client_that_went_while_redis_was_away_loses_nothing(
    open_door: OpenDoor, raw: Any, queue: Queue
) -> None:
    address = open_door("tcp", patience_s=0.3)
    with closing(connect(address)) as sock:
        sock.sendall(mail())
        lines_of(sock, 1)
    raw.client_pause(2000)
    for number in range(5):
        with closing(socket.create_connection(address, DEADLINE_S)) as sock:
            sock.sendall(mail(number))
    until(lambda: queue.counts().waiting == 6)
    # Not twice either, though the pushes were sent again while nobody answered.
    assert sorted(taken(queue, 6)) == sorted(mail(number) for number in (0, 0, 1, 2, 3, 4))
