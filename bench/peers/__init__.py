"""The others: programs that send mail, each tuned as its documentation advises.

Each is a program of this folder that keeps CONNECTIONS connections busy and never waits to be given
work. There are two kinds. Those that only send get PORT CONNECTIONS WARM_S TIMED_S on their command
line and the finished message on their standard input; their last line is what they did in the TIMED
seconds, and in all, as JSON. Those that take jobs get PORT CONNECTIONS REDIS_PORT; they pop from
the list `bench:mails`, compose and send until SIGTERM, and their last line is how many in all. None
of them settles anything: what they had popped when they die is lost. What a peer needs is installed
here, into a folder of the user's cache, and not into the environment that geomail runs in.
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
_WITH_PKG_RESOURCES = "setuptools>=75,<81"  # which python-slimta imports
WAYS = {  # of composing, in mails.py
    "EmailMessage": "as documented",
    "MIMEText": "tuned further",
}
_PHP_TUNED = (
    "-dopcache.enable_cli=1",
    "-dopcache.jit_buffer_size=64M",
    "-dopcache.jit=tracing",
)


class Missing(Exception):
    """A peer can't be run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them: its name and version, how it is used, and how it is started.

    `behind` comes after the numbers on its command line. `push`: the command that makes its jobs of
    payloads, REDIS_PORT behind it; without one they are pushed as they are.
    """

    name: str
    use: str
    command: Sequence[str]
    environ: dict[str, str]
    behind: Sequence[str] = ()
    push: Sequence[str] = ()

    def start(self, *numbers: float) -> "subprocess.Popen[bytes]":
        """Start it on the worker's core, in a session of its own, with pipes to it and from it."""
        return subprocess.Popen(
            [*self.command, *map(str, numbers), *self.behind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | self.environ,
            preexec_fn=stand.on_core(stand.WORKERS_CORE),
            start_new_session=True,
        )

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
    python = _environment("aiosmtplib", "aiosmtplib")
    command = [str(python), str(_HERE / "aiosmtplib_pool.py")]
    return Peer(_named(python, "aiosmtplib"), "a task a connection", command, {})


def nodemailer() -> Peer:
    """Return nodemailer, in a folder of its own; raises Missing."""
    return _node("nodemailer", "nodemailer_pool.js", "nodemailer")


def redis_nodemailer() -> Peer:
    """Return ioredis and nodemailer, popping jobs; raises Missing."""
    return _node("nodemailer-jobs", "nodemailer_jobs.js", "nodemailer", "ioredis")


def _node(folder: str, program: str, *packages: str) -> Peer:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("node and npm are not installed")
    modules = _folder(folder) / "node_modules"
    described = [modules / package / "package.json" for package in packages]
    if not all(package.exists() for package in described):
        quiet = ["--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(modules.parent)]
        _call([npm, "install", *quiet, *packages])
    named = [
        f"{package} {json.loads(file.read_text())['version']}"
        for package, file in zip(packages, described, strict=True)
    ]
    use = f"its pool, node {_call([node, '--version'])}"
    environ = {"NODE_PATH": str(modules)}
    return Peer(" + ".join(named), use, [node, str(_HERE / program)], environ)


def slimta() -> Peer:
    """Return python-slimta's static relay; raises Missing."""
    python = _environment("slimta", "python-slimta", _WITH_PKG_RESOURCES)
    use = "StaticSmtpRelay, pipelining, connections kept (idle_timeout)"
    return Peer(_named(python, "python-slimta"), use, [python, str(_HERE / "slimta_pool.py")], {})


def redis_smtplib(way: str) -> Peer:
    """Return redis-py (with hiredis) and smtplib in threads, popping jobs; raises Missing."""
    return _smtplib_jobs("threads", "a thread a connection", way)


def redis_gevent(way: str) -> Peer:
    """Return the same in greenlets; raises Missing."""
    return _smtplib_jobs("gevent", "all patched, a greenlet a connection", way)


def _smtplib_jobs(how: str, use: str, way: str) -> Peer:
    python = _environment("jobs", "redis[hiredis]", "gevent")
    use = f"{use}; {_named(python, 'redis')} with hiredis, RPOP of ten; {WAYS[way]}"
    command = [python, str(_HERE / "smtplib_jobs.py")]
    return Peer(f"smtplib + {how}, {way}", use, command, {}, [how, way])


def redis_aiosmtplib(way: str) -> Peer:
    """Return redis.asyncio and aiosmtplib on uvloop, popping jobs; raises Missing."""
    python = _environment("aiosmtplib-jobs", "aiosmtplib", "uvloop", "redis[hiredis]")
    use = f"a task a connection; {_named(python, 'uvloop')}, redis.asyncio, hiredis, RPOP of ten"
    command = [python, str(_HERE / "aiosmtplib_jobs.py")]
    name = f"{_named(python, 'aiosmtplib')}, {way}"
    return Peer(name, f"{use}; {WAYS[way]}", command, {}, [way])


def celery_processes() -> Peer:
    """Return Celery with its pool of processes; raises Missing."""
    return _celery("prefork", "a process a connection")


def celery_greenlets() -> Peer:
    """Return Celery with its pool of greenlets; raises Missing."""
    return _celery("gevent", "a greenlet a connection")


def _celery(pool: str, use: str) -> Peer:
    python = _environment("celery", "celery[redis]", "hiredis", "gevent")
    use = f"{use}, smtplib; 128 prefetched each, no results, gossip, events, heartbeats"
    command = [python, str(_HERE / "celery_jobs.py")]
    return Peer(f"{_named(python, 'celery')}, {pool}", use, command, {}, [pool], command)


def phpmailer() -> Peer:
    """Return PHPMailer with phpredis, out of Debian's package; raises Missing."""
    php = shutil.which("php")
    if php is None:
        raise Missing("php is not installed")
    for extension in ("redis", "pcntl", "posix"):
        if _call([php, "-r", f"echo extension_loaded('{extension}') ? 1 : 0;"]) != "1":
            raise Missing(f"php has no extension {extension}")
    folder = _folder("phpmailer")
    source = folder / "usr" / "share" / "php" / "libphp-phpmailer" / "src"
    if not source.exists():
        apt = shutil.which("apt-get")
        if apt is None:
            raise Missing("there is no apt-get to have libphp-phpmailer from")
        _call([apt, "download", "--quiet", "libphp-phpmailer"], folder)
        _call(["dpkg-deb", "-x", *map(str, folder.glob("*.deb")), str(folder)])
    version = (source / "PHPMailer.php").read_text().partition("const VERSION = '")[2]
    command = [php, *_PHP_TUNED, str(_HERE / "phpmailer_jobs.php"), str(source)]
    use = "SMTPKeepAlive, tcp_nodelay, a process a connection; RPOP of ten by phpredis; "
    use += f"PHP {_call([php, '-r', 'echo PHP_VERSION;'])}, opcache with JIT"
    return Peer(f"PHPMailer {version.partition(chr(39))[0]}", use, command, {})


def _environment(name: str, *packages: str) -> str:
    """Return the Python of a virtual environment with these packages, made at the first call."""
    folder = _folder(name)
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists() or done.read_text() != " ".join(packages):
        _call([sys.executable, "-m", "venv", str(folder)])
        _call([str(python), "-m", "pip", "install", "--quiet", *packages])
        done.write_text(" ".join(packages))
    return str(python)


def _named(python: str, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return f"{package} {_call([python, '-c', code])}"


def _folder(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "geomail-bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _call(command: Sequence[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        said = [line for line in said if "code" in line or "ERROR" in line] or said
        raise Missing(f"{Path(command[0]).name}: {said[0] if said else done.returncode}")
    return done.stdout.strip()
