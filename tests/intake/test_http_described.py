"""The description of the HTTP door is true: it tells of every answer that can be had."""

import json
import re

import msgspec
import pytest
from http_described import TIME, Description
from http_house import JSON, LINES, MAIL, Answer, House, Open, lines, read_all, read_bytes, until

from geomail.job import shapes
from geomail.queue import Dead, Done, JobState, Part, Retry, Slot, Split

pytest_plugins = ("http_fixtures",)


@pytest.fixture
def described(house: House) -> Description:
    return Description(house.ask("GET", "/v1/openapi.json").json)


def post(house: House, body: object, fields: dict[str, str]) -> Answer:
    return house.ask("POST", "/v1/messages", body, fields)


def test_what_a_post_is_answered(described: Description, house: House) -> None:
    seen = set[int]()
    for body, fields in (
        (MAIL, JSON),
        ({"to": 7}, JSON),
        (MAIL, JSON | {"Idempotency-Key": "a b"}),
        (lines(MAIL, {}, MAIL), LINES),
        (b"", LINES),
        (MAIL, {"Content-Type": "text/html"}),
        (MAIL, JSON | {"Content-Encoding": "br"}),
        (MAIL, JSON | {"Expect": "more"}),
        (MAIL, JSON | {"Origin": "null"}),
    ):
        answer = post(house, body, fields)
        described.check("post", "/v1/messages", answer)
        seen.add(answer.status)
    assert seen == {200, 202, 400, 403, 415, 417}


def test_what_is_no_request(described: Description, house: House) -> None:
    for said, status in (
        (b"POST /v1/messages HTTP/1.1\r\n\r\n", 400),
        (b"POST /v1/messages HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n", 501),
        (b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nX:" + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"POST /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ):
        with house.dial() as sock:
            sock.sendall(said)
            answer = read_bytes(read_all(sock))
        assert answer.status == status
        described.check("post", "/v1/messages", answer)


def test_what_a_post_is_answered_at_a_guarded_door(described: Description, opens: Open) -> None:
    house = opens(door_token="t", door_max_mb="1", door_idle_s="0.5", high_water="1")
    known = {"Authorization": "Bearer t"}
    answers = [post(house, MAIL, JSON), post(house, b" " * 1_500_000, JSON | known)]
    with house.dial() as sock:
        sock.sendall(
            b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer t\r\nContent-Length: 9\r\n\r\n"
        )
        answers.append(read_bytes(read_all(sock)))
    answers.append(post(house, lines(MAIL, MAIL, MAIL), LINES | known))
    until(lambda: house.gate.pressure == "high")
    answers.append(post(house, MAIL, JSON | known))
    for answer in answers:
        described.check("post", "/v1/messages", answer)
    assert [answer.status for answer in answers] == [401, 413, 408, 200, 429]


def test_what_is_told_of_a_job(described: Description, house: House) -> None:
    names = [post(house, MAIL | {"id": f"n{n}"}, JSON).json["id"] for n in range(5)]
    queue = house.queue
    queue.register()
    slots = {slot.id: slot for slot in queue.take(10).slots}
    done, later, dead, split, _ = (slots[name] for name in names)
    state = JobState(tries=2, last="451 later", told=True, rcpt=["ann@example.org"])
    bad = msgspec.structs.replace(state, reason="550 no", last="550 no")
    queue.settle([Done(done), Retry(later, 60_000, state), Dead(dead, bad)])
    parts: list[Slot] = queue.settle([Split(split, [Part(state, "slot"), Part(bad, "dead")])])
    queue.settle([Done(part) for part in parts])
    told = {}
    for name in names:
        answer = house.ask("GET", f"/v1/messages/{name}")
        described.check("get", "/v1/messages/{id}", answer)
        told[name] = answer.json
    states = [told[name]["state"] for name in names]
    assert states == ["delivered", "delayed", "dead", "dead", "queued"]
    assert told[later.id]["tries"] == 2
    assert told[later.id]["last_reply"] == "451 later"
    assert told[later.id]["recipients"] == ["ann@example.org"]
    assert TIME.fullmatch(told[later.id]["due"])
    assert told[dead.id]["reason"] == "550 no"
    assert {part["state"] for part in told[split.id]["parts"]} == {"delivered", "dead"}
    described.check("get", "/v1/messages/{id}", house.ask("GET", "/v1/messages/nobody"))


def test_the_other_paths(described: Description, house: House) -> None:
    for path in ("/healthz", "/v1/openapi.json"):
        described.check("get", path, house.ask("GET", path))
    assert set(described.document["paths"]) == {
        *("/v1/messages", "/v1/messages/{id}", "/healthz", "/v1/openapi.json")
    }


def test_the_keys_of_a_job_are_those_that_are_read(described: Description) -> None:
    schemas = described.document["components"]["schemas"]
    spellings = {"to_email", "from_email", "title", "body", "content"}
    for name, table in (("Mail", shapes._EMAIL), ("Call", shapes._CALL), ("UrlTask", shapes._HTTP)):
        assert schemas[name]["properties"].keys() == table.keys() - spellings, name


def test_every_reference_leads_somewhere(described: Description) -> None:
    text = json.dumps(described.document)
    references = set(re.findall(r'"#/components/[^"]+"', text))
    assert references
    for reference in references:
        described.at({"$ref": json.loads(reference)})
    names = re.findall(r'"#/components/(\w+)/(\w+)"', text)
    for kind in ("responses", "schemas", "headers"):
        told = {name for where, name in names if where == kind}
        assert told == set(described.document["components"][kind])
