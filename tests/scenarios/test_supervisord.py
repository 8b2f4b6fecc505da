"""supervisord and the program in scripts/: geomail is started, drained, and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scenarios.stage import QUICK, Process, Stage, mail, once_each, until, users

SCRIPTS = Path(__file__).parents[2] / "scripts"
_DAEMON = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
environment={environment}
[unix_http_server]
file={folder}/control
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/control
[include]
files = {folder}/geomail.conf
"""

Control = Callable[..., str]


@pytest.fixture
def control(stage: Stage, needs_program: Callable[[str], str]) -> Iterator[Control]:
    """Give supervisorctl; a call with `relay` starts supervisord with that relay first."""
    daemon, control = needs_program("supervisord"), needs_program("supervisorctl")
    config = stage.folder / "supervisord.conf"
    running: list[Process] = []

    def run(*words: str, relay: str | None = None, **settings: object) -> str:
        if relay is not None:
            _write(stage, config, relay, settings)
            running.append(_started(stage, daemon, config))
        command = [control, "-c", str(config), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout

    try:
        yield run
    finally:
        for process in running:
            process.signal(signal.SIGTERM)
            process.wait()


def _write(stage: Stage, config: Path, relay: str, settings: Mapping[str, object]) -> None:
    """Write supervisord's own settings, and the program with geomail's place and log put in."""
    given = {"redis": stage.server.url, "data": stage.folder / "data", "relay": relay}
    given |= {**QUICK, **settings}
    environment = ",".join(f'GEOMAIL_{key.upper()}="{value}"' for key, value in given.items())
    config.write_text(_DAEMON.format(folder=stage.folder, environment=environment))
    program = (SCRIPTS / "geomail.supervisord.conf").read_text()
    place = Path(sys.executable).parent / "geomail"
    assert "command=geomail run" in program
    program = program.replace("command=geomail run", f"command={place} run")
    (stage.folder / "geomail.conf").write_text(
        f"{program}\nstderr_logfile={stage.folder}/geomail.err\n"
    )


def _started(stage: Stage, daemon: str, config: Path) -> Process:
    command = [daemon, "-c", str(config)]
    process = Process(command, folder=stage.folder, env=os.environ, name="supervisord")
    until((stage.folder / "control").exists, "supervisord")
    return process


def test_it_is_started_and_drained(stage: Stage, control: Control) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(3_000)))
    control("status", relay=host.url)
    host.has_taken(500)
    assert "RUNNING" in control("status")
    assert "stopped" in control("stop", "geomail")
    assert "STOPPED" in control("status")
    assert "stopped: geomail (exit status 0)" in _log(stage)
    taken = len(host.look())
    assert taken < 3_000
    assert stage.counts().in_flight == 0
    assert stage.held() == 3_000 - taken
    assert "started" in control("start", "geomail")
    until(stage.is_clean)
    once_each(host.arrivals(), users(3_000))
    control("stop", "geomail")


def test_it_is_started_again_after_a_crash(stage: Stage, control: Control) -> None:
    host = stage.host()
    control("status", relay=host.url)
    stage.push([mail(0)])
    host.has_taken(1)
    os.kill(int(control("pid", "geomail")), signal.SIGKILL)
    stage.push([mail(1)])
    host.has_taken(2)
    assert "terminated by SIGKILL; not expected" in _log(stage)


def test_it_is_left_alone_when_its_settings_cannot_be_used(stage: Stage, control: Control) -> None:
    control("status", relay="http://nonsense")
    until(lambda: "EXITED" in control("status"))
    assert _log(stage).count("spawned: 'geomail'") == 1
    assert "exit status 2; expected" in _log(stage)
    assert "smtp://" in (stage.folder / "geomail.err").read_text()


def test_workers_retire_behind_one_pid_until_it_is_stopped(stage: Stage, control: Control) -> None:
    host, pidfile = stage.host(delay_s=0.01), stage.folder / "geomail.pid"
    habits = {"processes": 2, "max_messages": 300, "concurrency": 4, "pidfile": pidfile}
    control("status", relay=host.url, **habits)
    until(lambda: pidfile.exists() and pidfile.read_text())
    stage.push(map(mail, range(2_000)))
    until(stage.is_clean)
    once_each(host.arrivals(), users(2_000))
    said = (stage.folder / "geomail.err").read_text()
    assert said.count(" retiring ") >= 3
    assert "process_ended" not in said
    assert control("pid", "geomail").strip() == pidfile.read_text().strip()
    assert stage.ask("stop", pidfile=pidfile) == "geomail has ended\n"
    until(lambda: "EXITED" in control("status"))
    assert "exit status 0; expected" in _log(stage)


def _log(stage: Stage) -> str:
    return (stage.folder / "supervisord.log").read_text()
