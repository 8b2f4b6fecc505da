"""The README is true: its tables are generated, and every example in it is executed."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from geomail import config, job, relays, usage
from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.delivery.pace import retry_delay_s
from geomail.queue import FRESH, Done, Followed, Link, Queue, Slot
from geomail.worker.callbacks import Callbacks
from geomail.worker.clock import RedisClock

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GEOMAIL_")},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.partition("  #")[0].strip().removesuffix("&") for line in lines]


def test_the_settings_are_those_of_config() -> None:
    assert config.settings_table() in README


def test_the_keys_of_a_relay_are_those_of_relays() -> None:
    assert relays.keys_table() in README


def test_the_demo_runs_in_a_new_virtual_environment(tmp_path: Path) -> None:
    command = next(line for line in commands() if line.startswith("scripts/demo"))
    done = subprocess.run(
        [ROOT / command.strip(), "--count", "300"],
        env={**ENVIRONMENT, "GEOMAIL_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "delivered" in done.stdout


def test_both_commands_of_a_fresh_machine_are_there() -> None:
    for name in ("scripts/demo", "scripts/test"):
        assert name in [line.strip() for line in commands()]
        assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize(
    "line", [line.strip() for line in commands() if line.startswith("geomail ")]
)
def test_every_command_can_be_typed(line: str) -> None:
    given = usage.read(shlex.split(line)[1:])
    if given["hold"] or given["resume"]:
        given["--relay"] = []  # there it is a name
    config.load(given, {"GEOMAIL_RELAY_PASSWORD": "secret"}, places=())


def test_the_first_steps_deliver_a_mail(redis_url: str, tmp_path: Path) -> None:
    block = next(block for block in blocks("sh") if "geomail send" in block)
    steps = [line for line in block.splitlines() if line.startswith("geomail ")]
    script = "\n".join(["trap 'kill $(jobs -p); wait' EXIT", *steps, "read _"])
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    process = subprocess.Popen(
        ["bash", "-c", script.replace(":2525", f":{port}")],
        cwd=ROOT,
        env={**ENVIRONMENT, "GEOMAIL_REDIS": redis_url, "GEOMAIL_DATA": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        queue = Queue(Link(redis_url))
        until(lambda: queue.counts().stats.get("delivered") == 1)
    finally:
        output, _ = process.communicate("\n", timeout=30)
    assert "is on queue:email" in output


def test_the_first_producer_makes_a_mail(
    redis_url: str, needs_program: Callable[[str], str]
) -> None:
    line = next(line for line in commands() if line.startswith("redis-cli"))
    command = [needs_program("redis-cli"), "-u", redis_url, *shlex.split(line)[1:]]
    assert subprocess.check_output(command, timeout=30) == b"1\n"
    email = the_mail(redis_url)
    assert email.recipients == ["ann@example.org"]
    assert email.text == "It works."


def test_the_python_producer_makes_mails(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, _, _ = blocks("python")
    assert "redis://127.0.0.1:6379" in code
    exec(code.replace("redis://127.0.0.1:6379", redis_url), {})
    email, *others = mails(redis_url)
    assert email.recipients == ["ann@example.org", "bo@example.org"]
    assert email.subject == "Grüße"
    assert email.attachments[0].content == (ROOT / "README.md").read_bytes()
    assert [each.recipients for each in others] == [["ann@example.org"], ["bo@example.org"]]


def test_the_settings_for_django_are_used(redis_url: str) -> None:
    _, code, _ = blocks("python")
    django = """
from django import conf
from django.core import mail
conf.settings.configure(EMAIL_BACKEND=EMAIL_BACKEND, GEOMAIL=GEOMAIL)
assert mail.send_mail("Hello", "It works.", "n@example.com", ["ann@example.org"]) == 1
"""
    code = code.replace("redis://127.0.0.1:6379", redis_url) + django
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
    assert the_mail(redis_url).recipients == ["ann@example.org"]


def test_the_php_producer_makes_a_mail(redis_url: str, php: str) -> None:
    (code,) = blocks("php")
    port = redis_url.rpartition(":")[2].partition("/")[0]
    assert "connect('127.0.0.1')" in code
    code = code.replace("'127.0.0.1'", f"'127.0.0.1', {port}")
    subprocess.run([php, "-r", code], check=True, timeout=30)
    email = the_mail(redis_url)
    assert email.to == [job.Address("ann@example.org", "Ann")]
    assert email.text == "It works."


@contextmanager
def doors(redis_url: str) -> Iterator[Callable[[str], str]]:
    """Open the doors as the README does, and give what puts their ports into a text."""
    line = next(line for line in commands() if line.startswith("geomail listen"))
    found = re.findall(r":(\d+)", line)
    with ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in found]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = {port: str(one.getsockname()[1]) for port, one in zip(found, free, strict=True)}

    def with_ports(text: str) -> str:
        return re.sub(r"(127\.0\.0\.1[:/])(\d+)", lambda hit: hit[1] + ports[hit[2]], text)

    command = [*shlex.split(with_ports(line)), "--redis", redis_url]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in found]
            assert all("listening" in each for each in said), said
            yield with_ports
        finally:
            process.terminate()


def test_the_doors_let_mails_in(
    redis_url: str, needs_program: Callable[[str], str], tmp_path: Path
) -> None:
    block = next(block for block in blocks("sh") if "geomail listen" in block)
    _, curl, echo = block.splitlines()
    (script,) = blocks("js")
    place = tmp_path / "producer.mjs"
    with doors(redis_url) as with_ports:
        assert needs_program("curl")
        taken = subprocess.check_output(["bash", "-c", with_ports(curl)], timeout=30)
        assert json.loads(taken)["id"]
        place.write_text(with_ports(script) + "console.log(id);\n")
        said = subprocess.check_output([needs_program("node"), place], timeout=30, text=True)
        subprocess.run(["bash", "-c", with_ports(echo)], check=True, timeout=30)
        until(lambda: Queue(Link(redis_url)).counts().waiting == 3)
        assert Queue(Link(redis_url)).outcome(said.strip()) == {"outcome": "waiting"}
    assert sorted(mail.recipients[0][:3] for mail in mails(redis_url)) == ["ann", "ann", "bo@"]


def mails(redis_url: str) -> list[job.Email]:
    """Return what is on the queue."""
    queue = Queue(Link(redis_url))
    queue.register()
    jobs = [job.decode(slot.payload) for slot in queue.take(10).slots]
    queue.close()
    return [each for each in jobs if isinstance(each, job.Email)]


def the_mail(redis_url: str) -> job.Email:
    """Return the one mail on the queue."""
    [email] = mails(redis_url)
    return email


def test_the_file_is_understood(tmp_path: Path) -> None:
    text, _, _ = blocks("toml")
    place = tmp_path / "geomail.toml"
    place.write_text(text, "utf-8")
    settings = config.load({"--config": str(place)}, {"GEOMAIL_RELAY_PASSWORD": "x"}, places=())
    assert settings.concurrency == 50
    assert [member.host for member in settings.relays["default"].members] == [
        "mail1.example.com",
        "mail2.example.com",
    ]
    config.require_relays(settings)


def test_the_file_of_the_php_systems_is_understood(tmp_path: Path) -> None:
    _, text, _ = blocks("toml")
    place = tmp_path / "geomail.toml"
    place.write_text(text, "utf-8")
    settings = config.load({"--config": str(place)}, {"GEOMAIL_RELAY_PASSWORD": "x"}, places=())
    config.require_relays(settings)
    [relay] = settings.relays.values()
    [member] = relay.members
    assert (member.scheme, member.host, member.port) == ("smtps", "smtp.example.com", 465)
    assert member.user == "shop@example.com"
    assert settings.sender == "Shop <shop@example.com>"
    waits = [
        retry_delay_s(tries, base_s=settings.retry_base_s, cap_s=settings.retry_cap_s, chance=0)
        for tries in range(1, settings.retries + 1)
    ]
    assert waits == [1, 2, 4, 8]
    assert settings.listen_tcp == ("127.0.0.1", 9501)
    assert settings.commands["Images.resize"].argv[0] == "php"
    assert settings.max_messages == 16_000


def test_the_file_with_many_hosts_is_understood(tmp_path: Path) -> None:
    _, _, text = blocks("toml")
    place = tmp_path / "geomail.toml"
    place.write_text(text, "utf-8")
    settings = config.load({"--config": str(place)}, {"GEOMAIL_RELAY_PASSWORD": "x"}, places=())
    config.require_relays(settings)
    assert settings.queues == (("urgent", 8), ("queue:email", 4), ("bulk", 1))
    assert settings.relays["default"].weights == (3, 1)
    assert len(settings.routing) == 1


def test_the_tasks_of_the_readme_may_be_called(tmp_path: Path) -> None:
    *_, code = blocks("python")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tasks.py").write_text(code)
    (tmp_path / "geomail.toml").write_text('tasks = ["shop.tasks"]')
    ended = subprocess.run(
        ["geomail", "check", "--redis", "redis://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert "Images.resize: Python" in ended.stdout
    assert "tidy: Python" in ended.stdout


def test_the_callback_of_the_readme_is_what_is_sent() -> None:
    (shown,) = (json.loads(block) for block in blocks("json"))
    payload = {"to": "ann@example.org", "text": "", "id": shown["label"]}
    told = job.decode(json.dumps(payload | {"callback_url": "https://example.com/"}).encode())
    [recipient] = shown["recipients"]
    outcome = Outcome(Fate.DELIVERED, Blame.NOBODY, "content", recipient["reply"], 250)
    slot = Slot("9a539c7750fdc295", 1, 0, shown["id"], 0, 0, FRESH, b"")
    callbacks = Callbacks(Settings(url_hosts=("*",)), RedisClock())
    record = callbacks.after(Done(slot), told, [(recipient["addr"], outcome)], recipient["host"])
    assert isinstance(record, Followed)
    event = json.loads(record.payloads[0])["json"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["at"])
    assert event | {"at": shown["at"]} == shown


def test_the_keys_of_the_table_are_understood() -> None:
    payload = {
        "to": "ann@example.org",
        "from": "news@example.com",
        "cc": [],
        "bcc": None,
        "reply_to": "a@example.org",
        "return_path": "",
        "subject": "s",
        "text": "t",
        "html": "<p>t</p>",
        "attachments": [{"filename": "a.txt", "content": "YQ==", "type": "text/plain"}],
        "headers": {"X-Tag": "a"},
        "relay": "default",
        "send_at": "2030-01-01T09:00:00Z",
        "expires_at": 1893456000,
        "retries": 5,
        "id": "order-4711",
        "charset": "utf-8",
        "dedupe_key": "welcome-ann",
        "dsn": {"notify": ["failure"], "ret": "hdrs"},
        "callback_url": "https://example.com/told",
    }
    section = README.split("## What a payload may say")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named - payload.keys() == {"mail_from", "rcpt_to", "raw"}
    assert isinstance(job.decode(json.dumps(payload).encode()), job.Email)


def until(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)
