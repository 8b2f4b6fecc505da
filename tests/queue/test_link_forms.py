"""A single Redis in each form: tcp, TLS, unix socket, a user with few rights; and what URLs say."""

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis_servers import RedisServer, find_binary, free_ports

from geomail.errors import RedisUnusable
from geomail.queue import FRESH, Dead, Done, Link, Park, Part, Queue, Release, Retry, Split
from geomail.queue.address import read_url

pytest_plugins = ("queue_fixtures",)
Raw = Any


def _use_all(link: Link) -> None:
    """Go through all that a worker does, and leave the books."""
    link.probe()
    queue = Queue(link)
    queue.register()
    queue.push([b"%d" % number for number in range(6)])
    queue.wait(1)
    slots = queue.take(9).slots
    parts = queue.settle(
        [
            Done(slots[0]),
            Retry(slots[1], 0, FRESH),
            Release(slots[2], FRESH),
            Park([slots[3]], "r", 0, FRESH),
            Dead(slots[4], FRESH),
            Split(slots[5], [Part(FRESH), Part(FRESH, "dead")]),
        ]
    )
    queue.settle([Done(part) for part in parts])
    assert queue.beat()
    assert queue.counts().dead == 2
    assert len(queue.dead_list(9)) == 2
    assert queue.dead_drop(every=True) == 2
    assert queue.reap(["0123456789abcdef"]) == 0
    threading.Timer(0.05, queue.wake).start()
    started = time.monotonic()
    queue.wait(20)
    assert time.monotonic() - started < 10
    slots = queue.take(9).slots + queue.take(9, route="r").slots
    assert len(slots) == 3
    queue.settle([Done(slot) for slot in slots])
    assert queue.leave()
    queue.close()


@dataclass
class TlsServer:
    ca: trustme.CA
    authority: Path
    folder: Path
    port: int


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Run a Redis that speaks TLS on a port, under the name of localhost alone."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    (port,) = free_ports(1)
    running = RedisServer(find_binary("7"), folder, *_tls_options(ca, folder, port, "no"))
    yield TlsServer(ca, folder / "ca.pem", folder, port)
    running.kill()


def _tls_options(ca: trustme.CA, folder: Path, port: int, clients: str) -> list[str]:
    cert = ca.issue_cert("localhost")
    cert.private_key_pem.write_to_path(str(folder / "key.pem"))
    cert.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    options = ["--tls-port", str(port), "--tls-cert-file", f"{folder}/cert.pem"]
    options += ["--tls-key-file", f"{folder}/key.pem", "--tls-ca-cert-file", f"{folder}/ca.pem"]
    return [*options, "--tls-auth-clients", clients]


def test_tls(tls_server: TlsServer) -> None:
    _use_all(Link(f"rediss://localhost:{tls_server.port}?ssl_ca_certs={tls_server.authority}"))


def test_tls_of_somebody_else(tls_server: TlsServer) -> None:
    port, authority = tls_server.port, tls_server.authority
    for url in (
        f"rediss://localhost:{port}",
        f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority}",
        f"rediss+sentinel://localhost:{port}/mail",
        f"rediss+cluster://localhost:{port}",
    ):
        with pytest.raises(RedisUnusable, match="certificate can't be verified"):
            Link(url).probe()
    Link(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority}&ssl_check_hostname=0").probe()
    Link(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none").probe()


def test_first_connection_says_what_to_try_when_tls_meets_plain_text(
    tls_server: TlsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    plain = RedisServer(find_binary("7"), tmp_path, "--port", str(port))
    advice = {
        f"redis://127.0.0.1:{tls_server.port}": "speaks TLS, write rediss:",
        f"redis+sentinel://127.0.0.1:{tls_server.port}/m": "speaks TLS, write rediss:",
        f"rediss://127.0.0.1:{port}": "does not speak TLS, write redis:",
        f"rediss+cluster://127.0.0.1:{port}": "does not speak TLS, write redis:",
    }
    try:
        for url, words in advice.items():
            for is_new in (True, False):
                caplog.clear()
                connection = Link(url, connect_timeout_s=0.5).open("probe")
                connection.is_new = is_new
                assert connection.attempt("PING", timeout_s=5) is None
                assert "redis_away" in caplog.text
                assert (words in caplog.text) == is_new
    finally:
        plain.kill()


def test_tls_with_certificates_of_clients(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (port,) = free_ports(1)
    server = RedisServer(find_binary("7"), tmp_path, *_tls_options(ca, tmp_path, port, "yes"))
    try:
        url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem"
        _use_all(Link(f"{url}&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"))
    finally:
        server.kill()


@pytest.mark.parametrize(
    "options", ["ssl_ca_certs=/nowhere/ca.pem", f"ssl_ca_certs={__file__}", "ssl_certfile=/nowhere"]
)
def test_certificates_that_cannot_be_read(options: str) -> None:
    for url in ("rediss://localhost", "rediss+sentinel://localhost/mail"):
        with pytest.raises(RedisUnusable, match="names certificates that can't be read"):
            Link(f"{url}?{options}")


def test_tls_to_a_sentinel_and_its_master(tls_server: TlsServer, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = _tls_options(tls_server.ca, tls_server.folder, port, "no")
    lines = [
        f"{name.removeprefix('--')} {value}"
        for name, value in zip(options[::2], options[1::2], strict=True)
    ]
    lines += ["port 0", f"dir {tmp_path}", "tls-replication yes", "sentinel resolve-hostnames yes"]
    lines += ["sentinel announce-hostnames yes"]
    lines += [f"sentinel monitor mail localhost {tls_server.port} 1"]
    (tmp_path / "sentinel.conf").write_text("\n".join(lines) + "\n")
    command = [find_binary("7"), str(tmp_path / "sentinel.conf"), "--sentinel"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        authority = tls_server.authority
        _use_all(Link(f"rediss+sentinel://localhost:{port}/mail?ssl_ca_certs={authority}"))
    finally:
        process.kill()
        process.wait()


def test_tls_to_a_cluster(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (port,) = free_ports(1)
    options = [*_tls_options(ca, tmp_path, port, "no"), "--cluster-enabled", "yes"]
    options += ["--cluster-announce-hostname", "localhost"]
    options += ["--cluster-preferred-endpoint-type", "hostname", "--tls-cluster", "yes"]
    server = RedisServer(find_binary("7"), tmp_path, *options)
    try:
        raw: Raw = server.raw
        raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        # It serves after two seconds; until then it says that it is down.
        _use_all(Link(f"rediss+cluster://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem"))
    finally:
        server.kill()


@pytest.mark.parametrize("rights", ["", "+info +config|get"])
def test_user_with_few_rights(server: RedisServer, raw: Raw, rights: str) -> None:
    words = "on >pass ~queue:email ~{queue:email}:* +@read +@write +@scripting +@transaction"
    words += f" -@dangerous +time {rights.replace('|get', '') if _is_old(raw) else rights}"
    raw.execute_command("ACL", "SETUSER", "geomail", "reset", *words.split())
    _use_all(Link(f"unix://geomail:pass@{server.folder}/redis.sock"))


def _is_old(raw: Raw) -> bool:
    return bool(raw.info("server")["redis_version"] < "7")


def test_tcp_with_a_user_and_a_database(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    server = RedisServer(find_binary("7"), tmp_path, "--port", str(port))
    try:
        raw: Raw = server.raw
        words = "on >p@ss/w:rd ~* +@all"
        raw.execute_command("ACL", "SETUSER", "mail@man", *words.split())
        link = Link(f"redis://mail%40man:p%40ss%2Fw%3Ard@127.0.0.1:{port}/3")
        link.open("producer").call("LPUSH", "queue:email", "x")
        assert raw.info("keyspace")["db3"]["keys"] == 1
        assert link.address == f"127.0.0.1:{port}"
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("url", "label", "seeds", "master", "db"),
    [
        ("redis://localhost", "localhost:6379", (), "", None),
        ("redis://u:p@[::1]:7/2", "[::1]:7", (), "", 2),
        ("unix:///tmp/redis.sock", "/tmp/redis.sock", (), "", None),
        (
            "redis+sentinel://u:p@a,b:2,[::1]:3/my%20mail/4?sentinel_password=s",
            "my mail of a:26379,b:2,[::1]:3",
            (("a", 26379), ("b", 2), ("::1", 3)),
            "my mail",
            4,
        ),
        ("rediss+sentinel://a/mail", "mail of a:26379", (("a", 26379),), "mail", 0),
        ("redis+cluster://:p@a,b:2", "a:6379,b:2", (("a", 6379), ("b", 2)), "", 0),
        ("rediss+cluster://a/0?ssl_check_hostname=0", "a:6379", (("a", 6379),), "", 0),
    ],
)
def test_what_urls_say(
    url: str, label: str, seeds: tuple[Any, ...], master: str, db: int | None
) -> None:
    address = read_url(url)
    assert (address.label, address.seeds, address.master) == (label, seeds, master)
    assert address.options.get("db") == db
    assert address.options.get("password") == ("p" if "p@" in url else None)
    if address.kind == "sentinel":
        own = "s" if "sentinel_password" in url else None
        assert address.seed_options["password"] == own
    assert "'p'" not in repr(address)
    Link(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://hid/",
        "redis+sentinel://hid",
        "redis+sentinel:///mail",
        "redis+sentinel://a,,b/mail",
        "redis+sentinel://a:99999/mail",
        "redis+sentinel://a:hid/mail",
        "redis+sentinel://a/mail/hid",
        "redis+sentinel://a/mail?hid",
        "redis+sentinel://:p#hid@a/mail",
        "redis+cluster://a/1",
        "redis+cluster://a?db=1",
        "redis+cluster://a?sentinel_password=hid",
        "redis+cluster://a?hidden=1",
        "redis+hid://a",
        "unix+cluster:///tmp/hid",
        "redis://:hid#den@localhost",
    ],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(RedisUnusable, match="expected redis://") as caught:
        Link(url)
    assert "hid" not in str(caught.value)


def test_complaint_when_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    ports = free_ports(2)
    for url in (
        f"redis://127.0.0.1:{ports[0]}",
        f"redis+sentinel://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/mail",
        f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}",
    ):
        caplog.clear()
        assert Link(url).open("waker", b"queue:email").attempt("PING", timeout_s=1) is None
        assert "redis_away" in caplog.text
        assert "refused" in caplog.text
