"""The SMTP door that begins with TLS: clients with `ssl` and 465 in their settings."""

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from smtp_doors import (
    AUTHORITY,
    CERTIFICATE,
    DEADLINE_S,
    ENVELOPE,
    LETTER,
    Bare,
    Opened,
    opened,
    trusting,
)

from geomail.config import Settings
from geomail.errors import ConfigError
from geomail.intake import guest, listening
from geomail.intake.plates import plates
from geomail.intake.smtp import SmtpsDoor

# PHPMailer with SMTPSecure = "ssl": a stream of ssl://, then no STARTTLS.
PHP = r"""
$s = stream_socket_client("ssl://127.0.0.1:$argv[1]", $n, $e, 20, STREAM_CLIENT_CONNECT,
    stream_context_create(["ssl" => ["cafile" => $argv[2], "peer_name" => "localhost"]]));
function said($s, $line) {
    if ($line !== null) fwrite($s, "$line\r\n");
    do { $reply = fgets($s, 515); } while ($reply[3] == "-");
    return (int) $reply;
}
foreach ([null, "EHLO me.example", "AUTH LOGIN", base64_encode("ann"), base64_encode("secret"),
    "MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA", "Subject: x\r\n\r\nx\r\n.", "QUIT"]
    as $line) $codes[] = said($s, $line);
echo json_encode($codes);
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Give what the door is set up with."""
    cert, logins = tmp_path / "door.pem", tmp_path / "logins"
    CERTIFICATE.private_key_and_cert_chain_pem.write_to_path(cert)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    logins.write_text("ann:secret\n")
    logins.chmod(0o600)
    return {"door_cert": str(cert), "door_logins": str(logins)}


@pytest.fixture
def door(redis_url: str, files: dict[str, Any]) -> Iterator[Opened]:
    with opened(redis_url, kind=SmtpsDoor, **files) as running:
        yield running


def encrypted(door: Opened) -> Bare:
    """Return a connection on which the greeting was read."""
    bare = door.bare()
    bare.encrypt()
    assert bare.codes(1) == [220]
    return bare


def test_the_standard_library(door: Opened) -> None:
    host, port = door.address
    with smtplib.SMTP_SSL(host, port, timeout=DEADLINE_S, context=_lenient()) as client:
        client.ehlo("me.example")
        assert not client.has_extn("starttls")
        client.login("ann", "secret")
        client.sendmail("a@x.example", "b@y.example", LETTER)
    assert b"with ESMTPSA;" in door.jobs()[0]["raw"]


def _lenient() -> ssl.SSLContext:
    context = trusting()
    context.check_hostname = False
    return context


def test_php(door: Opened, files: dict[str, Any]) -> None:
    ca = Path(files["door_cert"]).with_name("ca.pem")
    command = ["php", "-r", PHP, str(door.address[1]), str(ca)]
    run = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    assert run.stdout == b"[220,250,334,334,235,250,250,354,250,221]", run.stderr
    assert len(door.jobs()) == 1


def test_a_second_starttls_is_none(door: Opened) -> None:
    bare = encrypted(door)
    bare.hello_again()
    bare.say(b"STARTTLS\r\n", ENVELOPE)
    assert bare.codes(3) == [503, 530, 530]


@pytest.mark.parametrize("said", [b"EHLO me.example\r\n", b""])
def test_who_speaks_in_clear_is_told(
    door: Opened,
    said: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guest, "_HANDSHAKE_S", 0.2)  # who is silent waits for a greeting in clear
    caplog.set_level("INFO")
    bare = door.bare()
    bare.say(said)
    assert bare.rest() == b"554 5.7.0 This port speaks TLS, from the first byte on\r\n"
    assert "no_tls host=127.0.0.1" in caplog.text


def test_a_client_that_begins_with_tls_where_none_is(
    redis_url: str, files: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with opened(redis_url, **files) as door, pytest.raises(ssl.SSLError):
        smtplib.SMTP_SSL(*door.address, timeout=DEADLINE_S, context=_lenient())
    assert "tls_came host=127.0.0.1" in caplog.text


def test_a_handshake_that_drips_ends(door: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_HANDSHAKE_S", 0.3)
    bare = door.bare()
    bare.socket.settimeout(0.05)
    assert any(has_ended_after(bare, b"\x16") for _ in range(400))


def has_ended_after(bare: Bare, more: bytes) -> bool:
    """Say a little more, and listen for a moment whether that was too much."""
    try:
        bare.say(more)
        return not bare.socket.recv(100)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_it_leaves_over_tls(door: Opened) -> None:
    bare = encrypted(door)
    door.door.stop(DEADLINE_S)
    assert bare.rest() == b"421 4.3.2 Going down, try again later\r\n"


def test_the_end_is_no_cut(door: Opened) -> None:
    sock = socket.create_connection(door.address, DEADLINE_S)
    with trusting().wrap_socket(
        sock, server_hostname="localhost", suppress_ragged_eofs=False
    ) as strict:
        strict.sendall(b"QUIT\r\n")
        heard = b""
        while block := strict.recv(1000):  # raises SSLEOFError without a close_notify
            heard += block
        assert b"221 2.0.0 Bye" in heard


def test_without_a_certificate(files: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"listen_smtps": ("127.0.0.1", 0)}
    with pytest.raises(ConfigError, match=r"smtps door begins with TLS .* set door_cert"):
        listening.open_all(Settings(**settings), {})
    [(_, look)] = plates(Settings(**settings))
    with pytest.raises(ConfigError, match="set door_cert"):
        look()
    [(name, look)] = plates(Settings(**settings, **files))
    assert name == "door smtps: 127.0.0.1:0"
    assert "TLS: from the start, with door_cert" in look()
    assert look()[1].startswith("may send: who logs in: 1 user in ")


def test_both_doors_by_their_names(files: dict[str, Any]) -> None:
    here: Any = ("127.0.0.1", 0)
    settings: dict[str, Any] = {"listen_smtp": here, "listen_smtps": here}
    with listening.opened(Settings(**settings, **files)) as listeners:
        assert set(listeners) == {"smtp", "smtps"}
        told = listening.hand_over(listeners)["GEOMAIL_DOORS"]
        assert told.startswith("smtp:")
        assert ",smtps:" in told
        assert all(isinstance(each, socket.socket) for each in listeners.values())
