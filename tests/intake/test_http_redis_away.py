"""Redis goes away, and comes back: the door stays open, and says when to come again."""

import json
import socket
from pathlib import Path
from typing import Any

from http_described import Description
from http_house import JSON, LINES, MAIL, House, lines, opening, until

from geomail.queue import embedded


def answers(house: House) -> list[int]:
    return [house.post(MAIL).status, house.ask("GET", "/v1/messages/nobody").status]


def test_the_door_stays_open(tmp_path: Path) -> None:
    with embedded.start_private(tmp_path) as server, opening(server.url) as opens:
        house = opens()
        description = Description(house.ask("GET", "/v1/openapi.json").json)
        assert answers(house) == [202, 404]
        port = server.port
        server.kill()
        for body, fields in ((MAIL, JSON), (lines(MAIL), LINES)):
            answer = house.ask("POST", "/v1/messages", body, fields)
            description.check("post", "/v1/messages", answer)
            if fields is JSON:
                assert answer.status == 503
                assert int(answer.fields["retry-after"]) >= 1
            else:
                assert answer.lines[0].keys() == {"error", "retry_after_s"}
        told = house.ask("GET", "/v1/messages/nobody")
        description.check("get", "/v1/messages/{id}", told)
        assert told.status == 503
        health = house.ask("GET", "/healthz")
        description.check("get", "/healthz", health)
        assert health.status == 503
        with embedded.start_private(tmp_path, port=port):
            until(lambda: house.ask("GET", "/healthz").status == 200)
            assert answers(house) == [202, 404]
            assert house.waiting() >= 2


_MANY = (
    b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Streaming:
    """One request whose lines come one by one, each when the one before was answered."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._answers = sock.makefile("rb")
        sock.sendall(_MANY)

    def send(self) -> Any:
        """Send a line; return its answer."""
        line = lines(MAIL)
        self._sock.sendall(b"%x\r\n%b\r\n" % (len(line), line))
        while not (said := self._answers.readline()).startswith(b"{"):
            assert said, "the door has hung up"
        return json.loads(said)


def test_a_stream_of_lines_goes_on(tmp_path: Path) -> None:
    with embedded.start_private(tmp_path) as server, opening(server.url) as opens:
        house = opens()
        with house.dial() as sock:
            stream = Streaming(sock)
            assert "id" in stream.send()
            port = server.port
            server.kill()
            assert "retry_after_s" in stream.send()
            with embedded.start_private(tmp_path, port=port):
                until(lambda: "id" in stream.send())
