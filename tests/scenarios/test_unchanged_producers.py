"""The producers of the five systems, as they are: their own bytes, by their own programs."""

import statistics
import subprocess
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from scenarios.stage import Stage

PRODUCERS = Path(__file__).parents[1] / "producers"

LATE_S = (
    0.25  # 0.002 on a machine that is idle (bench/producers.py); a look of its own comes after 5
)


def run(program: str, name: str, *arguments: object) -> str:
    """Run a producer to its end, and return what it printed."""
    command = [program, str(PRODUCERS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["serialize", "json", "option"])
def test_mixphp_pushes_by_phpredis(stage: Stage, php: str, how: str) -> None:
    host = stage.host(keeps=True)
    stage.worker(relay=host)
    run(php, "mixphp.php", stage.server.port, how)
    host.has_taken(1)
    [mail] = host.look()
    assert mail.to == ["u0@example.org", "v0@example.org"]
    message = message_from_bytes(mail.content, policy=policy.default)
    assert message["To"] == "A name <u0@example.org>, 收件人 <v0@example.org>"
    assert message["Subject"] == "测试邮件 Grüße"
    assert message.get_content().splitlines() == ["这是正文", "Here is the message itself"]


def test_a_mail_is_on_its_way_at_once(stage: Stage, php: str) -> None:
    host = stage.host()
    stage.worker(relay=host)
    run(php, "mixphp.php", stage.server.port)
    host.has_taken(1)
    pushed = run(php, "mixphp.php", stage.server.port, "serialize", 21, 20_000)
    host.has_taken(22)
    arrived = sorted(mail.at for mail in host.look())[1:]
    took_s = [at - float(time) for at, time in zip(arrived, pushed.split(), strict=True)]
    assert statistics.median(took_s) < LATE_S
