"""Ctrl-C, SIGTERM and readers who leave, at any instant of a command: no traceback, ever."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("clean_environment", "heeded_ctrl_c")

# Runs geomail with these arguments, and signals itself when a module is about to be imported.
_DURING = """
import os, runpy, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == WHEN:
            os.kill(os.getpid(), NUMBER)
            for _ in range(1000): pass
sys.meta_path.insert(0, Finder)
sys.argv[0] = "geomail"
runpy.run_module("geomail", run_name="__main__", alter_sys=True)
"""
_NOWHERE = ("--redis", "redis://127.0.0.1:1")
_COMMANDS = {
    "status": _NOWHERE,
    "hosts": _NOWHERE,
    "dead": ("list", *_NOWHERE),
    "send": ("--to", "a@example.org", *_NOWHERE),
    "run": ("--relay", "smtp://127.0.0.1:1", *_NOWHERE),
    "listen": ("--tcp", "127.0.0.1:0", *_NOWHERE),
    "sink": ("--listen", "127.0.0.1:0"),
    "demo": ("--count", "10"),
}


@pytest.fixture
def heeded_ctrl_c() -> Iterator[None]:
    """Let children obey Ctrl-C: those of a background job of a shell would inherit to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def during(module: str, number: signal.Signals, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command that gets a signal when `module` is imported."""
    code = _DURING.replace("WHEN", repr(module)).replace("NUMBER", str(int(number)))
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("module", ["gevent", "geomail.cli"])
def test_interrupted_while_it_imports(command: str, module: str) -> None:
    ended = during(module, signal.SIGINT, command, *_COMMANDS[command])
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, b"")
    assert ended.stderr == b"geomail: interrupted\n"


@pytest.mark.parametrize(
    ("argv", "module"),
    [
        (["--help"], "geomail.cli"),
        (["run", "--processes", "2", "--relay", "smtp://h"], "geomail.supervisor"),
        (["run", "--relay", "smtp://h"], "geomail.worker.life"),
        (["status", *_NOWHERE], "redis.connection"),
        (["check", *_NOWHERE], "geomail.delivery.session.announce"),
        (["sink", "--listen", "127.0.0.1:0"], "geomail.sink.serving"),
        (["demo"], "geomail.demo.tour"),
    ],
)
def test_interrupted_while_a_command_imports(argv: list[str], module: str) -> None:
    ended = during(module, signal.SIGINT, *argv)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"geomail: interrupted\n")


def test_terminated_while_it_imports() -> None:
    ended = during("geomail.cli", signal.SIGTERM, "status", *_NOWHERE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, b"", b"")


def test_in_the_background_ctrl_c_is_for_others() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = during("geomail.cli", signal.SIGINT, "status", *_NOWHERE)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"geomail: no Redis answers at ")


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("argv", [["--help"], ["demo", "--count", "0"], ["hold"]])
def test_nobody_reads(argv: list[str], stream: int) -> None:
    read, write = os.pipe()
    os.close(read)
    said = dict.fromkeys((1, 2), subprocess.PIPE) | {stream: write}
    command = [sys.executable, "-m", "geomail", *argv]
    with subprocess.Popen(command, stdout=said[1], stderr=said[2]) as process:
        os.close(write)
        out, err = process.communicate(timeout=30)
    assert b"Traceback" not in (out or b"") + (err or b"")
    assert b"Exception" not in (err or b"")
    assert process.returncode == (2 if argv != ["--help"] else 1 if stream == 1 else 0)


@pytest.mark.parametrize("closing", ["<&- >&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_from_the_start(closing: str, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    command = f"{sys.executable} -m geomail status {' '.join(_NOWHERE)} 2>{errors} {closing}"
    assert subprocess.run(["sh", "-c", command], timeout=30, check=False).returncode == 1
    if "2>&-" not in closing:
        assert errors.read_text().startswith("geomail: no Redis answers at ")
    shown = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m geomail --help {closing} 2>{errors}"],
        timeout=30,
        check=False,
    )
    assert (shown.returncode, errors.read_text()) == (0, "")
