"""Calls, from the list to the child and back: what is done, tried again, dead, and told."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

from scenarios.stage import Stage, mail, once_each, until, users

MODULE = """
import os, time, geomail

@geomail.task
def note(params):
    with open("noted", "a") as file:
        file.write(f"{params}\\n")

@geomail.task
def fail(params):
    raise ValueError(f"no {params}")

@geomail.task
def die(params):
    os.kill(os.getpid(), 9)

@geomail.task
def murder(params):
    template = open(f"/proc/{os.getppid()}/stat").read()
    os.kill(int(template.rpartition(")")[2].split()[1]), 9)
    time.sleep(600)

@geomail.task
def hang(params):
    open("hanging", "w").close()
    time.sleep(600)
"""


def tasks_of(stage: Stage) -> dict[str, Any]:
    """Write a module of tasks, and return the settings with which it may be called."""
    stage.folder.joinpath("chores.py").write_text(MODULE)
    return {"tasks": "chores", "task_s": 2, "retries": 1}


def noted(folder: Path) -> list[str]:
    """Return what the task `note` has noted, sorted."""
    path = folder / "noted"
    return sorted(path.read_text().split()) if path.exists() else []


def test_calls_are_done_beside_mail(stage: Stage) -> None:
    host, settings = stage.host(), tasks_of(stage)
    stage.push([mail(number) for number in range(20)])
    stage.push([{"worker": "note", "params": number} for number in range(10)])
    assert stage.burst(relay=host, **settings) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(20))
    assert noted(stage.folder) == [str(number) for number in range(10)]
    assert stage.is_clean()


def test_each_has_its_own_outcome(stage: Stage) -> None:
    settings = tasks_of(stage)
    words = ("hang", "die", "fail", "__class__", "nothing")
    stage.push([{"worker": word, "params": word, "id": word} for word in words])
    stage.push([{"worker": "note", "params": number} for number in range(10)])
    log = stage.folder / "log"
    worker = stage.worker(delivery_log=log, **settings)
    until(lambda: len(stage.dead()) == 5 and stage.held() == 5, "five that are dead")
    reasons = {
        line["label"]: line
        for line in map(json.loads, log.read_text().splitlines())
        if "label" in line
    }
    assert "no fail" in reasons["fail"]["reply"]
    assert "SIGKILL" in reasons["die"]["reply"]
    assert "2 s" in reasons["hang"]["reply"]
    assert {reasons[word]["tries"] for word in ("hang", "die", "fail")} == {2}
    told = " ".join(letter.reason for letter in stage.dead())
    assert "__class__" in told
    assert "nothing" in told
    assert noted(stage.folder) == [str(number) for number in range(10)]
    assert worker.is_running


def test_what_hangs_goes_back_at_the_end(stage: Stage) -> None:
    settings = {**tasks_of(stage), "task_s": 100}
    stage.push([{"worker": "hang"}])
    worker = stage.worker(grace_s=2, **settings)
    until(stage.folder.joinpath("hanging").exists, "a call that hangs")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert stage.counts().front == 1
    assert "left_in_hand" not in worker.stderr
    stage.queue.register()
    [taken] = stage.queue.take(1).slots
    assert taken.state.tries == 0


def test_a_module_that_cannot_be_imported(stage: Stage) -> None:
    stage.folder.joinpath("broken.py").write_text("import nothing_of_that_name\n")
    worker = stage.worker(tasks="broken")
    assert worker.wait() == 2
    assert "can't import broken" in worker.stderr.splitlines()[-1]


def test_calls_are_allowed_by_a_reload(stage: Stage) -> None:
    tasks_of(stage)
    file = stage.folder / "geomail.toml"
    relay = f'[relay.default]\nurl = "{stage.host().url}"\n'
    file.write_text(relay)
    worker = stage.worker("--config", str(file))
    stage.push([{"worker": "note", "params": 1}])
    until(lambda: len(stage.dead()) == 1, "a call that is refused")
    file.write_text(f'tasks = ["broken"]\n{relay}')
    worker.signal(signal.SIGHUP)
    worker.says("reload_failed")
    file.write_text(f'tasks = ["chores"]\n{relay}')
    worker.signal(signal.SIGHUP)
    worker.says("reloaded")
    stage.push([{"worker": "note", "params": 2}])
    until(lambda: noted(stage.folder) == ["2"], "a call that is done")


def test_kills_lose_no_call(stage: Stage) -> None:
    settings = {**tasks_of(stage), "retries": 20}
    moments = random.Random(3)
    for start in range(0, 60, 20):
        worker = stage.worker(**settings)
        worker.says("running")
        stage.push({"worker": "note", "params": number} for number in range(start, start + 20))
        time.sleep(moments.uniform(0.0, 0.3))
        worker.kill()
    stage.worker(**settings)
    until(lambda: not stage.held(), "an end to everything")
    assert set(noted(stage.folder)) == set(map(str, range(60)))
    assert stage.is_clean()


def test_who_kills_each_worker_is_found_out(stage: Stage) -> None:
    host, settings = stage.host(), tasks_of(stage)
    stage.push([{"worker": "murder", "retries": 100}, mail(0)])
    for _ in range(5):
        stage.worker(relay=host, **settings, lease_s=1, beat_s=0.2).wait()
    stage.burst(relay=host, **settings)
    until(lambda: stage.counts().dead == 1)
    assert stage.dead()[0].deaths == 5
    assert set(host.arrivals()) == set(users(1))  # twice where a kill came before its answer
