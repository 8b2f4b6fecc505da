"""Doors inside `geomail run`, of one worker and of several; and sockets that systemd hands over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection

import pytest

from scenarios.stage import QUICK, Process, Stage, free_port, mail, once_each, until

DEADLINE_S = 20.0
_JSON = {"Content-Type": "application/json"}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S)


def _has_started(parent: Process, times: int) -> bool:
    return parent.stderr.count("started process=1") == times


def send(port: int, document: object) -> dict[str, str]:
    """Send a document and return its answer."""
    with connect(port) as sock:
        sock.sendall(json.dumps(document).encode())
        answer: dict[str, str] = json.loads(sock.makefile().readline())
    return answer


def test_a_run_with_doors_delivers_what_they_take(stage: Stage) -> None:
    port, http = free_port(), free_port()
    host = stage.host()
    flags = ("--tcp", f"127.0.0.1:{port}", "--http", f":{http}")
    worker = stage.worker(*flags, relay=host)
    worker.says("running")
    assert "id" in send(port, mail(1))
    with connect(port) as sock:  # as a client of swoole
        sock.sendall(json.dumps(mail(2)).encode())
    with connect(http) as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b" 200 " in sock.makefile("rb").readline()
    host.has_taken(2)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_an_address_in_use_is_said_before_anything_starts(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for more in ((), ("--processes", "2")):
            flags = ("--relay", "smtp://127.0.0.1:1", "--tcp", address, *more)
            assert "Address already in use" in stage.refusal("run", *flags, status=2)


def test_a_burst_opens_no_door(stage: Stage) -> None:
    port = free_port()
    worker = stage.worker("--burst", "--tcp", f":{port}", relay=stage.host())
    assert worker.wait() == 0
    assert "listening" not in worker.stderr


def test_retirements_lose_no_connection(stage: Stage) -> None:
    port, host = free_port(), stage.host()
    flags = ("--processes", "2", "--max-messages", "100", "--tcp", f"127.0.0.1:{port}")
    parent = stage.worker(*flags, relay=host)
    until(lambda: parent.stderr.count("INFO running") >= 2, "two workers")
    sent: list[str] = []

    def produce(kind: str) -> None:
        for number in range(250):
            name = f"{kind}{number}"
            with connect(port) as sock:
                sock.sendall(json.dumps(mail(name)).encode())
                if kind == "waits":
                    assert "id" in json.loads(sock.makefile().readline())
            sent.append(f"u{name}@example.org")

    producers = [threading.Thread(target=produce, args=(kind,)) for kind in ("waits", "goes")]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(60)
    host.has_taken(500, within_s=60)
    assert parent.stderr.count("retiring") >= 2
    once_each(host.arrivals(), sent)
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0


def test_retirements_reset_no_kept_connection(stage: Stage) -> None:
    port, host = free_port(), stage.host()
    flags = ("--processes", "2", "--max-messages", "100", "--http", f"127.0.0.1:{port}")
    parent = stage.worker(*flags, relay=host)
    until(lambda: parent.stderr.count("INFO running") >= 2, "two workers")
    with ThreadPoolExecutor(4) as pool:
        sent = [
            name for names in pool.map(partial(_post_until_told, port), "abcd") for name in names
        ]
    until(lambda: len(host.arrivals()) == len(sent), "all that was acknowledged")
    once_each(host.arrivals(), sent)
    parent.signal(signal.SIGTERM)
    assert parent.wait() == 0


def _post_until_told(port: int, name: str) -> list[str]:
    """Send mails on a kept connection until the door says that it closes it; return to whom."""
    client = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    sent: list[str] = []
    while True:
        assert time.monotonic() < deadline, "nobody retires"
        one = f"{name}{len(sent)}"
        client.request("POST", "/v1/messages", json.dumps(mail(one)), _JSON)
        response = client.getresponse()  # raises where the connection was reset
        assert "id" in json.loads(response.read())
        sent.append(f"u{one}@example.org")
        if response.will_close:
            return sent
        time.sleep(0.005)


def test_a_killed_worker_leaves_the_door_open(stage: Stage) -> None:
    port, host = free_port(), stage.host()
    parent = stage.worker("--processes", "2", "--tcp", f"127.0.0.1:{port}", relay=host)
    until(lambda: parent.stderr.count("INFO running") >= 2, "two workers")
    acknowledged: set[str] = set()
    for number in range(3):
        found = [line for line in parent.stderr.splitlines() if "started process=1" in line]
        os.kill(int(found[-1].rpartition("pid=")[2]), signal.SIGKILL)
        for each in range(20):
            _send_until_answered(port, f"{number}.{each}")
            acknowledged.add(f"u{number}.{each}@example.org")
        until(partial(_has_started, parent, number + 2))
    until(lambda: acknowledged <= host.arrivals().keys(), "all that was acknowledged")


def _send_until_answered(port: int, name: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < deadline
        with suppress(ConnectionError, ValueError):  # the one that died had accepted it
            assert "id" in send(port, mail(name))
            return


@pytest.mark.parametrize(
    "words",
    [
        ["listen"],
        ["run", "--relay", "smtp://127.0.0.1:1"],
        ["run", "--relay", "smtp://127.0.0.1:1", "--processes", "2"],
    ],
)
def test_systemd_hands_over_a_socket(stage: Stage, words: list[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        # As systemd starts it: the socket is descriptor 3, and LISTEN_PID is who is started.
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] ="
            " str(os.getpid()); os.execvp(sys.argv[2], sys.argv[2:])"
        )
        env = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
        given = {"redis": stage.server.url, "data": stage.folder / "data", **QUICK}
        env |= {f"GEOMAIL_{name.upper()}": str(value) for name, value in given.items()}
        env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "tcp"}
        fd = listener.fileno()
        command = [sys.executable, "-c", code, str(fd), sys.executable, "-m", "geomail", *words]
        door = subprocess.Popen(
            command, pass_fds=[fd, 3], env=env, cwd=stage.folder, stderr=subprocess.PIPE
        )
        try:
            assert "id" in send(listener.getsockname()[1], mail(1))
        finally:
            door.terminate()
            _, said = door.communicate(timeout=DEADLINE_S)
        assert door.returncode == 0
        assert b"listening door=tcp" in said
