"""Every state in which Redis may leave a connection: work goes on by itself, and nothing twice."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_servers import RedisServer, free_ports, until
from traffic import Traffic

from geomail.queue import Done, Link, Queue, Slot

pytest_plugins = ("queue_fixtures",)
Raw = Any
JOBS = 500


def _break_scripts(raw: Raw) -> None:
    raw.script_flush()


def _hang_up(raw: Raw) -> None:
    raw.client_kill_filter(_type="normal", skipme=True)


def _unblock_with_error(raw: Raw) -> None:
    for client in raw.client_list():
        if "b" in client["flags"]:
            raw.client_unblock(int(client["id"]), error=True)


def _demote_and_promote(raw: Raw) -> None:
    raw.replicaof("127.0.0.1", free_ports(1)[0])
    raw.replicaof("no", "one")


def _demote_to_silence(raw: Raw) -> None:
    raw.config_set("replica-serve-stale-data", "no")
    _demote_and_promote(raw)
    raw.config_set("replica-serve-stale-data", "yes")


def _fill(raw: Raw) -> None:
    raw.config_set("maxmemory", "1mb")
    raw.config_set("maxmemory", "0")


def _pause(raw: Raw) -> None:
    raw.client_pause(50)


def _want_replicas(raw: Raw) -> None:
    raw.config_set("min-replicas-to-write", "1")
    time.sleep(0.02)
    raw.config_set("min-replicas-to-write", "0")


TROUBLE: dict[str, Callable[[Raw], None]] = {
    "NOSCRIPT": _break_scripts,
    "closed": _hang_up,
    "UNBLOCKED": _unblock_with_error,
    "READONLY": _demote_and_promote,
    "MASTERDOWN": _demote_to_silence,
    "OOM": _fill,
    "pause": _pause,
    "NOREPLICAS": _want_replicas,
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_under_load(raw: Raw, server: RedisServer, trouble: str) -> None:
    queue = Queue(Link(server.url))
    queue.register()
    traffic = Traffic(queue)
    for part in range(5):
        queue.push([b"%d" % number for number in range(part * JOBS // 5, (part + 1) * JOBS // 5)])
        TROUBLE[trouble](raw)
    until(lambda: len(traffic.settled) == JOBS)
    traffic.end()
    assert sum(traffic.settled.values()) == JOBS
    assert traffic.longest_stall_s < 2
    assert queue.counts().stats["delivered"] == JOBS
    assert queue.leave()
    queue.close()


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_while_idle(raw: Raw, server: RedisServer, trouble: str) -> None:
    queue = Queue(Link(server.url))
    queue.register()
    traffic = Traffic(queue)
    until(lambda: raw.info("clients")["blocked_clients"] == 1)
    TROUBLE[trouble](raw)
    raw.lpush("queue:email", "a")
    assert until(lambda: traffic.settled) < 2
    traffic.end()
    queue.close()


def test_server_that_stays_a_replica_for_a_while(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    raw: Raw = own_server.raw
    queue = Queue(Link(own_server.url))
    queue.register()
    queue.push([b"a"])
    slot = queue.take(1).slots[0]
    raw.replicaof("127.0.0.1", free_ports(1)[0])
    threading.Timer(0.3, lambda: raw.replicaof("no", "one")).start()
    queue.settle([Done(slot)])
    assert queue.counts().in_flight == 0
    assert "READONLY" in caplog.text
    queue.close()


def test_server_that_is_loading(own_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue(Link(own_server.url))
    queue.register()
    queue.push([b"a"])
    slot = queue.take(1).slots[0]
    raw: Raw = own_server.raw
    raw.mset({f"key{number}": "x" * 100 for number in range(1000)})
    raw.bgrewriteaof()
    until(lambda: raw.info("persistence")["aof_rewrite_in_progress"] == 0)
    own_server.kill()
    # A millisecond for each key; about each ten it answers, that it is loading.
    own_server.options = ("--key-load-delay", "1000")
    own_server.options += ("--loading-process-events-interval-bytes", "1024")
    thread = threading.Thread(target=own_server.start)
    thread.start()
    until(lambda: _is_loading(own_server))
    queue.settle([Done(slot)])
    thread.join()
    assert queue.counts().in_flight == 0
    assert "LOADING" in caplog.text
    queue.close()


def _is_loading(server: RedisServer) -> bool:
    raw = redis.Redis(unix_socket_path=f"{server.folder}/redis.sock", retry=Retry(NoBackoff(), 0))
    try:
        return not raw.ping()
    except redis.BusyLoadingError:
        return True
    finally:
        raw.close()


class Swamp:
    """A proxy whose lines can sink: they stay open, and nothing comes through any more."""

    def __init__(self, path: Path, server: str) -> None:
        self.url, self._server, self._sunk = f"unix://{path}", server, 0
        self._count = 0
        self._lines: list[socket.socket] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def sink(self) -> None:
        """Let nothing through on the lines that there are; new ones are well."""
        self._sunk = self._count

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        for line in self._lines:
            with suppress(OSError):  # it has ended by itself
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._door.accept()
            except OSError:
                return
            self._count += 1
            self._lines.append(line)
            thread = threading.Thread(target=self._pump, args=(line, self._count))
            self._threads.append(thread)
            thread.start()

    def _pump(self, line: socket.socket, number: int) -> None:
        with line, socket.socket(socket.AF_UNIX) as behind:
            behind.connect(self._server)
            while True:
                ready, _, _ = select.select([line, behind], [], [])
                data = ready[0].recv(1 << 20)
                if not data:
                    return
                if number > self._sunk:
                    (behind if ready[0] is line else line).sendall(data)


@pytest.fixture
def swamp(server: RedisServer, raw: Raw, tmp_path: Path) -> Iterator[Swamp]:
    proxy = Swamp(tmp_path / "proxy.sock", f"{server.folder}/redis.sock")
    yield proxy
    proxy.close()


def test_half_open_lines(swamp: Swamp, raw: Raw) -> None:
    queue = Queue(Link(swamp.url, reply_timeout_s=0.2))
    queue.register()
    queue.push([b"a", b"b", b"c"])
    queue.settle([Done(queue.take(1).slots[0])])
    slots: list[Slot] = []
    for call in (
        lambda: slots.extend(queue.take(9).slots),
        lambda: queue.settle([Done(slot) for slot in slots]),
        queue.beat,
        queue.counts,
    ):
        swamp.sink()
        started = time.monotonic()
        call()
        assert 0.15 < time.monotonic() - started < 1.5
    assert raw.hget("{queue:email}:stats", "taken") == b"3"
    assert raw.hget("{queue:email}:stats", "delivered") == b"3"
    queue.close()


def test_half_open_line_with_a_wait_pending(swamp: Swamp, raw: Raw) -> None:
    queue = Queue(Link(swamp.url, reply_timeout_s=0.2))
    queue.register()
    traffic = Traffic(queue)
    until(lambda: raw.info("clients")["blocked_clients"] == 1)
    swamp.sink()
    raw.lpush("queue:email", "a")
    # The wait ends by itself a reply's time after its own: 1 + 0.2 s here, 5 + 5 s in a worker.
    assert until(lambda: traffic.settled) < 2.5
    traffic.end()
    queue.close()
