"""What nobody can deliver: a dead letter with a reason its author understands, and no harm done."""

import base64
import json

import pytest

from scenarios.stage import Stage, mail, once_each, php, until, users


def _deep(levels: int) -> bytes:
    return b'{"to":' + b"[" * levels + b"]" * levels + b"}"


BAD = {
    "no JSON, no PHP": (b"hello", "JSON"),
    "empty": (b"", "empty"),
    "forged reference": (b"\x01abc.1.0", "JSON"),
    "cut JSON": (b'{"to": ["a@example.org"', "JSON"),
    "cut PHP": (php({"to": "a@example.org"})[:-4], "PHP"),
    "a PHP object": (b'a:1:{s:2:"to";O:8:"stdClass":0:{}}', "object"),
    "a list": (b'["a@example.org"]', "list"),
    "unknown shape": ({"greetings": "to all"}, "unknown shape"),
    "no recipient": (mail(0, to=[]), "recipient"),
    "no address": (mail(0, to=["nobody"]), "nobody"),
    "line end in a subject": (mail(0, subject="a\r\nBcc: x@example.org"), "control"),
    "line end in an address": (mail(0, to=["a@example.org\r\nRCPT TO:<x@y>"]), "control"),
    "header that is ours": (mail(0, headers={"Bcc": "x@example.org"}), "Bcc"),
    "base64 that isn't": (
        mail(0, attachments=[{"filename": "a", "content": "§§§"}]),
        "base64",
    ),
    "a path for an attachment": (mail(0, attachments=["/etc/passwd"]), "attachment"),
    "10,000 recipients": (mail(0, to=users(10_000)), "1,000"),
    "nesting": (_deep(10_000), "deep"),
    "PHP nesting": (b"a:1:{i:0;" * 10_000, "deep"),
    "unknown relay": (mail(0, relay="defualt"), "known: default"),
    "no UTF-8": (php({"to": "a@example.org", "subject": b"\xe9t\xe9", "body": "x"}), "UTF-8"),
    "a call": ({"worker": "clean", "class": "Task", "params": {}}, "calls are off"),
}


@pytest.fixture
def reasons(stage: Stage) -> dict[str, str]:
    """Give the reason of each bad payload, sent one at a time amid good mails, by a burst."""
    host = stage.host()
    names = list(BAD)
    for number, name in enumerate(names):
        stage.push([mail(number), BAD[name][0]])
    stage.push([mail(len(names))])
    assert stage.burst(relay=host) == f"left delayed=0 parked=0 dead={len(names)}"
    once_each(host.arrivals(), users(len(names) + 1))
    letters = {letter.id: letter for letter in stage.dead()}
    found = {}
    for name in names:
        payload = BAD[name][0]
        wire = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        (match,) = [i for i in letters if _payload(stage, i) == wire]
        found[name] = letters.pop(match).reason
    return found


def _payload(stage: Stage, job_id: str) -> bytes | None:
    letter = stage.queue.dead_show(job_id)
    return letter.payload if letter else None


def test_each_becomes_a_dead_letter_that_says_why(reasons: dict[str, str]) -> None:
    wrong = {
        name: reason
        for name, reason in reasons.items()
        if BAD[name][1].lower() not in reason.lower() or len(reason) > 300
    }
    assert not wrong, json.dumps(wrong, indent=1)
    assert all(reason.isprintable() for reason in reasons.values())


def test_a_payload_of_50_mb_is_dead_and_the_rest_goes_on(stage: Stage) -> None:
    host = stage.host()
    big = mail("x", attachments=[{"filename": "a", "content": "A" * 50_000_000}])
    stage.push([mail(0), big, mail(1)])
    assert stage.burst(relay=host).endswith("dead=1")
    once_each(host.arrivals(), users(2))
    assert "32 MiB" in stage.dead()[0].reason


def test_a_producer_cannot_forge_a_reference(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, relay="nobody")])
    stage.burst(relay=host)
    (victim,) = stage.dead()
    stage.push([b"\x01" + victim.id.encode(), mail(1)])
    assert stage.burst(relay=host).endswith("dead=2")
    once_each(host.arrivals(), ["u1@example.org"])


def test_dead_letters_are_listed_shown_tried_again_and_dropped(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host)
    attachment = {"filename": "a", "content": base64.b64encode(b"x").decode()}
    stage.push([mail(0, relay="blue"), mail(1, attachments=[attachment]), b"\x1b[31mred\n", b"{}"])
    until(lambda: stage.counts().dead == 3 and host.look())
    listed = json.loads(stage.ask("dead", "list", "--json"))
    by_reason = {letter["reason"]: letter["id"] for letter in listed}
    (lost,) = [i for reason, i in by_reason.items() if "blue" in reason]
    assert "relay 'blue' is not known" in stage.ask("dead", "show", lost)
    for letter in listed:
        shown = stage.ask("dead", "show", letter["id"])
        assert "\x1b" not in shown
    assert lost in stage.ask("dead", "list", "--reason", "blue")
    assert "1 put back" in stage.ask("dead", "retry", lost)
    until(lambda: stage.counts().dead == 3)
    assert "3 dropped" in stage.ask("dead", "drop", "--all")
    assert stage.ask("dead", "list") == "no dead letters\n"
    assert "not dead" in stage.refusal("dead", "drop", lost)
    assert worker.is_running
    assert stage.is_clean()


def test_what_was_put_right_goes_out_on_retry(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, relay="blue"), mail(1, relay="blue")])
    stage.burst(relay=host)
    file = stage.folder / "geomail.toml"
    file.write_text(f'[relay.blue]\nurl = "{host.url}"\n')
    assert "2 put back" in stage.ask("dead", "retry", "--reason", "blue")
    assert stage.burst("--config", str(file)) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(2))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no relay"),
        (["--relay", "mail.example.com"], "smtp://"),
        (["--relay", "http://mail.example.com"], "http"),
        (["--relay", "smtp://mail.example.com:99999"], "port"),
        (["--relay", "smtps://ann@mail.example.com"], "GEOMAIL_RELAY_PASSWORD"),
        (["--relay", "smtp://h", "--concurrency", "many"], "--concurrency"),
        (["--relay", "smtp://h", "--concurency", "5"], "--concurrency"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(stage: Stage, flags: list[str], words: str) -> None:
    worker = stage.worker(*flags)
    assert worker.wait() == 2
    assert worker.stderr.count("\n") == 1, worker.stderr
    assert words in worker.stderr
