"""The command line as people meet it: `python -m geomail …` in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from geomail import usage
from geomail.errors import ConfigError
from geomail.pidfile import PidFile
from geomail.queue import Link, Queue, embedded

NOWHERE = "redis://127.0.0.1:1"


class Ended:
    """How a geomail process ended, and what it said."""

    def __init__(self, process: "subprocess.CompletedProcess[str]") -> None:
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr


@pytest.fixture
def folder(clean_environment: Path) -> Path:
    return clean_environment


def geomail(*argv: str, stdin: str = "", environ: Mapping[str, str] | None = None) -> Ended:
    command = [sys.executable, "-m", "geomail", *argv]
    settings = {**os.environ, **(environ or {})}
    return Ended(
        subprocess.run(
            command, input=stdin, env=settings, capture_output=True, text=True, timeout=30
        )
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_version_and_help(folder: Path) -> None:
    assert geomail("--version").out.startswith("geomail ")
    shown = geomail("--help")
    assert shown.status == 0
    assert shown.out == usage.page()


HELP = """
import sys
sys.argv[1:] = ["--help"]
from geomail.__main__ import main
main()
sys.exit(sorted({"gevent", "redis", "ssl", "msgspec"} & set(sys.modules)) or 0)
"""


def test_help_needs_no_network_stack() -> None:
    process = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


HELD = (
    "  --relay NAME           a relay, by its name",
    "  --queue NAME           a Redis list",
)


@pytest.mark.parametrize("command", usage.COMMANDS)
def test_help_of_a_command_is_its_own_part_of_the_page(command: str) -> None:
    page, whole = usage.page_of(command), usage.page()
    own = HELD if command in ("hold", "resume") else ()
    assert set(own) <= set(page.splitlines())
    told = set(re.findall(r"^  (--[a-z-]+)", page, re.MULTILINE))
    assert told == usage._flags_of(command)
    assert page.startswith(f"geomail {command} ")
    for line in page.splitlines()[1:]:
        assert line in whole.splitlines() or line in (
            "Options:",
            "All commands: geomail --help",
            *own,
        )


def test_help_is_given_wherever_it_is_asked_for(folder: Path) -> None:
    for argv in (["run", "--help"], ["--help", "run"], ["run", "--concurrency", "3", "-h"]):
        assert geomail(*argv).out == usage.page_of("run")


def test_help_fits_a_terminal() -> None:
    assert max(map(len, usage.page().splitlines())) <= 100


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ([], 2, "no command: expected one of run, listen,"),
        (["rnu"], 2, "'rnu' is no command: did you mean run?"),
        (["run", "--retires", "3"], 2, "unknown option --retires: did you mean --retries?"),
        (["run"], 2, "no relay to send to: pass --relay smtp://HOST:25"),
        (["run", "--relay", "mx", "--relay", "smtp://h"], 2, "--relay: mx is every domain's own"),
        (["run", "--queue", "a=x"], 2, "with a weight from 1 to 1000, not 'a=x'"),
        (["run", "--relay", "mail:25"], 2, "--relay: a relay's URL begins with smtp://"),
        (["run", "--relay", "smtps://a@h"], 2, "set GEOMAIL_RELAY_PASSWORD"),
        (["run", "--processes", "2"], 2, "no relay to send to: pass --relay smtp://HOST:25"),
        (["run", "--processes", "0"], 2, "--processes must be a whole number from 1 to 256"),
        (["run", "--concurrency", "many"], 2, "--concurrency must be a whole number"),
        (["run", "--config", "none.toml"], 2, "can't read none.toml: No such file"),
        (["run", "--relay", "smtp://h", "--redis", "http://h"], 2, "expected redis://"),
        (["status", "--redis", NOWHERE], 1, "no Redis answers at 127.0.0.1:1: start it, or"),
        (["hosts", "--redis", NOWHERE], 1, "no Redis answers at 127.0.0.1:1: start it, or"),
        (["why", "x", "--redis", NOWHERE], 1, "no Redis answers at 127.0.0.1:1: start it, or"),
        (["why"], 2, "that is not how why is called: geomail why ID"),
        (["send", "--to", "a@b.c", "--redis", NOWHERE], 1, "no Redis answers"),
        (["send", "--to", "a b"], 2, "'a b'"),
        (["send", "--to", "a@b.c", "--text", "none"], 2, "can't read none: No such file"),
        (["send", "--to", "a@b.c", "--text", "-", "--html", "-"], 2, "can be read once"),
        (["dead", "list", "--limit", "no"], 2, "--limit must be a whole number"),
        (["stop"], 2, "pass --pidfile FILE"),
        (["demo", "--count", "0"], 2, "--count must be a whole number"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    folder: Path, argv: list[str], status: int, said: str
) -> None:
    ended = geomail(*argv)
    assert ended.status == status
    assert said in ended.err
    assert ended.err.startswith("geomail: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("run --conc 5", "unknown option --conc: did you mean --concurrency?"),
        ("run --concurrency", "--concurrency requires argument"),
        ("run extra", "that is not how run is called: geomail run [--concurrency N]"),
        ("demo --listen x", "demo has no option --listen (see geomail --help)"),
        ("dead", "geomail dead list .* or geomail dead show ID .* or geomail dead"),
        ("dead retry", "that is not how dead is called"),
        ("send", "that is not how send is called: geomail send (--to ADDR)..."),
        ("status --limit 3", "status has no option --limit"),
        ("xyzzy", "'xyzzy' is no command: expected one of run, listen"),
    ],
)
def test_wrong_usage(argv: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        usage.read(argv.split())
    for part in said.split(" .* "):
        assert part in str(raised.value)


def test_usage_as_documented() -> None:
    given = usage.read(
        ["run", "--queue", "a", "--queue", "b=3", "--relay", "smtp://h", "--redis", "r", "--burst"]
    )
    assert given["run"]
    assert given["--burst"]
    assert (given["--queue"], given["--relay"]) == (["a", "b=3"], ["smtp://h"])
    assert usage.read(["send", "--to", "a", "--to", "b", "--subject=--x"])["--to"] == ["a", "b"]
    assert usage.read(["dead", "drop", "1", "2"])["ID"] == ["1", "2"]
    assert usage.read(["--redis", "r", "status"])["--redis"] == "r"


def test_no_secret_is_printed(folder: Path) -> None:
    for relay in ("smtps://ann:geheim@h:x", "smtps://ann:geheim@", "smtps://ann:geheim%@h"):
        ended = geomail("run", "--relay", relay)
        assert ended.status == 2
        assert "geheim" not in ended.err
    ended = geomail("status", "--redis", "redis://:geheim@127.0.0.1:1")
    assert ended.status == 1
    assert "geheim" not in ended.err


def test_a_password_in_a_flag_warns(folder: Path) -> None:
    ended = geomail("status", "--redis", NOWHERE, environ={"GEOMAIL_RELAY_PASSWORD": "x"})
    assert "warning" not in ended.err
    ended = geomail("check", "--redis", NOWHERE, "--relay", "smtps://a:b@127.0.0.1:1")
    assert "geomail: warning: the process list shows a password" in ended.err


# In a process without gevent, whose os.close of a pipe may come later than the next line.
NO_READER = """
import os, subprocess, sys
read, write = os.pipe()
os.close(read)
sys.exit(subprocess.run([sys.executable, "-m", "geomail", "--help"], stdout=write).returncode)
"""


def test_a_reader_who_leaves_is_no_crash(folder: Path) -> None:
    process = subprocess.run([sys.executable, "-c", NO_READER], capture_output=True)
    assert (process.returncode, process.stderr) == (1, b"")


def test_a_full_disk_behind_our_output_is_one_line(folder: Path) -> None:
    command = [sys.executable, "-m", "geomail", "--help"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    said = b"geomail: can't write the output: No space left on device\n"
    assert (process.returncode, process.stderr) == (1, said)


def test_send_then_status(folder: Path, redis_url: str) -> None:
    (folder / "note.txt").write_text("grün")
    ended = geomail(
        *("send", "--redis", redis_url, "--to", "Ann <ann@example.org>", "--to", "bo@example.org"),
        *("--from", "news@example.com", "--subject", "Grüße", "--text", "-"),
        *("--attach", "note.txt"),
        stdin="Hallo\n",
    )
    assert ended.status == 0, ended.err
    label = ended.out.split()[0]
    assert ended.out == f"{label} is on queue:email\n"
    status = json.loads(geomail("status", "--redis", redis_url, "--json").out)
    assert status["queue:email"]["list"] == status["queue:email"]["waiting"] == 1
    shown = [line.split() for line in geomail("status", "--redis", redis_url).out.splitlines()]
    assert ["waiting", "1", "fresh", "1"] in shown


def test_status_says_what_people_ask_first(folder: Path, redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")
    _make_dead(queue, b"a", b"b", b"c")
    queue.push([b"d", b"e"])
    queue.take(1)
    shown = geomail("status", "--redis", redis_url).out
    assert "the list has not been empty for 0.0 min\n" in shown
    assert "at the present rate never (0 delivered a minute)\n" in shown
    assert re.search(r"\n +3 +because\n", shown)
    assert re.search(rf"\n +{queue.worker}: lease \d+ s, holds 1\n", shown)
    told = json.loads(geomail("status", "--redis", redis_url, "--json").out)["queue:email"]
    assert told["dead_reasons"] == {"because": 3}
    assert told["workers"][queue.worker]["jobs"] == told["in_flight"] == 1
    assert (told["drained_in_minutes"], told["maybe_duplicates"], told["reconciled"]) == (
        None,
        0,
        0,
    )
    assert told["not_empty_since_ms"] <= told["now_ms"]


def test_hold_and_resume(folder: Path, redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")

    def do(*argv: str) -> str:
        ended = geomail(*argv, "--redis", redis_url)
        assert ended.status == 0, ended.err
        return ended.out

    soon = " (workers obey within 5 s)\n"
    assert do("hold", "--relay", "bulk") == f"relay bulk is held{soon}"
    assert do("hold", "--relay", "bulk") == "relay bulk is held already\n"
    assert do("hold", "--queue", "queue:email") == f"queue queue:email is held{soon}"
    queue.register()
    assert queue.held == {("relay", "bulk"), ("queue", "queue:email")}
    assert "relay bulk (geomail resume --relay bulk)\n" in do("status")
    assert do("resume", "--relay", "bulk") == f"relay bulk goes on{soon}"
    assert do("resume", "--queue", "queue:email") == f"queue queue:email goes on{soon}"
    assert do("resume", "--queue", "queue:email") == "queue queue:email goes on already\n"
    assert queue.counts().held == ()


def test_hold_of_a_relay_that_is_not_there(folder: Path, redis_url: str) -> None:
    (folder / "geomail.toml").write_text('[relay.bulk]\nurl = "smtp://127.0.0.1:1"\n')
    ended = geomail("hold", "--relay", "bulc", "--redis", redis_url)
    assert (ended.status, "did you mean bulk?" in ended.err) == (2, True)
    assert geomail("resume", "--relay", "bulc", "--redis", redis_url).status == 0
    assert geomail("hold", "--redis", redis_url).status == 2
    assert geomail("hold", "--relay", "a", "--queue", "b", "--redis", redis_url).status == 2


def test_what_send_puts_on_the_queue(folder: Path, redis_url: str) -> None:
    geomail("send", "--redis", redis_url, "--queue", "q", "--to", "ann@example.org", "--html", "-")
    queue = Queue(Link(redis_url), "q")
    queue.register()
    (slot,) = queue.take(10).slots
    mail = json.loads(slot.payload)
    assert mail.pop("id").startswith("send-")
    assert mail == {"to": ["ann@example.org"]}


def test_dead_letters_are_listed_shown_put_back_and_dropped(folder: Path, redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")
    ids = _make_dead(queue, b'{"bad": "\x1b[31m"}', b"second")

    def dead(*argv: str) -> Ended:
        return geomail("dead", *argv, "--redis", redis_url)

    listed = dead("list")
    assert listed.out.splitlines()[0].split() == ["id", "died", "tries", "bytes", "reason"]
    assert all(name in listed.out for name in ids)
    assert len(json.loads(dead("list", "--json").out)) == 2
    assert len(json.loads(dead("list", "--json", "--limit", "1").out)) == 1
    assert dead("list", "--reason", "other").out == "no dead letters\n"
    shown = dead("show", ids[0])
    assert '{"bad": "\\x1b[31m"}' in shown.out
    assert "because" in shown.out
    assert dead("show", "nobody").status == 1
    assert dead("retry", ids[0]).out == "1 put back\n"
    assert dead("retry", ids[0]).err == "geomail: 1 of these ids are not dead letters\n"
    assert dead("drop", "--all").out == "1 dropped\n"
    assert queue.counts().waiting == 1


def _make_dead(queue: Queue, *payloads: bytes) -> list[str]:
    from geomail.queue import Dead, JobState

    queue.register()
    queue.push(payloads)
    slots = queue.take(10).slots
    queue.settle([Dead(slot, JobState(reason="because")) for slot in slots])
    return [slot.id for slot in slots]


@contextmanager
def running(*argv: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "geomail", "run", *argv]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_run_holds_its_pid_file_and_stop_ends_it(folder: Path, redis_url: str) -> None:
    options = ("--redis", redis_url, "--relay", "smtp://127.0.0.1:1", "--pidfile", "run.pid")
    with running(*options) as process:
        wait_for(lambda: (folder / "run.pid").exists() and (folder / "run.pid").read_text())
        assert PidFile(folder / "run.pid").owner() == process.pid
        again = geomail("run", *options)
        assert again.status == 1
        assert f"geomail runs already: run.pid names process {process.pid}" in again.err
        assert "pass a --pidfile of your own" in again.err
        wait_for(lambda: Queue(Link(redis_url), "queue:email").counts().workers)
        assert geomail("stop", "--pidfile", "run.pid").out == "geomail has ended\n"
        assert process.wait(20) == 0
    assert not (folder / "run.pid").exists()
    assert "does not run" in geomail("stop", "--pidfile", "run.pid").out


def test_a_stale_pid_file_is_taken_over(folder: Path, redis_url: str) -> None:
    (folder / "run.pid").write_text(f"{os.getpid()}\n")
    assert "does not run" in geomail("stop", "--pidfile", "run.pid").out
    with running(
        *("--redis", redis_url, "--relay", "smtp://127.0.0.1:1", "--pidfile", "run.pid")
    ) as process:
        wait_for(lambda: PidFile(folder / "run.pid").owner() == process.pid)


def test_redis_of_ours_is_started_by_run_and_ended_by_stop(folder: Path) -> None:
    if embedded.listens():
        pytest.skip("something listens on port 6379 of this machine")
    try:
        with running("--relay", "smtp://127.0.0.1:1") as process:
            wait_for(PidFile(folder / "data" / "redis" / "redis.pid").owner)
            process.send_signal(signal.SIGKILL)
        assert geomail("stop", "--redis-server").out == "Redis has ended\n"
    finally:
        embedded.stop(folder / "data")
    assert geomail("stop", "--redis-server").out.startswith("no Redis of ours runs in ")
    assert not embedded.listens()


def test_send_awaits_a_redis_of_ours_that_is_about_to_start(folder: Path) -> None:
    if embedded.listens():
        pytest.skip("something listens on port 6379 of this machine")
    starter = Timer(1.0, embedded.ensure, [str(folder / "data")])
    starter.start()
    try:
        ended = geomail("send", "--to", "ann@example.org", "--from", "news@example.com")
        starter.join(20)
    finally:
        embedded.stop(folder / "data")
    assert (ended.err, ended.status) == ("", 0)


@pytest.fixture
def heeded_ctrl_c() -> Iterator[None]:
    """Let children obey Ctrl-C: those of a background job of a shell would inherit to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_ctrl_c")
def test_ctrl_c_during_a_wait_says_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "geomail", "status", "--redis", url]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as asks:
            try:
                silent.accept()[0].close()  # the look whether anybody is there
                with silent.accept()[0] as asked:
                    assert asked.recv(100)
                    wait_for(lambda: ") S " in Path(f"/proc/{asks.pid}/stat").read_text())
                    asks.send_signal(signal.SIGINT)
                    _, said = asks.communicate(timeout=20)
            finally:
                asks.kill()
    assert (said, asks.returncode) == (b"geomail: interrupted\n", -signal.SIGINT)


def test_several_workers_share_one_redis_of_ours(folder: Path) -> None:
    if embedded.listens():
        pytest.skip("something listens on port 6379 of this machine")
    try:
        with running("--relay", "smtp://127.0.0.1:1", "--processes", "2") as process:
            wait_for(PidFile(folder / "data" / "redis" / "redis.pid").owner)
            wait_for(lambda: len(Queue(Link(embedded.URL), "queue:email").counts().workers) == 2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert embedded.listens()
    finally:
        embedded.stop(folder / "data")


def test_send_reads_no_more_than_a_job_may_have(folder: Path) -> None:
    for option in ("--text", "--attach"):
        ended = geomail("send", "--to", "a@example.org", option, "/dev/zero", "--redis", NOWHERE)
        assert ended.status == 2
        assert ended.err == "geomail: /dev/zero is too large: a job has at most 33,554,432 bytes\n"
