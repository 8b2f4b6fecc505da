"""The producers of the five systems, as they are: their own bytes, by their own programs."""

import json
from email import message_from_bytes, policy

import pytest

from scenarios.producers import run
from scenarios.stage import Stage, until

PORTED = """
import geomail, json, os

@geomail.task
class Images:
    def _task_resize(self, params):
        with open("half", "w") as file:
            json.dump(params, file)
        os.rename("half", "done")
"""
UNPORTED = """<?php
file_put_contents(__DIR__ . '/half', stream_get_contents(STDIN));
rename(__DIR__ . '/half', __DIR__ . '/done');
"""


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


def test_the_task_daemons_jobs_call_the_method_of_the_class(stage: Stage, php: str) -> None:
    stage.folder.joinpath("shop.py").write_text(PORTED)
    stage.worker(tasks="shop")
    run(php, "task_daemon.php", stage.server.port, '{"width": 80, "of": ["ä"]}')
    done = stage.folder / "done"
    until(done.exists)
    assert json.loads(done.read_text()) == {"width": 80, "of": ["ä"]}
    until(stage.is_clean)


def test_the_task_daemons_jobs_run_a_program(stage: Stage, php: str) -> None:
    file, script = stage.folder / "geomail.toml", stage.folder / "resize.php"
    script.write_text(UNPORTED)
    file.write_text(f'[task.Images.resize]\ncommand = ["{php}", "{script}"]\n')
    stage.worker("--config", str(file))
    run(php, "task_daemon.php", stage.server.port, '{"width": 80}')
    done = stage.folder / "done"
    until(done.exists)
    told = json.loads(done.read_text())
    assert (told["class"], told["worker"], told["params"]) == ("Images", "resize", {"width": 80})
    until(stage.is_clean)
