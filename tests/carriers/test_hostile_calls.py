"""Tasks that do what no task should: what becomes of them, of others, and of what they leave."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hostile_tasks import TASKS

from geomail import config, log
from geomail.carriers import children
from geomail.carriers.calls import Calls
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import CallTask

_PATIENCE_S = 30.0

Make = Callable[..., Calls]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the module of tasks."""
    (tmp_path / "hostile.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Give a function that starts Calls with given settings; all are stopped at the end."""
    made: list[Calls] = []

    def start(**settings: Any) -> Calls:
        defaults = config.load({}, {}, places=())
        made.append(Calls(dataclasses.replace(defaults, **({"tasks": ("hostile",)} | settings))))
        return made[-1]

    yield start
    for calls in made:
        calls.stop(0)


def call(calls: Calls, worker: str, params: object = None, *, cls: str = "") -> Outcome:
    task = CallTask(worker=worker, cls=cls, params=params)
    return calls.call(task, job_id="j1", tries=2)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be buried doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize(
    ("worker", "params"),
    [
        ("fork_and_return", None),
        ("close_all", None),
        ("write_everywhere", ""),
        ("threads", None),
        ("read", None),
        ("terminate", None),
    ],
)
def test_what_a_task_does_to_itself_is_over_with_it(
    make: Make, worker: str, params: object
) -> None:
    calls = make()
    assert call(calls, worker, params).fate is Fate.DELIVERED
    assert call(calls, "noop").fate is Fate.DELIVERED


def test_no_answer_goes_into_a_file_of_the_tasks(make: Make, folder: Path) -> None:
    assert call(make(), "close_and_open", "mine").fate is Fate.DELIVERED
    assert (folder / "mine").read_bytes() == b""


@pytest.mark.parametrize("worker", ["write_everywhere", "flood_everywhere"])
def test_who_writes_into_our_pipe_is_not_understood(make: Make, worker: str) -> None:
    calls = make()
    outcome = call(calls, worker, "nonsense\n")
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.MESSAGE)
    assert outcome.text == "what its process said can't be understood"
    assert call(calls, "noop").fate is Fate.DELIVERED


def test_errors_that_cant_be_told_are_told(make: Make) -> None:
    calls = make()
    assert "Loud" in call(calls, "loud").text
    assert call(calls, "mail", cls="Broken").text == "OSError: no database"


def test_a_stopped_process_is_killed_in_time(make: Make) -> None:
    began = time.monotonic()
    assert call(make(task_s=0.5), "freeze").text == "not over after 0.5 s: killed"
    assert 0.5 <= time.monotonic() - began < _PATIENCE_S


def test_what_a_task_says_is_logged_with_its_id(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "geomail")
    calls = make()
    call(calls, "say", {"text": "hello\n", "times": 2})
    said = [line for line in caplog.messages if line.startswith("call_said ")]
    assert sorted(said) == [
        'call_said id=j1 line="and an error"',
        *["call_said id=j1 line=hello"] * 2,
    ]


def test_a_crash_says_where(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "geomail")
    assert call(make(), "crash").text == "killed by SIGSEGV"
    assert any("id=j1" in line and " in crash" in line for line in caplog.messages)


@pytest.mark.parametrize("text", ["x" * 1000, "y\n" * 500])
def test_megabytes_of_words_are_cut(
    make: Make, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level("INFO", "geomail")
    outcome = call(make(), "say", {"text": text, "times": 3000})
    assert outcome.fate is Fate.DELIVERED
    assert sum(map(len, caplog.messages)) < 300_000
    assert any(line.startswith("call_said_more id=j1 bytes=") for line in caplog.messages)


def test_the_hub_goes_on(make: Make) -> None:
    calls = make(task_s=2)
    longest, stop = 0.0, False

    def tick() -> None:
        nonlocal longest
        while not stop:
            began = time.monotonic()
            gevent.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    ticking = gevent.spawn(tick)
    busy = [gevent.spawn(call, calls, "spin", 0.3) for _ in range(3)]
    busy += [gevent.spawn(call, calls, "say", {"text": "z" * 99 + "\n", "times": 20_000})]
    busy += [gevent.spawn(call, calls, "freeze")]
    gevent.joinall(busy, timeout=_PATIENCE_S)
    stop = True
    ticking.join(_PATIENCE_S)
    assert all(one.ready() for one in busy)
    assert longest < 1.0  # a call that blocked it would do so for its two seconds


def test_passwords_are_not_for_tasks(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RELAY_PASSWORD", "CALLBACK_SECRET", "DOOR_TOKEN", "REDIS"):
        monkeypatch.setenv(f"GEOMAIL_{name}", "secret")
    monkeypatch.setenv("SHOP_DATABASE", "shop")
    assert call(make(), "environment", "environment").fate is Fate.DELIVERED
    names = (folder / "environment").read_text().split("\n")
    assert "SHOP_DATABASE" in names
    assert [name for name in names if name.startswith("GEOMAIL_")] == []


@pytest.mark.parametrize(("sleep", "fate"), [(0, Fate.DELIVERED), (600, Fate.LATER)])
def test_what_a_task_has_started_ends_with_it(
    make: Make, folder: Path, sleep: int, fate: Fate
) -> None:
    params = {"pids": "pids", "sessions": 1, "sleep": sleep}
    assert call(make(task_s=1), "children", params).fate is fate
    assert len(pids_in(folder / "pids")) == 2
    wait_until(lambda: not any(map(is_alive, pids_in(folder / "pids"))))


def test_all_ends_when_we_stop(make: Make, folder: Path) -> None:
    calls = make()
    params = {"pids": "pids", "sessions": 2, "sleep": 600}
    running = gevent.spawn(call, calls, "children", params)
    wait_until(lambda: len(pids_in(folder / "pids")) == 3)
    calls.stop(0.1)
    outcome = running.get(timeout=_PATIENCE_S)
    assert (outcome.fate, outcome.blame) == (Fate.AGAIN, Blame.CONNECTION)
    assert not any(map(is_alive, pids_in(folder / "pids")))
    assert call(calls, "noop").fate is Fate.AGAIN


def test_what_finishes_in_time_is_done_when_we_stop(make: Make) -> None:
    calls = make()
    running = gevent.spawn(call, calls, "spin", 0.5)
    gevent.sleep(0.1)
    calls.stop(_PATIENCE_S)
    assert running.get(timeout=_PATIENCE_S).fate is Fate.DELIVERED


@pytest.mark.parametrize(("params", "fate"), [(None, Fate.DELIVERED), ("fail", Fate.LATER)])
def test_what_has_been_done_stays_done_when_we_stop(
    make: Make, folder: Path, params: object, fate: Fate
) -> None:
    slow = "import atexit, time\natexit.register(time.sleep, 600)\n" + TASKS
    (folder / "hostile.py").write_text(slow)
    calls = make()
    running = gevent.spawn(call, calls, "pid", params)
    wait_until((folder / "pids").exists)
    gevent.sleep(0.3)  # it ends now, for ten minutes
    calls.stop(0)
    outcome = running.get(timeout=_PATIENCE_S)
    assert (outcome.fate, outcome.blame is Blame.CONNECTION) == (fate, False)


def test_a_call_whose_greenlet_is_killed_is_killed(make: Make, folder: Path) -> None:
    running = gevent.spawn(call, make(), "children", {"pids": "pids", "sessions": 1, "sleep": 600})
    wait_until(lambda: len(pids_in(folder / "pids")) == 2)
    running.kill()
    wait_until(lambda: not any(map(is_alive, pids_in(folder / "pids"))))


WORKER = """
import geomail.__main__
import dataclasses, gevent
from geomail import config
from geomail.carriers import children
from geomail.carriers.calls import Calls
from geomail.job import CallTask
calls = Calls(dataclasses.replace(config.load({}, {}, places=()), tasks=("hostile",)))
params = {"pids": "pids", "sessions": 2, "sleep": 600}
for _ in range(2):
    gevent.spawn(calls.call, CallTask(worker="children", params=params), job_id="1", tries=0)
gevent.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_worker_that_was_killed(folder: Path, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], start_new_session=True) as worker:
        try:
            wait_until(lambda: len(pids_in(folder / "pids")) == 6)
        finally:
            worker.send_signal(how)
    wait_until(lambda: not any(map(is_alive, pids_in(folder / "pids"))))


def test_nor_does_one_that_still_imports(folder: Path) -> None:
    slow = "import os, time\nopen('pids', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    (folder / "hostile.py").write_text(slow)
    with subprocess.Popen([sys.executable, "-c", WORKER], start_new_session=True) as worker:
        try:
            wait_until(lambda: len(pids_in(folder / "pids")) == 1)
        finally:
            worker.kill()
    wait_until(lambda: not any(map(is_alive, pids_in(folder / "pids"))))


def test_calls_go_on_while_new_tasks_are_imported(make: Make, folder: Path) -> None:
    calls = make()
    slow = "import time\nopen('importing', 'w').close()\ntime.sleep(2)\n" + TASKS
    (folder / "hostile.py").write_text(slow)
    calls.configure(calls._settings)
    wait_until((folder / "importing").exists)
    old = calls._template
    assert call(calls, "noop").fate is Fate.DELIVERED
    assert calls._template is old
    wait_until(lambda: calls._template is not old)


def test_where_no_process_can_be_made_the_job_is_not_to_blame(make: Make, folder: Path) -> None:
    full = """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.geteuid() == 0:  # to whom no limit applies
    os.setgid(65534)
    os.setuid(65534)
"""
    (folder / "hostile.py").write_text(TASKS + full)
    outcome = call(make(), "noop")
    assert (outcome.fate, outcome.blame) == (Fate.AGAIN, Blame.HOST)
    assert outcome.text.startswith("can't start a process: ")


def test_when_memory_is_short_a_task_goes_first(make: Make, folder: Path) -> None:
    assert call(make(), "copy", ["/proc/self/oom_score_adj", "score"]).fate is Fate.DELIVERED
    assert int((folder / "score").read_text()) >= 500


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_template_that_was_ended_is_replaced(
    make: Make, folder: Path, how: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_END_S", 0.5)
    calls = make(task_s=1)
    params = {"pids": "pids", "sessions": 1, "sleep": 600}
    other = gevent.spawn(call, calls, "children", params)
    wait_until(lambda: len(pids_in(folder / "pids")) == 2)
    outcome = call(calls, "end_template", how)
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.MESSAGE)
    assert other.get(timeout=_PATIENCE_S).fate is Fate.LATER
    wait_until(lambda: not any(map(is_alive, pids_in(folder / "pids"))))
    wait_until(lambda: call(calls, "noop").fate is Fate.DELIVERED)


def test_nothing_is_left_of_many(make: Make) -> None:
    log.to_stderr(verbose=False)
    calls = make(task_s=0.2)
    call(calls, "noop")
    before, mine = _open_files(), _own_children()
    for worker in ("noop", "freeze", "loud", "close_all", "fork_and_return") * 4:
        call(calls, worker)
    assert _open_files() == before
    assert _own_children() == mine
    (template,) = (calls._template,)
    assert template is not None
    assert template.children == {}
    wait_until(lambda: _children_of(template._process.pid) == [])


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _own_children() -> list[int]:
    return _children_of(os.getpid())


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_process_is_kept_for_several_while_all_goes_well(make: Make, folder: Path) -> None:
    calls = make(task_jobs=3)
    for params in (None, None, None, None, "fail", None):
        call(calls, "pid", params)
    pids = pids_in(folder / "pids")
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 5]
    os.kill(pids[-1], signal.SIGKILL)
    wait_until(lambda: not is_alive(pids[-1]))
    wait_until(lambda: call(calls, "noop").fate is Fate.DELIVERED)


def test_new_settings_bring_new_code(make: Make, folder: Path) -> None:
    calls = make()
    settings = calls._settings
    running = gevent.spawn(call, calls, "spin", 0.5)
    (folder / "hostile.py").write_text("def broken(\n")
    calls.configure(settings)
    gevent.sleep(0.3)
    assert call(calls, "noop").fate is Fate.DELIVERED
    (folder / "hostile.py").write_text(TASKS + "\n@geomail.task\ndef new(params): pass\n")
    calls.configure(settings)
    wait_until(lambda: call(calls, "new").fate is Fate.DELIVERED)
    assert running.get(timeout=_PATIENCE_S).fate is Fate.DELIVERED
    wait_until(lambda: [one.is_alive for one in calls._templates].count(True) == 1)


def test_modules_may_be_patched_by_gevent(make: Make, folder: Path) -> None:
    patched = "from gevent import monkey; monkey.patch_all()\n" + TASKS
    (folder / "hostile.py").write_text(patched)
    calls = make(task_s=2)
    assert call(calls, "noop").fate is Fate.DELIVERED
    assert call(calls, "freeze").fate is Fate.LATER
    assert call(calls, "threads").fate is Fate.DELIVERED
