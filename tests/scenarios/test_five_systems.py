"""One geomail with the README's file for the PHP systems, and their producers, all at once."""

import json
import os
import re
import sys
from email import message_from_bytes, policy
from pathlib import Path

import trustme

from scenarios.producers import run
from scenarios.stage import Host, Process, Stage, free_port, until
from scenarios.test_tls import certificate
from scenarios.web_host import Web, web_host

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
LOGIN = {"shop@example.com": "sesame"}
RESIZE = (
    "<?php copy('php://stdin', __DIR__ . '/half'); rename(__DIR__ . '/half', __DIR__ . '/done');"
)
MAIL = {"from_email": "a@example.com", "to_email": "t@example.org", "title": "t", "content": "c"}


def test_the_producers_of_all_find_what_they_knew(stage: Stage, php: str) -> None:
    authority = trustme.CA()
    files = certificate(stage, authority)
    host = stage.host(
        implicit_tls=True, logins=LOGIN, policy={"require_auth": True}, keeps=True, **files
    )
    authority.cert_pem.write_to_path(stage.folder / "ca.pem")
    stage.folder.joinpath("resize.php").write_text(RESIZE)
    with web_host() as web:
        port = free_port()
        parent = start(stage, changed(stage, host, web, port, php))
        run(php, "mixphp.php", stage.server.port)
        run(php, "swoole.php", port, json.dumps(MAIL))
        run(php, "swoole.php", port, json.dumps({"url": f"{web.url}/", "param": {"id": 1}}))
        run(php, "task_daemon.php", stage.server.port, '{"width": 80}')
        host.has_taken(2)
        until(lambda: web.seen and (stage.folder / "done").exists(), "the other tasks")
    assert web.seen[0].query == {"id": ["1"]}
    assert json.loads((stage.folder / "done").read_text())["params"] == {"width": 80}
    messages = [message_from_bytes(mail.content, policy=policy.default) for mail in host.look()]
    assert {str(message["From"]) for message in messages} == {
        "Shop <shop@example.com>",
        "a@example.com",
    }
    file = str(stage.folder / "geomail.toml")
    assert stage.ask("stop", "--config", file) == "geomail has ended\n"
    assert parent.wait() == 0


def changed(stage: Stage, host: Host, web: Web, port: int, php: str) -> str:
    """Return the README's file, with this stage's places put in."""
    blocks: list[str] = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    [text] = [block for block in blocks if "max_messages" in block]
    ca_file = f'\nca_file = "{stage.folder / "ca.pem"}"'
    places = {
        "@smtp.example.com:465": f"@localhost:{host.port}",
        "# the password": f"{ca_file}\n# the password",
        "/run/geomail.pid": str(stage.folder / "geomail.pid"),
        ":9501": f":{port}",
        '["api.example.com"]': '["127.0.0.1"]\nurl_networks = ["127.0.0.0/8"]',
        '"php", "/srv/tasks/resize.php"': f'"{php}", "{stage.folder / "resize.php"}"',
    }
    for theirs, ours in places.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return text


def start(stage: Stage, text: str) -> Process:
    """Run geomail with a file, and nothing else but where Redis is and the password."""
    stage.folder.joinpath("geomail.toml").write_text(text, "utf-8")
    env = {key: value for key, value in os.environ.items() if not key.startswith("GEOMAIL_")}
    env |= {"GEOMAIL_REDIS": stage.server.url, "GEOMAIL_DATA": str(stage.folder / "data")}
    env |= {"GEOMAIL_RELAY_PASSWORD": LOGIN["shop@example.com"]}
    command = [sys.executable, "-m", "geomail", "run", "--config", "geomail.toml"]
    parent = Process(command, folder=stage.folder, env=env, name="five")
    stage.processes.append(parent)
    until(lambda: parent.stderr.count(" running ") == 2, "two workers")
    return parent
