"""URLs that lead inside: each is a dead letter that says why, nobody inside is connected to, and
what is meant well is done.
"""

import pytest
from dns_host import dns_host
from gevent.server import StreamServer

from scenarios.stage import Stage, until
from scenarios.web_host import Web, web_host

_ZONE = ("here.example 60 A 127.0.0.1", "inside.example 60 A 127.0.0.2")
_HOSTS = "127.0.0.1 here.example inside.example 169.254.169.254 *.evil.example"


def _redirects(web: Web, paths: dict[str, str]) -> None:
    for path, location in paths.items():
        web.answer(path, "302 Found", Location=location)


def test_nothing_inside_is_reached(stage: Stage) -> None:
    met: list[object] = []
    inside = StreamServer(("127.0.0.2", 0), lambda _connection, whence: met.append(whence))
    inside.start()
    with web_host() as web, dns_host(*_ZONE) as dns:
        by_name = f"http://inside.example:{inside.server_port}/"
        _redirects(web, {"/meta": "http://169.254.169.254/latest", "/inside": by_name})
        bad = {
            "http://169.254.169.254/latest/meta-data/": "169.254.169.254, which is not public",
            by_name: "inside.example leads to 127.0.0.2, which is not public",
            f"http://127.0.0.2:{inside.server_port}/": "127.0.0.2 is not among url_hosts",
            f"http://2130706434:{inside.server_port}/": "is no IPv4 address",
            f"http://here.example@127.0.0.2:{inside.server_port}/": "in front of its host",
            "http://127.0.0.1:25/": "port 25 is not for HTTP requests",
            "http://evil.example/": "evil.example is not among url_hosts",
            f"{web.url}/meta": "169.254.169.254, which is not public",
            f"{web.url}/inside": "127.0.0.2, which is not public",
        }
        good = [f"http://here.example:{web.port}/{number}" for number in range(5)]
        stage.push([{"url": url, "id": url} for url in [*bad, *good]])
        stage.worker(
            url_hosts=_HOSTS,
            url_networks="127.0.0.1/32",
            nameserver=f"{dns.address[0]}:{dns.address[1]}",
        )
        until(lambda: len(stage.dead()) == len(bad), "the bad ones are dead")
        until(lambda: all(web.times(f"/{number}") == 1 for number in range(5)), "the good ones")
        reasons = " | ".join(letter.reason for letter in stage.dead())
    inside.stop()
    assert not met
    for expected in bad.values():
        assert expected in reasons


@pytest.mark.parametrize("secret", [None, "whsec_c2VjcmV0"])
def test_callbacks_go_nowhere_else_either(stage: Stage, secret: str | None) -> None:
    with web_host() as web:
        stage.push(
            [
                {"url": f"{web.url}/job", "callback_url": "http://169.254.169.254/"},
                {"url": f"{web.url}/job", "callback_url": f"{web.url}/told"},
            ]
        )
        more = {} if secret is None else {"callback_secret": secret}
        stage.worker(url_hosts="*", url_networks="127.0.0.1/32", **more)
        until(lambda: web.times("/told") == 1 and len(stage.dead()) == 1, "both callbacks")
        told = next(asked for asked in web.seen if asked.path == "/told")
        assert ("webhook-signature" in told.headers) is (secret is not None)
        assert "169.254.169.254, which is not public" in stage.dead()[0].reason
