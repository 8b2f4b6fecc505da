"""Many jobs in one request, a line each: every line has its answer, and none holds up others."""

import json
import socket
import tracemalloc

import gevent
import pytest
from http_house import LINES, MAIL, House, Open, lines, read_all, until

from geomail.config import Settings
from geomail.intake.gate import Gate
from geomail.intake.messages import Many
from geomail.queue import Link

pytest_plugins = ("http_fixtures",)

_START = (
    b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def post(house: House, body: bytes) -> list[dict[str, object]]:
    answer = house.ask("POST", "/v1/messages", body, LINES)
    assert answer.status == 200, answer
    assert answer.fields["content-type"] == "application/x-ndjson"
    return answer.lines


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_each_line_has_an_answer_in_order(house: House) -> None:
    told = post(house, lines(MAIL, {"to": "nobody"}, MAIL) + b"nonsense\n" + lines(MAIL))
    assert [list(one) for one in told] == [
        ["id"],
        ["error", "line"],
        ["id"],
        ["error", "line"],
        ["id"],
    ]
    assert [one["line"] for one in told if "line" in one] == [2, 4]
    assert house.waiting() == 3
    states = [house.ask("GET", f"/v1/messages/{one['id']}").json for one in told if "id" in one]
    assert [one["state"] for one in states] == ["queued"] * 3


@pytest.mark.parametrize(
    "body",
    [
        b"%(mail)b\n%(mail)b",
        b"%(mail)b\r\n%(mail)b\r\n",
        b"\n\n%(mail)b\n\r\n \n%(mail)b\n\n",
        b" %(mail)b \n\t%(mail)b",
    ],
)
def test_ends_of_lines(house: House, body: bytes) -> None:
    told = post(house, body % {b"mail": json.dumps(MAIL).encode()})
    assert [list(one) for one in told] == [["id"], ["id"]]
    assert house.waiting() == 2


def test_lines_are_not_held_beside_the_piece_they_came_in(redis_url: str) -> None:
    gate = Gate(Link(redis_url), Settings())
    many = Many(
        gate,
        None,
        gate.room.share(),
        most_bytes=1000,
        most_jobs=500,
        room_s=0.0,
        pay=lambda _jobs: None,
    )
    piece = b"\n" * 1_000_000
    tracemalloc.start()
    try:
        assert list(many.feed(piece)) == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_line_at_all(house: House) -> None:
    for body in (b"", b"\n\r\n"):
        answer = house.ask("POST", "/v1/messages", body, LINES)
        assert answer.status == 400
    assert (
        house.ask("POST", "/v1/messages", lines(MAIL), {"Content-Type": "application/jsonl"}).status
        == 200
    )


def test_thousands(house: House) -> None:
    jobs = [MAIL | {"id": f"n{number}"} for number in range(5000)]
    told = post(house, lines(*jobs))
    assert len({one["id"] for one in told}) == 5000
    assert house.waiting() == 5000


def test_answers_come_while_lines_come(house: House) -> None:
    with house.dial() as sock, sock.makefile("rb") as answers:
        sock.sendall(_START)
        for number in range(3):
            sock.sendall(chunk(lines(MAIL)))
            while not (line := answers.readline()).startswith(b"{"):
                assert line, "the door has hung up"
            assert json.loads(line).keys() == {"id"}
            assert house.waiting() == number + 1
        sock.sendall(b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"HTTP/1.1 200 OK\r\n" in answers.read1() + answers.read1()


def test_a_line_that_is_too_long_is_passed_over(opens: Open) -> None:
    house = opens(door_max_mb="1")
    long = json.dumps(MAIL | {"text": "x" * 1_500_000}).encode()
    told = post(house, lines(MAIL) + long + b"\n" + lines(MAIL))
    assert [list(one) for one in told] == [["id"], ["error", "line"], ["id"]]
    assert "door_max_mb" in str(told[1]["error"])


def test_a_client_that_breaks_off_loses_what_was_not_whole(house: House) -> None:
    half = json.dumps(MAIL).encode()[:-5]
    with house.dial() as sock:
        sock.sendall(_START + chunk(lines(MAIL) + half))
        sock.shutdown(socket.SHUT_WR)
        said = read_all(sock)
    assert said.count(b'{"id"') == 1
    assert not said.endswith(b"0\r\n\r\n")
    assert house.waiting() == 1


def test_chunks_that_are_none_end_it(house: House) -> None:
    with house.dial() as sock:
        sock.sendall(_START + chunk(lines(MAIL)))
        said = sock.recv(65536)
        sock.sendall(b"nonsense\r\n")
        said += read_all(sock)
    assert house.waiting() == 1
    assert said.count(b'{"id"') == 1
    assert b"what follows was not taken" in said
    assert not said.endswith(b"0\r\n\r\n")
    assert house.talk(_START + b"nonsense\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_client_that_reads_last(house: House) -> None:
    jobs = lines(*[MAIL] * 20_000)
    with house.dial() as sock:
        sock.sendall(
            _START.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(jobs))
        )
        sock.sendall(jobs)
        until(lambda: house.waiting() == 20_000)
        said = b""
        while b"0\r\n\r\n" not in said[-20:]:
            said += sock.recv(1_000_000)
    assert said.count(b'{"id"') == 20_000


def test_pressure_in_the_midst(opens: Open) -> None:
    house = opens(high_water="2")
    with house.dial() as sock, sock.makefile("rb") as answers:
        sock.sendall(_START + chunk(lines(*[MAIL] * 3)))
        until(lambda: house.gate.pressure == "high")
        sock.sendall(chunk(lines(MAIL)))
        sock.sendall(b"0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        told = [json.loads(line) for line in answers if line.startswith(b"{")]
    assert [list(one) for one in told] == [["id"]] * 3 + [["error", "retry_after_s"]]
    assert house.waiting() == 3


def test_two_at_a_time(house: House) -> None:
    busy = [gevent.spawn(lambda: post(house, lines(*[MAIL] * 1000))) for _ in range(4)]
    single = [gevent.spawn(lambda: house.post(MAIL)) for _ in range(4)]
    gevent.joinall(busy, timeout=20, raise_error=True)
    gevent.joinall(single, timeout=20, raise_error=True)
    assert all(one.status == 202 for one in (asked.get(timeout=0) for asked in single))
    assert house.waiting() == 4004


def test_lines_split_at_every_byte(house: House) -> None:
    mail = MAIL | {"text": "h\u00e9", "subject": "a\\nb"}
    body = json.dumps(mail, ensure_ascii=False).encode() + b"\r\n\nx\n" + json.dumps(mail).encode()
    with house.dial() as sock:
        sock.sendall(_START + b"".join(chunk(body[at : at + 1]) for at in range(len(body))))
        sock.sendall(b"0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        said = read_all(sock)
    told = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    assert [list(one) for one in told] == [["id"], ["error", "line"], ["id"]]
    house.queue.register()
    assert [json.loads(slot.payload) for slot in house.queue.take(9).slots] == [mail, mail]


def test_pieces_that_come_one_by_one(house: House) -> None:
    body = lines(MAIL, MAIL)
    with house.dial() as sock:
        sock.sendall(_START)
        for at in range(0, len(body), 3):
            sock.sendall(chunk(body[at : at + 3]))
            gevent.sleep(0)
        sock.sendall(b"0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).count(b'{"id"') == 2
