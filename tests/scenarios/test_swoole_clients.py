"""The TCP task server's clients, as they are: JSON without delimiters, and nobody who reads."""

import json
import socket
import time
from email import message_from_bytes, policy
from typing import Any

import pytest

from scenarios.producers import run
from scenarios.stage import Host, Stage, free_port, once_each, until, users
from scenarios.web_host import web_host

DOCUMENTS = [
    json.dumps(
        {
            "from_email": "shop@example.com",
            "to_email": f"u{number}@example.org",
            "title": '订单 {}[]"\\',
            "content": "<p>Grüße</p>",
        },
        ensure_ascii=bool(number % 2),
    )
    for number in range(10)
]


def opened(stage: Stage, *, relay: Host | None = None, **settings: object) -> int:
    """Run a worker with a TCP door, and return its port."""
    port = free_port()
    stage.worker("--tcp", f"127.0.0.1:{port}", relay=relay, **settings).says("listening")
    return port


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_swoole_client_sends_and_hangs_up(stage: Stage, php: str, ending: str) -> None:
    host = stage.host(keeps=True)
    port = opened(stage, relay=host)
    for document in DOCUMENTS:
        run(php, "swoole.php", port, document + ending)
    host.has_taken(10)
    once_each(host.arrivals(), users(10))
    message = message_from_bytes(host.look()[0].content, policy=policy.default)
    assert message["Subject"] == '订单 {}[]"\\'
    assert message["From"] == "shop@example.com"


def test_ten_documents_in_one_segment(stage: Stage, php: str) -> None:
    host = stage.host()
    port = opened(stage, relay=host)
    run(php, "swoole.php", port, "".join(DOCUMENTS))
    host.has_taken(10)
    once_each(host.arrivals(), users(10))


def test_a_segment_ends_at_every_byte(stage: Stage) -> None:
    host = stage.host()
    port = opened(stage, relay=host)
    document = DOCUMENTS[0].encode()
    for number, at in enumerate(range(1, len(document))):
        mine = document.replace(b"u0@", b"u%d@" % number)
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(mine[:at])
            time.sleep(0.002)  # that it is a segment of its own; nothing depends on it
            client.sendall(mine[at:])
    host.has_taken(number + 1)
    once_each(host.arrivals(), users(number + 1))


def test_an_url_task_by_tcp_asks_as_http_build_query_writes(stage: Stage, php: str) -> None:
    document = {"url": "PLACE/hook?x=1", "param": {"a": {"b": "c d"}, "list": ["1", "ü"]}}
    with web_host() as web:
        allowed: dict[str, Any] = {"url_hosts": "127.0.0.1", "url_networks": "127.0.0.0/8"}
        port = opened(stage, **allowed)
        run(php, "swoole.php", port, json.dumps(document).replace("PLACE", web.url))
        until(lambda: web.seen)
        [asked] = web.seen
    assert (asked.method, asked.path) == ("GET", "/hook")
    assert asked.query == {"x": ["1"], "a[b]": ["c d"], "list[0]": ["1"], "list[1]": ["ü"]}
