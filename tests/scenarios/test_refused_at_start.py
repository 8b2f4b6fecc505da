"""What can't be right is said in one line before anything is taken; signals are always heard."""

import signal
import time

import pytest

from scenarios.stage import Stage, mail


def test_a_delivery_log_in_a_folder_that_is_not_there(stage: Stage) -> None:
    log = str(stage.folder / "none" / "log")
    words = ("run", "--relay", "smtp://127.0.0.1:1", "--delivery-log", log)
    assert f"can't write {log}: No such file" in stage.refusal(*words, status=2)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_relay_whose_files_are_not_there(stage: Stage, processes: str) -> None:
    file, token = stage.folder / "geomail.toml", stage.folder / "token"
    file.write_text(f'[relay.default]\nurl = "smtps://ann@h"\ntoken_file = "{token}"\n')
    words = ("run", "--config", str(file), "--processes", processes)
    said = f"token_file of relay default: can't read {token}: No such file"
    assert said in stage.refusal(*words, status=2)


def test_a_redis_that_forbids_waiting(stage: Stage) -> None:
    stage.redis.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-blmove")
    stage.push([mail(0)])
    worker = stage.worker(relay=stage.host(), redis=f"redis://bob:pw@127.0.0.1:{stage.server.port}")
    assert worker.wait() == 2
    complaints = [line for line in worker.stderr.splitlines() if "blmove" in line.lower()]
    assert len(complaints) == 1, worker.stderr
    assert "Traceback" not in worker.stderr
    assert stage.counts().in_flight == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_while_redis_refuses_to_write(stage: Stage, number: signal.Signals) -> None:
    stage.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    worker = stage.worker("--grace", "1", relay="smtp://127.0.0.1:1")
    worker.says("redis_away")
    began = time.monotonic()
    worker.signal(number)
    worker.wait()
    assert time.monotonic() - began < 2


def test_stopped_and_continued_it_delivers_what_it_held(stage: Stage) -> None:
    host = stage.host(delay_s=0.1)
    stage.push(map(mail, range(12)))
    worker = stage.worker("--concurrency", "2", relay=host, lease_s=0.6, beat_s=0.1)
    host.has_taken(3)
    worker.signal(signal.SIGSTOP)
    time.sleep(1)  # longer than its lease
    worker.signal(signal.SIGCONT)
    host.has_taken(12)
    stage.push([mail("after")])
    host.has_taken(13)
