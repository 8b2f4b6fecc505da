"""The others: programs that send mail, each tuned as its documentation advises.

Each is a program of this folder that keeps CONNECTIONS connections busy for WARM + TIMED seconds
and never waits to be given work: PORT CONNECTIONS WARM_S TIMED_S on its command line, the finished
message on its standard input. It composes nothing and settles nothing. Its last line is what it did
in the TIMED seconds, and in all, as JSON. What it needs is installed here, into a folder of the
user's cache, and not into the environment that geomail runs in.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import stand

_HERE = Path(__file__).parent
_PATIENCE_S = 60.0


class Missing(Exception):
    """A peer can't be run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them: its name and version, how it is used, and how it is started."""

    name: str
    use: str
    command: Sequence[str]
    environ: dict[str, str]

    def run(
        self, port: int, content: bytes, *, connections: int, warm_s: float, timed_s: float
    ) -> tuple[stand.Run, int]:
        """Let it send, on the worker's core; return what it did, and how many it sent in all."""
        numbers = [str(number) for number in (port, connections, warm_s, timed_s)]
        done = subprocess.run(
            [*self.command, *numbers],
            input=content,
            capture_output=True,
            env=os.environ | self.environ,
            preexec_fn=stand.on_core(stand.WORKERS_CORE),
            timeout=warm_s + timed_s + _PATIENCE_S,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SystemExit(f"{self.name} failed: {said[-1] if said else done.returncode}")
        told = json.loads(done.stdout.splitlines()[-1])
        mails = max(1, told["mails"])
        run = stand.Run(rate=mails / told["seconds"], cpu_us=told["cpu_s"] / mails * 1e6)
        return run, int(told["all"])


def smtplib() -> Peer:
    """Return the standard library's client in threads."""
    version = ".".join(map(str, sys.version_info[:3]))
    command = [sys.executable, str(_HERE / "smtplib_threads.py")]
    return Peer(f"smtplib {version}", "a thread a connection", command, {})


def aiosmtplib() -> Peer:
    """Return aiosmtplib, in an environment of its own; raises Missing."""
    python = _folder("aiosmtplib") / "bin" / "python"
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(python.parent.parent)])
    if subprocess.run([python, "-c", "import aiosmtplib"], capture_output=True).returncode:
        _call([str(python), "-m", "pip", "install", "--quiet", "aiosmtplib"])
    version = _call([str(python), "-c", "import aiosmtplib; print(aiosmtplib.__version__)"])
    command = [str(python), str(_HERE / "aiosmtplib_pool.py")]
    return Peer(f"aiosmtplib {version}", "a task a connection", command, {})


def nodemailer() -> Peer:
    """Return nodemailer, in a folder of its own; raises Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("node and npm are not installed")
    modules = _folder("nodemailer") / "node_modules"
    package = modules / "nodemailer" / "package.json"
    if not package.exists():
        quiet = ["--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(modules.parent)]
        _call([npm, "install", *quiet, "nodemailer"])
    version = json.loads(package.read_text())["version"]
    environ = {"NODE_PATH": str(modules)}
    command = [node, str(_HERE / "nodemailer_pool.js")]
    name = f"nodemailer {version}"
    return Peer(name, f"its pool, node {_call([node, '--version'])}", command, environ)


def _folder(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "geomail-bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        said = [line for line in said if "code" in line or "ERROR" in line] or said
        raise Missing(f"{Path(command[0]).name}: {said[0] if said else done.returncode}")
    return done.stdout.strip()
