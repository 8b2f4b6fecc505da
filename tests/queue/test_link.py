"""What goes wrong between us and Redis: restarts, lost replies, refusals, full memory."""

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import RedisServer, dump, find_binary

from geomail.errors import ConfigError, RedisUnusable
from geomail.queue import FRESH, Dead, Done, Link, Park, Part, Queue, Release, Retry, Split
from geomail.queue.keys import Keys

pytest_plugins = ("queue_fixtures",)
Raw = Any


@pytest.fixture
def own_queue(own_server: RedisServer) -> Iterator[Queue]:
    queue = Queue(Link(own_server.url))
    queue.register()
    yield queue
    queue.close()


class Cutter:
    """A proxy that lets a request through and cuts the line instead of passing on the reply."""

    def __init__(self, path: Path, server: str) -> None:
        self.url, self.cuts, self._server = f"unix://{path}", 0, server
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._pump, args=(line,), daemon=True).start()

    def _pump(self, line: socket.socket) -> None:
        with line, socket.socket(socket.AF_UNIX) as behind:
            behind.connect(self._server)
            while True:
                ready, _, _ = select.select([line, behind], [], [])
                data = ready[0].recv(1 << 20)
                if not data:
                    return
                if ready[0] is behind and self.cuts > 0:
                    self.cuts -= 1
                    return
                (behind if ready[0] is line else line).sendall(data)


@pytest.fixture
def cutter(server: RedisServer, raw: Raw, tmp_path: Path) -> Iterator[Cutter]:
    proxy = Cutter(tmp_path / "proxy.sock", f"{server.folder}/redis.sock")
    yield proxy
    proxy.close()


def test_lost_replies_lose_nothing_and_take_nothing_twice(cutter: Cutter, raw: Raw) -> None:
    queue = Queue(Link(cutter.url))
    queue.register()
    queue.push([b"%d" % number for number in range(8)])
    cutter.cuts = 2
    first = queue.take(5)
    assert [slot.payload for slot in first.slots] == [b"0", b"1", b"2", b"3", b"4"]
    cutter.cuts = 2
    parts = queue.settle(
        [
            Done(first.slots[0]),
            Retry(first.slots[1], 0, FRESH),
            Release(first.slots[2], FRESH),
            Park([first.slots[3]], "r", 0, FRESH),
            Split(first.slots[4], [Part(FRESH), Part(FRESH, "dead"), Part(FRESH)]),
        ]
    )
    assert [(part.id, part.index) for part in parts] == [
        (f"{first.slots[4].id}/1", 5),
        (f"{first.slots[4].id}/3", 6),
    ]
    cutter.cuts = 1
    assert queue.beat()
    cutter.cuts = 1
    queue.settle([Done(part) for part in parts])
    cutter.cuts = 1
    assert queue.dead_drop(every=True) == 1
    rest = queue.take(9).slots + queue.take(9, route="r").slots
    assert sorted(slot.payload for slot in rest) == [b"1", b"2", b"3", b"5", b"6", b"7"]
    queue.settle([Done(slot) for slot in rest])
    assert dump(raw) == {f"open:{queue.worker}": {b"last": b"3"}}
    assert queue.counts().stats["delivered"] == 9
    queue.close()


def test_lost_reply_of_a_wait(cutter: Cutter) -> None:
    queue = Queue(Link(cutter.url))
    queue.register()
    queue.push([b"a"])
    cutter.cuts = 1
    queue.wait(0.2)
    assert [slot.payload for slot in queue.take(1).slots] == [b"a"]
    queue.close()


def test_scripts_are_loaded_again(queue: Queue, raw: Raw) -> None:
    queue.push([b"a"])
    raw.script_flush()
    slot = queue.take(1).slots[0]
    raw.script_flush()
    queue.settle([Done(slot)])
    raw.script_flush()
    assert queue.beat()


def test_restart_of_redis_in_between(
    own_server: RedisServer, own_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "geomail")
    own_queue.push([b"a", b"b"])
    slots = own_queue.take(2).slots
    own_server.raw.config_set("appendfsync", "always")
    own_queue.settle([Done(slots[0])])
    own_server.kill()
    starter = threading.Timer(0.2, own_server.start)
    starter.start()
    own_queue.settle([Done(slots[1])])
    starter.join()
    assert own_queue.beat()
    own_queue.wait(0.01)
    own_queue.push([b"c"])
    assert [slot.payload for slot in own_queue.take(1).slots] == [b"c"]
    text = caplog.text
    assert "redis_away" in text
    assert "redis_back" in text


def test_full_memory_can_still_be_drained(own_server: RedisServer, own_queue: Queue) -> None:
    own_queue.push([b"x" * 1000] * 200 + [b"", b"odd"])
    own_server.raw.config_set("maxmemory", "1mb")
    with pytest.raises(Exception, match="maxmemory"):
        own_server.raw.lpush("other", "x")
    own_queue.wait(0.05)
    taken = 0
    while slots := own_queue.take(20).slots:
        assert own_queue.beat()
        taken += len(slots)
        own_queue.settle([Done(slot) for slot in slots[3:]])
        own_queue.settle([Dead(slots[0], FRESH), Park([slots[1]], "r", 9, FRESH)])
    assert taken == 202
    other = Queue(Link(own_server.url))
    other.register()
    assert other.reap([own_queue.worker]) == 10
    assert other.dead_retry(every=True) == 11
    assert len(other.take(99).slots) == 21
    other.close()


def test_server_that_wants_a_password(tmp_path: Path) -> None:
    server = RedisServer(find_binary("7"), tmp_path, "--requirepass", "secret")
    try:
        with pytest.raises(RedisUnusable, match="wants a password"):
            Link(server.url).probe()
        with pytest.raises(RedisUnusable, match="password are wrong") as caught:
            Link(f"unix://:wr0ng@{tmp_path}/redis.sock").probe()
        assert "wr0ng" not in str(caught.value)
        Link(f"unix://:secret@{tmp_path}/redis.sock").probe()
    finally:
        server.kill()


def test_user_without_the_right_to_run_scripts(own_server: RedisServer) -> None:
    raw: Raw = own_server.raw
    raw.execute_command("ACL", "SETUSER", "weak", "on", ">pass", "~*", "+@all", "-@scripting")
    raw.execute_command("ACL", "SETUSER", "keys", "on", ">pass", "~other", "+@all")
    link = Link(f"unix://weak:pass@{own_server.folder}/redis.sock")
    with pytest.raises(RedisUnusable, match="user may not do that"):
        link.probe()
    link = Link(f"unix://keys:pass@{own_server.folder}/redis.sock")
    link.probe()
    with pytest.raises(RedisUnusable, match="user may not do that"):
        Queue(link).register()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis://:hid/den@localhost:6379",
        "redis://localhost:hidden",
        "redis://localhost/hidden",
        "redis://localhost?hidden=1",
        "redis://localhost?socket_timeout=hidden",
        "unix://",
        "localhost:6379",
    ],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(RedisUnusable, match="expected redis://") as caught:
        Link(url)
    assert "hid" not in str(caught.value)


def test_something_else_answers() -> None:
    door = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        line, _ = door.accept()
        with line:
            line.recv(100)
            line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=greet)
    thread.start()
    with pytest.raises(RedisUnusable, match="is no Redis"):
        Link(f"redis://127.0.0.1:{door.getsockname()[1]}").probe()
    thread.join()
    door.close()


def test_probe_warns_of_a_redis_that_forgets(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    Link(own_server.url).probe()
    assert caplog.text == ""
    own_server.raw.config_set("maxmemory-policy", "allkeys-lru")
    own_server.raw.config_set("appendonly", "no")
    Link(own_server.url).probe(warns=False)
    assert caplog.text == ""
    Link(own_server.url).probe()
    assert "redis_may_drop_mail" in caplog.text
    assert "redis_keeps_nothing" in caplog.text


def test_probe_waits_for_a_redis_that_is_not_there_yet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(find_binary("7"), tmp_path)
    server.kill()
    starter = threading.Timer(0.2, server.start)
    starter.start()
    Link(server.url).probe()
    starter.join()
    server.kill()
    assert "redis_away" in caplog.text


def test_wait_ends_with_a_push_and_with_wake(queue: Queue) -> None:
    for act in (lambda: queue.push([b"a"]), queue.wake):
        timer = threading.Timer(0.05, act)
        started = time.monotonic()
        timer.start()
        queue.wait(20)
        timer.join()
        assert time.monotonic() - started < 10
    assert [slot.payload for slot in queue.take(1).slots] == [b"a"]


def test_wait_ends_by_itself(queue: Queue) -> None:
    started = time.monotonic()
    queue.wait(0.02)
    assert time.monotonic() - started < 2


def test_names_of_keys() -> None:
    assert Keys("queue:email").jobs == b"{queue:email}:jobs"
    assert Keys("{mail}:out").jobs == b"{mail}:out:jobs"
    assert Keys("queue:email").park("a:b") == b"{queue:email}:park:a:b"


@pytest.mark.parametrize("name", ["", "a}b", "{}a"])
def test_names_that_a_cluster_would_tear_apart(name: str) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        Keys(name)
