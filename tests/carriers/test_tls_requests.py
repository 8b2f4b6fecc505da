"""Requests by TLS: verified against the name of the URL, connected to a checked address."""

import ssl
from collections.abc import Iterator

import gevent
import pytest
import trustme
from dns_host import dns_host
from gevent.server import StreamServer
from web_host import Asked, Connection, at_home, leads_to, web_host

from geomail.delivery.outcome import Blame, Fate
from geomail.job.kinds import HttpTask

_AUTHORITY, _STRANGER = trustme.CA(), trustme.CA()


def _context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    return made


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the system trust our authority."""
    with _AUTHORITY.cert_pem.tempfile() as file:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        yield


def test_is_verified_and_kept() -> None:
    with web_host(context=_context(_AUTHORITY, "localhost")) as host, at_home() as requests:
        for _ in range(5):
            task = HttpTask(host.url(host="localhost"), "POST", json={"a": "b" * 100_000})
            answer = requests.fetch(task, job_id="1")
            assert answer.outcome.fate is Fate.DELIVERED
    assert host.accepts == 1
    assert len(host.asked[4].body) == 100_008
    assert host.asked[0].header("Host") == f"localhost:{host.port}"


def test_one_that_was_closed_meanwhile_is_not_used() -> None:
    with web_host(context=_context(_AUTHORITY, "localhost")) as host, at_home() as requests:
        for turn in range(1, 4):
            task = HttpTask(host.url(host="localhost"), "POST")
            assert requests.fetch(task, job_id="1").outcome.fate is Fate.DELIVERED
            assert host.accepts == turn
            host.hang_up()
            with gevent.Timeout(20):
                while host.is_connected:
                    gevent.sleep(0.01)


def test_body_may_end_without_a_word() -> None:
    """The end of the connection ends the body, also where TLS was not told."""

    def answer(_asked: Asked, connection: Connection) -> bool:
        connection.sendall(b"HTTP/1.1 404 No\r\n\r\nit is not here")
        return False

    with web_host(answer, _context(_AUTHORITY, "localhost")) as host, at_home() as requests:
        answered = requests.fetch(HttpTask(host.url(host="localhost")), job_id="1")
    assert (answered.outcome.fate, answered.body_bytes) == (Fate.NEVER, 14)


def test_address_is_verified_too() -> None:
    with web_host(context=_context(_AUTHORITY, "127.0.0.1")) as host, at_home() as requests:
        assert requests.fetch(HttpTask(host.url()), job_id="1").outcome.fate is Fate.DELIVERED


@pytest.mark.parametrize(
    ("authority", "name"),
    [(_STRANGER, "localhost"), (_AUTHORITY, "other.example"), (_AUTHORITY, "127.0.0.1")],
)
def test_others_are_not_spoken_to(authority: trustme.CA, name: str) -> None:
    with web_host(context=_context(authority, name)) as host, at_home() as requests:
        outcome = requests.fetch(HttpTask(host.url(host="localhost")), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)
    assert "the certificate can't be verified" in outcome.text
    assert host.asked == []


def test_name_is_that_of_the_url_wherever_dns_leads() -> None:
    """The address is one number among many; the certificate says whose it is."""
    with (
        dns_host("shop.example 0 A 127.0.0.1", "other.example 0 A 127.0.0.1") as dns,
        web_host(context=_context(_AUTHORITY, "shop.example")) as host,
        at_home(nameservers=(dns.address,)) as requests,
    ):
        good = requests.fetch(HttpTask(host.url(host="shop.example.")), job_id="1").outcome
        bad = requests.fetch(HttpTask(host.url(host="other.example")), job_id="1").outcome
    assert good.fate is Fate.DELIVERED
    assert "can't be verified" in bad.text


def test_does_not_lead_out_of_tls() -> None:
    with web_host() as plain, at_home() as requests:
        context = _context(_AUTHORITY, "localhost")
        with web_host(leads_to(plain.url()), context) as host:
            outcome = requests.fetch(HttpTask(host.url(host="localhost")), job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    assert outcome.text == "redirect refused: it leads from https to http"
    assert plain.accepts == 0


def test_host_that_never_shakes_hands() -> None:
    server = StreamServer(("127.0.0.1", 0), lambda _connection, _whence: gevent.sleep(20))
    server.start()
    try:
        with at_home(url_connect_s=0.3) as requests:
            task = HttpTask(f"https://127.0.0.1:{server.server_port}/")
            outcome = requests.fetch(task, job_id="1").outcome
    finally:
        server.stop()
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)
    assert outcome.text == f"127.0.0.1:{server.server_port}: no TLS within 0.3 s"
