"""A mail is on its way at once, whichever way it came in: an idle worker wakes for it."""

import json
import socket
import statistics
import time

import pytest

import geomail
from scenarios.producers import run
from scenarios.stage import Host, Stage, free_port

COUNT = 15
PAUSE_S = 0.02
LATE_S = 0.25  # where nothing else runs it is 0.002 (bench/producers.py); without a wake up to 5
MAIL = {"from": "news@example.com", "to": "ann@example.org", "text": "t"}


def test_by_phpredis(stage: Stage, php: str) -> None:
    host = idle(stage)
    pushed = run(php, "mixphp.php", stage.server.port, "serialize", COUNT, int(PAUSE_S * 1e6))
    is_quick(host, [float(at) for at in pushed.split()])


def test_by_the_client(stage: Stage) -> None:
    host = idle(stage)
    with geomail.Client(stage.server.url) as client:
        pushed = []
        for _ in range(COUNT):
            pushed.append(time.time())
            client.send_many([MAIL])
            time.sleep(PAUSE_S)
    is_quick(host, pushed)


@pytest.mark.parametrize("is_apart", [False, True])
def test_by_tcp(stage: Stage, is_apart: bool) -> None:
    port = free_port()
    door = ("--tcp", f"127.0.0.1:{port}")
    host = idle(stage, *(() if is_apart else door))
    if is_apart:
        stage.geomail("listen", *door).says("listening")
    pushed = []
    for _ in range(COUNT):
        pushed.append(time.time())
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(json.dumps(MAIL).encode())
        time.sleep(PAUSE_S)
    is_quick(host, pushed)


def idle(stage: Stage, *flags: str) -> Host:
    """Start a worker that has nothing to do, and a connection; return its host."""
    host = stage.host()
    stage.worker(*flags, relay=host, idle_s=60)
    stage.push([MAIL])
    host.has_taken(1)
    return host


def is_quick(host: Host, pushed: list[float]) -> None:
    """Check how long the mails took that were pushed at these times, one after the other."""
    host.has_taken(1 + COUNT)
    arrived = sorted(mail.at for mail in host.look())[1:]
    took_s = [at - before for at, before in zip(arrived, pushed, strict=True)]
    assert statistics.median(took_s) < LATE_S, took_s
