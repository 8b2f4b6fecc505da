"""The TCP door with `door_cert`: TLS from the first byte, answers to the end, a new certificate."""

import ssl
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from callers import OpenDoor, connect, lines_of, mail, taken

from geomail.config import Settings
from geomail.errors import ConfigError
from geomail.intake import certificate
from geomail.queue import Queue

pytest_plugins = ("door_fixtures",)

_AUTHORITY = trustme.CA()


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """Give a file with a certificate of 127.0.0.1 and its key."""
    path = tmp_path / "door.pem"
    _AUTHORITY.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def client() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _AUTHORITY.configure_trust(context)
    return context


def call(address: tuple[str, int]) -> ssl.SSLSocket:
    return client().wrap_socket(connect(address), server_hostname="127.0.0.1")


def test_documents_and_answers(open_door: OpenDoor, queue: Queue, pem: Path) -> None:
    address = open_door("tcp", door_cert=str(pem))
    with closing(call(address)) as sock:
        sock.sendall(mail(1) + mail(2)[:20])
        assert "id" in lines_of(sock, 1)[0]
        sock.sendall(mail(2)[20:])
        assert "id" in lines_of(sock, 1)[0]
    with closing(call(address)) as sock:
        sock.sendall(mail(3) * 500)
        assert len(lines_of(sock, 500)) == 500
    with closing(call(address)) as sock:  # hangs up at once
        sock.sendall(mail(4))
    assert len(taken(queue, 503)) == 503


def test_who_speaks_no_tls_is_told(
    open_door: OpenDoor, queue: Queue, pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    address = open_door("tcp", door_cert=str(pem))
    with closing(connect(address)) as sock:
        sock.sendall(mail())
        assert "speaks TLS" in lines_of(sock, 1)[0]["error"]
    assert "no_tls host=127.0.0.1 why=" in caplog.text
    assert queue.counts().waiting == 0


def test_a_certificate_is_read_again(pem: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"door_cert": str(pem)}
    context = certificate.tls_of(Settings(**settings))
    assert context is not None
    pem.write_text("nothing")
    with pytest.raises(ConfigError, match="is no PEM file with certificate and key"):
        certificate.load_certificate(context, Settings(**settings))
    assert certificate.tls_of(Settings()) is None


@pytest.mark.parametrize("has_other_key", [False, True])
def test_half_a_certificate_leaves_the_old_one(pem: Path, has_other_key: bool) -> None:
    settings = Settings(door_cert=str(pem))
    context = certificate.tls_of(settings)
    assert context is not None
    renewed = _AUTHORITY.issue_cert("127.0.0.1")
    key = _AUTHORITY.issue_cert("127.0.0.1").private_key_pem.bytes() if has_other_key else b""
    pem.write_bytes(renewed.cert_chain_pems[0].bytes() + key)
    with pytest.raises(ConfigError, match="is no PEM file with certificate and key"):
        certificate.load_certificate(context, settings)
    greet(context)


def greet(server: ssl.SSLContext) -> None:
    """Shake hands with a server of this context; raises SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client().wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (here, there, here):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    there.do_handshake()
