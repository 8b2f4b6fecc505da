"""`geomail listen`: doors in a process of their own."""

import json
import signal
import socket

from scenarios.stage import Process, Stage, free_port, mail, until

DEADLINE_S = 20.0


def listener(stage: Stage, *flags: str, **settings: object) -> tuple[Process, int]:
    """Start a TCP door on a free port, and wait until it is open."""
    port = free_port()
    process = stage.geomail("listen", "--tcp", f"127.0.0.1:{port}", *flags, **settings)
    process.says("listening door=tcp")
    return process, port


def send(port: int, document: object) -> dict[str, str]:
    """Send a document and return its answer."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
        sock.sendall(json.dumps(document).encode())
        heard = sock.makefile().readline()
    answer: dict[str, str] = json.loads(heard)
    return answer


def test_what_a_door_takes_is_delivered(stage: Stage) -> None:
    door, port = listener(stage)
    host = stage.host()
    stage.worker(relay=host)
    answer = send(port, mail(1))
    host.has_taken(1)
    until(lambda: stage.queue.outcome(answer["id"]) is not None)
    until(lambda: stage.queue.outcome(answer["id"])["outcome"] == "delivered")  # type: ignore[index]
    door.signal(signal.SIGTERM)
    assert door.wait() == 0


def test_it_leaves_when_it_has_answered(stage: Stage) -> None:
    door, port = listener(stage)
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
        sock.sendall(json.dumps(mail(1)).encode() + b'{"to":')
        lines = sock.makefile()
        assert "id" in json.loads(lines.readline())
        door.signal(signal.SIGTERM)
        assert "no end" in json.loads(lines.readline())["error"]
        assert lines.readline() == ""
    assert door.wait() == 0


def test_it_waits_for_redis_with_its_sockets_open(stage: Stage) -> None:
    port = stage.server.port
    stage.server.kill()
    door_port = free_port()
    door = stage.geomail("listen", "--tcp", f"127.0.0.1:{door_port}")
    door.says("redis_away")
    with socket.create_connection(("127.0.0.1", door_port), DEADLINE_S) as sock:
        sock.sendall(json.dumps(mail(1)).encode())
        stage.restart_redis()
        assert port == stage.server.port
        assert "id" in json.loads(sock.makefile().readline())
    assert stage.counts().waiting == 1


def test_what_can_not_be_is_one_line(stage: Stage) -> None:
    assert "listen on what? pass --tcp" in stage.refusal("listen", status=2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = stage.refusal("listen", "--tcp", address, status=2)
        assert f"the tcp door can't listen on {address}: Address already in use" in said
    said = stage.refusal("listen", "--tcp", "0", "--http", "192.0.2.1:1", status=2)
    assert "the http door can't listen on 192.0.2.1:1" in said
    said = stage.refusal("listen", "--tcp", "0", status=2, door_cert="/nowhere.pem")
    assert "door_cert: /nowhere.pem is no PEM file" in said


def test_a_public_address_is_warned_of(stage: Stage) -> None:
    door = stage.geomail("listen", "--tcp", "0.0.0.0:0")
    door.says("open_door door=tcp")
    door.says("set door_token, or listen on 127.0.0.1")
