"""What Swoole's clients and others send to the TCP door, byte for byte, and what they hear."""

import json
import socket
import time
from contextlib import closing
from typing import Any

import pytest
from callers import (
    CALL,
    DEADLINE_S,
    URL,
    OpenDoor,
    all_of,
    connect,
    lines_of,
    mail,
    taken,
    until,
)

from geomail.queue import Queue

pytest_plugins = ("door_fixtures",)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("document", [mail(), URL, CALL])
def test_one_document(open_door: OpenDoor, queue: Queue, document: bytes, end: bytes) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(document + end)
        [answer] = lines_of(sock, 1)
    [slot] = queue.take(10).slots
    assert slot.payload == document
    assert answer == {"id": slot.id}
    assert slot.state.told


def test_split_at_every_byte(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    document = mail()
    with closing(connect(address)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(document)):
            sock.sendall(document[at : at + 1])
        assert "id" in lines_of(sock, 1)[0]
    assert taken(queue, 1) == [document]


def test_split_in_two_at_any_byte(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    document = mail()
    with closing(connect(address)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(1, len(document)):
            sock.sendall(document[:at])
            sock.sendall(document[at:])
        answers = lines_of(sock, len(document) - 1)
    assert all("id" in answer for answer in answers)
    assert taken(queue, len(document) - 1) == [document] * (len(document) - 1)


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_ten_documents_in_one_segment(open_door: OpenDoor, queue: Queue, between: bytes) -> None:
    address = open_door("tcp")
    documents = [mail(number) if number % 2 else URL for number in range(10)]
    with closing(connect(address)) as sock:
        sock.sendall(between.join(documents))
        answers = lines_of(sock, 10)
    slots = queue.take(100).slots
    by_id = {slot.id: slot.payload for slot in slots}
    assert [by_id[answer["id"]] for answer in answers] == documents


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_client_that_hangs_up_at_once(open_door: OpenDoor, queue: Queue, end: bytes) -> None:
    address = open_door("tcp")
    for number in range(20):
        with closing(connect(address)) as sock:
            sock.sendall(mail(number) + end)
    assert sorted(taken(queue, 20)) == sorted(mail(number) for number in range(20))


def test_a_client_that_resets_the_connection(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(mail())
        assert "id" in lines_of(sock, 1)[0]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with closing(connect(address)) as sock:
        sock.sendall(mail(1))
        lines_of(sock, 1)
    assert taken(queue, 2)


def test_a_large_document_of_php(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    text = b"}" * 3_000_000
    document = b'a:2:{s:2:"to";s:13:"a@example.org";s:4:"body";s:%d:"%s";}' % (len(text), text)
    with closing(connect(address)) as sock:
        sock.sendall(document + mail())
        assert all("id" in answer for answer in lines_of(sock, 2))
    # In turn: a large payload is taken alone.
    assert {len(each) for each in taken(queue, 2)} == {len(document), len(mail())}


def test_each_document_has_its_answer(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    bad = b'{"to":"nobody","subject":"x"}'
    with closing(connect(address)) as sock:
        sock.sendall(mail(1) + bad + b'{"a":tru}' + mail(2))
        first, second, third, fourth = lines_of(sock, 4)
    assert "id" in first
    assert "nobody" in second["error"]
    assert "JSON" in third["error"]
    assert "id" in fourth
    assert taken(queue, 2) == [mail(1), mail(2)]


def test_a_bad_document_that_nobody_waits_for_becomes_a_job(
    open_door: OpenDoor, queue: Queue
) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(b'{"to":"nobody"}')
    assert taken(queue, 1) == [b'{"to":"nobody"}']


@pytest.mark.parametrize("empty", [b"{}", b"[]", b"a:0:{}"])
def test_empty_documents_are_refused_while_somebody_listens(
    open_door: OpenDoor, queue: Queue, empty: bytes
) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(empty * 100)
        assert all("error" in each for each in lines_of(sock, 100))
    assert queue.counts().waiting == 0
    with closing(connect(address)) as sock:
        sock.sendall(empty * 3)  # else nobody would ever learn of them
    assert taken(queue, 3) == [empty] * 3


def test_garbage_ends_the_connection_behind_what_was_whole(
    open_door: OpenDoor, queue: Queue
) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(mail() + b"GET / HTTP/1.1\r\n\r\n" + mail())
        first, second = all_of(sock)
    assert "id" in first
    assert "a JSON document" in second["error"]
    assert taken(queue, 1) == [mail()]


def test_half_a_document_is_none(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp")
    with closing(connect(address)) as sock:
        sock.sendall(mail() + mail()[:-1])
        sock.shutdown(socket.SHUT_WR)
        assert "id" in all_of(sock)[0] or True
    assert taken(queue, 1) == [mail()]


def test_a_token_comes_first(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp", door_token="héllo")
    with closing(connect(address)) as sock:
        sock.sendall(json.dumps({"token": "héllo"}).encode() + b"\n" + mail())
        assert "id" in lines_of(sock, 1)[0]
    assert taken(queue, 1) == [mail()]


@pytest.mark.parametrize("first", [b"", b'{"token":"hello"}', b"{,}"])
def test_without_the_token_nothing_is_taken(
    open_door: OpenDoor, queue: Queue, first: bytes
) -> None:
    address = open_door("tcp", door_token="héllo")
    with closing(connect(address)) as sock:
        sock.sendall(first + mail())
        [answer] = all_of(sock)
    assert "token" in answer["error"]
    assert "hé" not in answer["error"]
    assert queue.counts().waiting == 0


def test_one_connection_too_many(open_door: OpenDoor) -> None:
    address = open_door("tcp", door_connections=2)
    with closing(connect(address)) as one, closing(connect(address)) as two:
        one.sendall(mail())
        two.sendall(mail())
        lines_of(one, 1)
        lines_of(two, 1)
        with closing(connect(address)) as three:
            [answer] = all_of(three)
            assert "too many connections" in answer["error"]
    with closing(connect(address)) as again:
        again.sendall(mail())
        assert lines_of(again, 1)


def test_a_silent_client_is_left(open_door: OpenDoor) -> None:
    address = open_door("tcp", door_idle_s=0.2)
    with closing(connect(address)) as sock:
        [answer] = all_of(sock)
        assert "nothing came for too long" in answer["error"]
    with closing(connect(address)) as sock:
        sock.sendall(b"{")
        [answer] = all_of(sock)
        assert "too slowly" in answer["error"]


def test_a_document_that_drips_is_given_up(open_door: OpenDoor) -> None:
    address = open_door("tcp", door_idle_s=0.5)
    began = time.monotonic()
    with closing(connect(address)) as sock:
        sock.setblocking(False)
        heard = b""
        while b"\n" not in heard:
            assert time.monotonic() < began + DEADLINE_S
            try:
                sock.send(b"[")
                heard += sock.recv(1000)
            except BlockingIOError:
                time.sleep(0.05)
    assert b"too slowly" in heard


def test_too_large_a_document_is_refused(open_door: OpenDoor, queue: Queue) -> None:
    address = open_door("tcp", door_max_mb=1)
    with closing(connect(address)) as sock:
        sock.sendall(mail() + b'{"to":"a@example.org","text":"' + b"x" * 1_048_576)
        first, second = all_of(sock)
    assert "id" in first
    assert "more than 1,048,576 bytes" in second["error"]


def test_a_rate_holds_back(open_door: OpenDoor) -> None:
    address = open_door("tcp", door_rate=20)
    began = time.monotonic()
    with closing(connect(address)) as sock:
        for number in range(30):
            sock.sendall(mail(number))
            lines_of(sock, 1)
    # One second's worth at once, the rest as fast as allowed.
    assert time.monotonic() - began >= 0.4


def test_high_water_is_said(open_door: OpenDoor, raw: Any, queue: Queue) -> None:
    address = open_door("tcp", high_water=3)
    with closing(connect(address)) as sock:
        sock.sendall(mail() * 3)
        assert all("pressure" not in answer for answer in lines_of(sock, 3))
        until(lambda: raw.get("{queue:email}:pressure") == b"high")
        sock.sendall(mail())
        [answer] = lines_of(sock, 1)
        assert answer["pressure"] == "high"
        assert len(queue.take(100).slots) == 4
