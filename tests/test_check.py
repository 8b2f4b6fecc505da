"""`geomail check` as people meet it: what fails, what to try, and nothing that a terminal obeys."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import trustme
from test_cli import NOWHERE, geomail


@pytest.fixture
def folder(clean_environment: Path) -> Path:
    return clean_environment


def test_check_says_what_fails(folder: Path, redis_url: str) -> None:
    ended = geomail("check", "--redis", redis_url, "--relay", "smtp://127.0.0.1:1")
    assert ended.status == 1
    assert "queue:email: 0 waiting" in ended.out
    assert "relay default: smtp://127.0.0.1:1\n  FAILED: " in ended.out
    assert geomail("check", "--redis", NOWHERE).status == 1


@pytest.mark.usefixtures("folder")
def test_check_says_whose_answer_it_waits_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "geomail", "check", "--redis", NOWHERE, "--relay", relay]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as checks:
            assert checks.stdout
            said = [checks.stdout.readline() for _ in range(3)]
            is_waiting = checks.poll() is None
            checks.kill()
    assert said[0] == "Redis\n"
    assert (said[2], is_waiting) == (f"relay default: {relay}\n", True)


def test_check_writes_nothing_that_a_terminal_would_obey(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        host = Thread(target=_greet_with_colours, args=(listening,))
        host.start()
        port = listening.getsockname()[1]
        ended = geomail("check", "--redis", NOWHERE, "--relay", f"smtp://127.0.0.1:{port}")
        host.join(20)
    assert "  greeting: 220 mx \\x1b[2J\\x07hello\n" in ended.out
    assert "  announces: X-\\x1b[31M grün \\u202e\n" in ended.out
    assert "\x1b" not in ended.out


def test_check_shows_the_routes_and_tries_each_relay(folder: Path) -> None:
    entries = "".join(
        f"[[route]]\n{entry}\nrelay = 'east'\n"
        for entry in ("recipient = '*.e.example'", "sender = ['a', 'b', 'c', 'd', 'e', 'f']")
    )
    east = "[relay.east]\nurl = ['smtp://127.0.0.1:1', 'smtp://127.0.0.1:2']\nweights = [1, 0]\n"
    (folder / "geomail.toml").write_text(entries + east)
    ended = geomail("check", "--redis", NOWHERE)
    for port in (1, 2):
        assert f"relay east: smtp://127.0.0.1:{port}\n  FAILED: " in ended.out
    assert ended.out.endswith(
        "routes\n"
        "  1. to *.e.example: relay east\n"
        "  2. from a, b, c, d, e and 1 more: relay east\n"
        "  all other mail: dead, for no relay is named default\n"
    )


def test_check_shows_what_may_be_called(folder: Path) -> None:
    (folder / "shop.py").write_text(
        "import geomail\n@geomail.task\nclass Task:\n    def _task_mail(self, params): pass\n"
    )
    (folder / "geomail.toml").write_text("tasks = ['shop']\n[task.it]\ncommand = ['true', '1']\n")
    ended = geomail("check", "--redis", NOWHERE)
    assert ended.out.endswith("calls\n  it: true 1\n  Task.mail: Python\n")
    (folder / "shop.py").write_text("import nothing_like_it\n")
    ended = geomail("check", "--redis", NOWHERE)
    assert ended.status == 1
    assert "calls\n  FAILED: tasks = ['shop']: can't import shop: ModuleNotFoundError" in ended.out


def test_check_shows_where_requests_may_go(folder: Path) -> None:
    allowed = "url_hosts = ['a.example', '*.b.example']\nurl_networks = ['10.0.0.0/8']\n"
    (folder / "geomail.toml").write_text(allowed)
    ended = geomail("check", "--redis", NOWHERE)
    assert ended.out.endswith(
        "relays\n"
        "  none: only tasks are done\n"
        "requests\n"
        "  hosts: a.example, *.b.example\n"
        "  networks that are not public: 10.0.0.0/8\n"
        "  callbacks: unsigned: set callback_secret\n"
    )


def test_a_route_to_nowhere_is_said_before_anything_runs(folder: Path) -> None:
    text = "[relay.east]\nurl = 'smtp://127.0.0.1:1'\n[[route]]\nrecipient = 'a.example'\nrelay = "
    (folder / "geomail.toml").write_text(f"{text}'esat'")
    ended = geomail("run", "--redis", NOWHERE)
    assert ended.status == 2
    assert ended.err == (
        "geomail: relay of [[route]] 1 in geomail.toml: no relay is named 'esat':"
        " did you mean east?\n"
    )


def _greet_with_colours(listening: socket.socket) -> None:
    connection, _address = listening.accept()
    with connection, connection.makefile("rb") as commands:
        connection.sendall(b"220 mx \x1b[2J\x07hello\r\n")
        for reply in ("250-mx\r\n250 X-\x1b[31m grün \u202e\r\n", "221 bye\r\n"):
            commands.readline()
            connection.sendall(reply.encode())


def test_check_says_what_to_try(folder: Path) -> None:
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path("cert.pem")
    (folder / "geomail.toml").write_text("greeting_s = 1\n")
    unverified = '[relay.default]\nurl = "smtp+starttls://ann@{}"\nverify = false\npassword = "x"\n'
    (folder / "logins").write_text("ann:x\n")

    def check(*argv: str) -> str:
        return geomail("check", "--redis", NOWHERE, *argv).out

    with sink() as host:
        assert "try: smtps:// on port 465;" in check("--relay", f"smtp+starttls://{host}")
    with sink("--cert", "cert.pem") as host:
        said = check("--relay", f"smtp+starttls://{host}")
        assert '  try: ca_file = "FILE" in [relay.NAME]' in said
        (folder / "no-login.toml").write_text(unverified.format(host))
        assert "a URL without USER@: here nobody" in check("--config", "no-login.toml")
    with sink("--cert", "cert.pem", "--implicit-tls") as host:
        assert "  try: smtps://, if that port" in check("--relay", f"smtp://{host}")
        assert "try: ca_file" in geomail("check", "--relay", f"smtps://{host}").out


@contextmanager
def sink(*argv: str) -> Iterator[str]:
    command = [sys.executable, "-m", "geomail", "sink", "--listen", "127.0.0.1:0", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


def test_check_looks_at_the_doors(folder: Path) -> None:
    queues = "queue = ['urgent=8', 'bulk']\n"
    doors = "listen_tcp = '{}'\nlisten_smtp = '127.0.0.1:0'\ndoor_logins = 'logins'\n"
    (folder / "logins").write_text("ann:secret\nbo:secret\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (folder / "geomail.toml").write_text(queues + doors.format(address))
        said = geomail("check", "--redis", NOWHERE).out
    assert said.endswith(
        f"door tcp: {address}\n"
        "  address: in use, as it is while geomail runs\n"
        "  may send: programs on this machine\n"
        "  jobs go to: urgent\n"
        "  TLS: no\n"
        "door smtp: 127.0.0.1:0\n"
        "  address: free\n"
        "  may send: who logs in: 2 users in logins\n"
        "  jobs go to: urgent\n"
        "  TLS: no\n"
    )


def test_check_finds_what_keeps_a_door_shut(folder: Path) -> None:
    doors = "listen_http = '{}'\nlisten_smtp = '127.0.0.1:0'\n{} = 'nowhere'\n"
    (folder / "geomail.toml").write_text(doors.format("192.0.2.1:8025", "door_logins"))
    ended = geomail("check", "--redis", NOWHERE)
    assert ended.status == 1
    assert "FAILED: the http door can't listen on 192.0.2.1:8025: Cannot assign" in ended.out
    assert "FAILED: can't read logins from nowhere" in ended.out
    (folder / "geomail.toml").write_text(doors.format("0.0.0.0:0", "door_cert"))
    assert "FAILED: door_cert: nowhere is no PEM file" in geomail("check", "--redis", NOWHERE).out
    (folder / "geomail.toml").write_text("listen_http = '0.0.0.0:0'\n")
    said = geomail("check", "--redis", NOWHERE).out
    assert "may send: anybody who reaches it: set door_token, or listen on 127.0.0.1" in said
