"""What many tests need: a Redis of their own, and programs that may be missing.

The tests run with gevent's patches (`-p geomail.__main__` in setup.cfg), as geomail does. A program
that is not installed skips a test on a laptop and fails it in CI.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from geomail.queue import embedded

# What is tested is what comes out, not how long a busy machine takes for it.
hypothesis.settings.register_profile("geomail", deadline=None, print_blob=True)
hypothesis.settings.load_profile("geomail")

NeedsProgram = Callable[[str], str]

# Where .ci/run unpacks servers whose packages exclude each other.
PEERS = Path(__file__).parents[1] / ".ci/peers"


def _is_missing(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what}, and has to be in CI")


@pytest.fixture(scope="session")
def needs_program() -> NeedsProgram:
    """Give a function that returns a program's path; without the program the test is skipped."""

    def find(name: str) -> str:
        folders = [*PEERS.glob("*/usr/sbin"), os.environ.get("PATH", os.defpath), "/usr/sbin:/sbin"]
        found = shutil.which(name, path=":".join(map(str, folders)))
        return found or _is_missing(f"{name} is not installed")

    return find


@pytest.fixture(scope="session")
def php(needs_program: NeedsProgram) -> str:
    """Give the path of a PHP that has phpredis; without one the test is skipped."""
    found = needs_program("php")
    modules = subprocess.run([found, "-m"], capture_output=True, check=True, timeout=30).stdout
    return found if b"redis" in modules.split() else _is_missing("phpredis is not installed")


@pytest.fixture(scope="session")
def needs_root() -> None:
    """Skip the test without root, which a server that drops it wants."""
    if os.geteuid() != 0:
        _is_missing("root is not here")


@pytest.fixture(scope="session")
def needs_mounts(needs_root: None) -> None:
    """Skip the test where root may not make a mount namespace."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        _is_missing("a mount namespace can't be made here (unshare --mount)")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """Run one append-only Redis on a free port for all tests."""
    with embedded.start_private(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: embedded.Server) -> str:
    """Give the URL of that Redis, empty."""
    with socket.create_connection(("127.0.0.1", redis_server.port), 5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    return redis_server.url


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Work in an empty folder, without any setting from outside; give the folder."""
    for name in [name for name in os.environ if name.startswith("GEOMAIL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("GEOMAIL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
