"""The HTTP door over TLS: the same, and whoever speaks in clear is left."""

import ssl
from http.client import HTTPSConnection

import trustme
from gevent.ssl import SSLContext
from http_house import JSON, LINES, MAIL, WITHIN_S, House, Open, ask, lines

pytest_plugins = ("http_fixtures",)

_AUTHORITY = trustme.CA()


def guarded(opens: Open) -> House:
    server = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _AUTHORITY.issue_cert("127.0.0.1").configure_cert(server)
    return opens(tls=server, door_max_mb="1")


def connected(house: House) -> HTTPSConnection:
    client = ssl.create_default_context()
    _AUTHORITY.configure_trust(client)
    return HTTPSConnection("127.0.0.1", house.port, timeout=WITHIN_S, context=client)


def test_one_and_many(opens: Open) -> None:
    house = guarded(opens)
    client = connected(house)
    assert ask(client, "POST", "/v1/messages", MAIL, JSON).status == 202
    many = ask(client, "POST", "/v1/messages", lines(*[MAIL] * 3000), LINES)
    assert len(many.lines) == 3000
    assert ask(client, "GET", "/healthz").status == 200
    client.close()
    assert house.waiting() == 3001


def test_a_refusal_is_read_before_the_end(opens: Open) -> None:
    client = connected(guarded(opens))
    client.putrequest("POST", "/v1/messages")
    client.putheader("Content-Type", "application/json")
    client.putheader("Content-Length", "2000000")
    client.endheaders(b" " * 500_000)
    assert client.getresponse().status == 413
    client.close()


def test_who_speaks_in_clear_is_told(opens: Open) -> None:
    house = guarded(opens)
    said = house.talk(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"https://" in said
    client = connected(house)
    assert ask(client, "GET", "/healthz").status == 200
    client.close()
