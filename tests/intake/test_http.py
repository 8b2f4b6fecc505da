"""The HTTP door as its clients see it: one job, many, what became of them, and what is refused."""

import json
import re
import time
from http.client import HTTPConnection
from urllib.request import Request, urlopen

import gevent
import pytest
from http_house import JSON, LINES, MAIL, WITHIN_S, House, Open, ask, lines, read_all, until

from geomail import job
from geomail.queue import Done, Queue

pytest_plugins = ("http_fixtures",)

_POST = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_SECOND = _POST + b"Content-Length: 66\r\n\r\n" + json.dumps(MAIL).encode()


def taken(queue: Queue) -> list[bytes]:
    queue.register()
    return [slot.payload for slot in queue.take(1000).slots]


def test_one_mail(house: House) -> None:
    answer = house.post(MAIL)
    assert answer.status == 202
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["location"] == f"/v1/messages/{answer.json['id']}"
    assert [json.loads(payload) for payload in taken(house.queue)] == [MAIL]


def test_it_is_in_redis_as_it_came(house: House) -> None:
    body = '{"to" : "ann@example.org",\r\n "text": "h\\u00e9", "more": [1.0]}'
    assert house.post(body).status == 202
    assert taken(house.queue) == [body.encode()]


def test_all_kinds_of_jobs(house: House) -> None:
    jobs = [
        {"from_email": "a@example.com", "to_email": "b@example.org", "title": "t", "content": "c"},
        {"url": "http://example.org/", "param": {"a": 1}},
        {"worker": "resize", "class": "Image", "params": [1]},
    ]
    assert [house.post(one).status for one in jobs] == [202] * 3


def test_what_urllib_sends(house: House) -> None:
    url = f"http://127.0.0.1:{house.port}/v1/messages"
    request = Request(url, json.dumps(MAIL).encode(), JSON)
    with urlopen(request, timeout=WITHIN_S) as answer:
        assert answer.status == 202


def test_many_requests_on_one_connection(house: House) -> None:
    client = HTTPConnection("127.0.0.1", house.port, timeout=WITHIN_S)
    for number in range(20):
        path = "/v1/messages/" if number % 2 else "/v1/messages"
        assert ask(client, "POST", path, MAIL, JSON).status == 202
        assert ask(client, "GET", "/v1/messages/nobody").status == 404
    client.close()
    assert house.waiting() == 20


def test_requests_that_come_before_the_answers(house: House) -> None:
    body = json.dumps(MAIL).encode()
    one = _POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    said = house.talk(one * 10 + b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert said.count(b"HTTP/1.1 202 ") == 10
    assert said.count(b"HTTP/1.1 200 ") == 1
    assert house.waiting() == 10


def test_a_body_in_chunks(house: House) -> None:
    body = json.dumps(MAIL).encode()
    pieces = iter([body[:7], body[7:20], body[20:]])
    client = HTTPConnection("127.0.0.1", house.port, timeout=WITHIN_S)
    client.request("POST", "/v1/messages", pieces, JSON, encode_chunked=True)
    assert client.getresponse().status == 202
    client.close()
    assert taken(house.queue) == [body]


def test_empty_lines_between_requests(house: House) -> None:
    with house.dial() as sock, sock.makefile("rb") as answers:
        for _ in range(3):
            sock.sendall(_SECOND)
            assert answers.readline() == b"HTTP/1.1 202 Accepted\r\n"
            while not answers.readline().startswith(b"{"):
                pass
            sock.sendall(b"\r\n")
            gevent.sleep(0.01)
    assert house.waiting() == 3


def test_a_request_split_at_every_byte(house: House) -> None:
    body = json.dumps(MAIL).encode()
    whole = _POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with house.dial() as sock, sock.makefile("rb") as answers:
        for at in range(len(whole)):
            sock.sendall(whole[at : at + 1])
        assert answers.readline() == b"HTTP/1.1 202 Accepted\r\n"


def test_who_waits_for_a_100_gets_it(house: House) -> None:
    body = json.dumps(MAIL).encode()
    with house.dial() as sock, sock.makefile("rb") as answers:
        sock.sendall(_POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        sock.sendall(body)
        assert answers.readline() == b"HTTP/1.1 202 Accepted\r\n"


def test_who_waits_for_a_100_is_told_no_before_sending(opens: Open) -> None:
    house = opens(door_max_mb="1")
    with house.dial() as sock, sock.makefile("rb") as answers:
        sock.sendall(_POST + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n")
        assert answers.readline().startswith(b"HTTP/1.1 413 ")


def test_http_1_0(house: House) -> None:
    body = json.dumps(MAIL).encode()
    start = _POST.replace(b"1.1", b"1.0").replace(b"Host: a\r\n", b"")
    said = house.talk(start + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    assert said.startswith(b"HTTP/1.1 202 ")
    assert b"Connection: close\r\n" in said
    many = start.replace(b"json", b"x-ndjson") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    said = house.talk(many)
    assert b"chunked" not in said
    assert json.loads(said.partition(b"\r\n\r\n")[2]).keys() == {"id"}


def test_head_is_get_without_a_body(house: House) -> None:
    for path in ("/healthz", "/v1/openapi.json", "/v1/messages/nobody"):
        got, told = house.ask("GET", path), house.ask("HEAD", path)
        assert told.status == got.status
        assert told.fields["content-length"] == got.fields["content-length"]
        assert told.content == b""


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/messages", 405, "POST"),
        ("DELETE", "/v1/messages/", 405, "POST"),
        ("OPTIONS", "/v1/messages", 405, "POST"),
        ("POST", "/v1/messages/abc", 405, "GET, HEAD"),
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("BREW", "/v1/openapi.json", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("POST", "/v2/messages", 404, None),
        ("GET", "/v1/messages/nobody/../x", 404, None),
    ],
)
def test_wrong_methods_and_paths(
    house: House, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = house.ask(method, path, b"{}", JSON)
    assert answer.status == status
    assert answer.fields.get("allow") == allow
    assert answer.json["error"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"   ", "object expected"),
        (b"nonsense", "object expected"),
        (b'a:1:{s:2:"to";s:3:"a@b";}', "object expected"),
        (b'[{"to": "a@example.org"}]', "application/x-ndjson"),
        (b'{"to": "a@example.org"', "JSON"),
        (b'{"to": "a@example.org"} {"to"', "JSON"),
        (b'{"to": "nobody"}', "no @"),
        (b'{"subject": "x"}', "no recipient"),
        (b'{"to": "a@example.org", "attachments": [{"path": "/etc/passwd"}]}', "not opened"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ""),
        (b'{"to": "a@example.org", "text": "\xff"}', "UTF-8"),
    ],
)
def test_what_is_no_job(house: House, body: bytes, why: str) -> None:
    answer = house.post(body)
    assert answer.status == 400
    assert why in answer.json["error"]
    assert house.waiting() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_types_that_are_not_taken(house: House, fields: dict[str, str]) -> None:
    body = json.dumps(MAIL)
    answer = house.ask("POST", "/v1/messages", body.encode(), fields)
    assert answer.status == 415
    assert house.waiting() == 0
    assert (
        house.ask("POST", "/v1/messages", body, JSON | {"Content-Encoding": "identity"}).status
        == 202
    )
    typed = {"Content-Type": 'Application/JSON; charset="utf-8"'}
    assert house.ask("POST", "/v1/messages", body, typed).status == 202


@pytest.mark.parametrize(
    "said",
    [
        _POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
        _POST + b"Transfer-Encoding: identity\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
        _POST.replace(b"json", b"xml") + b"Content-Length: 1000000\r\n\r\n",
        _POST.replace(b"json", b"xml") + b"Transfer-Encoding: chunked\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_follows_a_doubtful_request_is_not_served(house: House, said: bytes) -> None:
    with house.dial() as sock:
        sock.sendall(said + _SECOND)
        assert len(_STATUS.findall(read_all(sock))) == 1
    assert house.waiting() == 0


@pytest.mark.parametrize("said", [json.dumps(MAIL).encode(), b"\x16\x03\x01\x02", b"\0", b'"x'])
def test_another_protocol_is_told_at_once(house: House, said: bytes) -> None:
    with house.dial() as sock:
        sock.sendall(said)  # and waits
        assert sock.recv(12) == b"HTTP/1.1 400"


def test_what_follows_a_refused_body_is_served(house: House) -> None:
    said = house.talk(
        _POST.replace(b"json", b"xml") + b"Content-Length: 9\r\n\r\n<not me/>" + _SECOND
    )
    assert _STATUS.findall(said) == [b"415", b"202"]


def test_a_client_that_does_not_wait_for_the_answer(house: House) -> None:
    for _ in range(10):
        with house.dial() as sock:
            sock.sendall(_SECOND)
    until(lambda: house.waiting() == 10)


def test_the_token(opens: Open) -> None:
    house = opens(door_token="let me in")
    for shown in (None, "Bearer", "Bearer let me", "Basic let me in", "let me in", "Bearer é"):
        fields: dict[str, str] = {} if shown is None else {"Authorization": shown}
        for answer in (
            house.post(MAIL, fields),
            house.ask("GET", "/v1/messages/nobody", headers=fields),
        ):
            assert answer.status == 401
            assert answer.fields["www-authenticate"] == "Bearer"
    assert house.waiting() == 0
    known = {"Authorization": "bearer let me in", "Origin": "https://shop.example.com"}
    assert house.post(MAIL, known).status == 202
    assert house.ask("GET", "/v1/messages/nobody", headers=known).status == 404
    assert house.ask("GET", "/healthz").status == 200
    assert house.ask("GET", "/v1/openapi.json").status == 200


def test_a_web_page_may_not_send_without_a_token(house: House) -> None:
    answer = house.post(MAIL, {"Origin": "https://evil.example.com"})
    assert answer.status == 403
    assert "door_token" in answer.json["error"]
    assert house.waiting() == 0


def test_a_key_makes_a_repetition_harmless(house: House) -> None:
    for key in ("order-4711", '"order-4711"'):
        assert house.post(MAIL, {"Idempotency-Key": key}).status == 202
    jobs = [json.loads(payload) for payload in taken(house.queue)]
    assert jobs == [MAIL | {"dedupe_key": "order-4711"}] * 2
    assert house.post(MAIL | {"dedupe_key": "k"}, {"Idempotency-Key": "k"}).status == 202
    assert house.post(MAIL | {"dedupe_key": "k"}, {"Idempotency-Key": "l"}).status == 400
    for odd in ("", "two words", "x" * 201, '"', 'a"b'):
        assert house.post(MAIL, {"Idempotency-Key": odd}).status == 400


@pytest.mark.parametrize("name", ["dedupe_key", r"dedupe\u005fkey", r"\u0064edupe_key"])
def test_a_key_goes_over_a_null(house: House, name: str) -> None:
    body = b'{"to": "ann@example.org", "%b": null} \r\n' % name.encode()
    assert house.post(body, {"Idempotency-Key": "k"}).status == 202
    [payload] = taken(house.queue)
    assert getattr(job.decode(payload), "dedupe_key", None) == "k"


def test_a_key_with_many_is_one_for_each_line(house: House) -> None:
    house.ask("POST", "/v1/messages", lines(MAIL, {}, MAIL), LINES | {"Idempotency-Key": "k"})
    jobs = [json.loads(payload) for payload in taken(house.queue)]
    assert [one["dedupe_key"] for one in jobs] == ["k/1", "k/3"]


def test_what_became_of_it(house: House) -> None:
    name = house.post(MAIL).json["id"]
    path = f"/v1/messages/{name}"
    assert house.ask("GET", path).json == {"id": name, "state": "queued"}
    assert house.ask("GET", path.replace(".", "%2E")).json["state"] == "queued"
    house.queue.register()
    [slot] = house.queue.take(1).slots
    house.queue.settle([Done(slot)])
    told = house.ask("GET", path)
    assert told.json["state"] == "delivered"
    assert told.json["tries"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told.json["at"])
    assert told.fields["cache-control"] == "no-store"


def test_high_water(opens: Open) -> None:
    house = opens(high_water="3")
    assert house.ask("POST", "/v1/messages", lines(*[MAIL] * 4), LINES).status == 200
    until(lambda: house.gate.pressure == "high")
    for kind in (JSON, LINES):
        answer = house.ask("POST", "/v1/messages", json.dumps(MAIL), kind)
        assert answer.status == 429
        assert int(answer.fields["retry-after"]) >= 1
    assert house.ask("GET", "/healthz").json == {"redis": "ok", "pressure": "high", "waiting": 4}
    house.queue.register()
    house.queue.settle([Done(slot) for slot in house.queue.take(10).slots])
    until(lambda: house.post(MAIL).status == 202)


def test_one_connection_too_many(opens: Open) -> None:
    house = opens(door_connections="1")
    with house.dial() as sock:
        sock.sendall(_SECOND)
        assert sock.recv(12) == b"HTTP/1.1 202"
        answer = house.ask("GET", "/healthz")
        assert answer.status == 503
        assert answer.fields["retry-after"] == "1"
        assert "door_connections" in answer.json["error"]
    until(lambda: house.ask("GET", "/healthz").status == 200)


def test_more_jobs_a_second_than_allowed(opens: Open) -> None:
    house = opens(door_rate="2")
    said = house.talk(_SECOND * 20)
    statuses = _STATUS.findall(said)
    assert statuses[:2] == [b"202", b"202"]
    assert b"429" in statuses
    assert b"Retry-After: 1\r\n" in said
    assert b"door_rate" in said
    until(lambda: house.post(MAIL).status == 202)


def test_many_more_than_allowed_wait(opens: Open) -> None:
    house = opens(door_rate="10")
    began = time.monotonic()
    answer = house.ask("POST", "/v1/messages", lines(*[MAIL] * 25), LINES)
    assert len(answer.lines) == 25
    assert time.monotonic() - began > 1
    assert house.waiting() == 25
