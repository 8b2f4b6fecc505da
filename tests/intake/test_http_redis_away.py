"""Redis goes away, and comes back: the door stays open, and says when to come again."""

from pathlib import Path

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
