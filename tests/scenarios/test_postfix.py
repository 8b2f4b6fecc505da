"""A real, strict Postfix takes all kinds of mail over STARTTLS: each arrives as it was meant."""

import base64
import os
import random
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme

from scenarios.postfix_host import Postfix
from scenarios.stage import Stage, mail, until

COUNT = 1_000
WORDS = (
    *("weiß", "Grüße", "日本語", "Ünïcödé", "naïve", "🎉", "plain", "words", "of", "a", "mail"),
    *(".", "..", ".dot", "--", "From", "=", "&", "<b>"),
)
KINDS = ("text", "both", "html", "long", "dots", "empty", "files", "inline", "copies", "raw")


@pytest.fixture
def postfix(tmp_path: Path, needs_program: Any) -> Iterator[Postfix]:
    """Give a running Postfix of our own."""
    program = needs_program("postfix")
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("Postfix wants root")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    host = Postfix(program, {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")})
    try:
        host.start()
        yield host
    finally:
        host.stop()


def test_a_thousand_mails_of_all_kinds(stage: Stage, postfix: Postfix) -> None:
    jobs = {f"n{number}": job(number) for number in range(COUNT)}
    stage.push(jobs.values())
    config = stage.folder / "geomail.toml"
    url = f"smtp+starttls://localhost:{postfix.port}"
    ca_file = stage.folder / "ca.pem"
    config.write_text(f'[relay.default]\nurl = "{url}"\nca_file = "{ca_file}"\n')
    last = stage.burst("--config", str(config))
    assert last == "left delayed=0 parked=0 dead=0", stage.dead()[:3]
    expected = sum(len(recipients_of(each)) for each in jobs.values())
    until(lambda: postfix.count() >= expected, f"{expected} mails", within_s=60)
    seen: set[tuple[str, str]] = set()
    for content in postfix.mails():
        seen.add(compare(content, jobs))
    assert len(seen) == expected == postfix.count()
    assert postfix.log.count("status=sent") == expected
    assert "TLS connection established" in postfix.log
    complaints = [line for line in postfix.log.splitlines() if is_complaint(line)]
    assert not complaints, complaints[:5]


def is_complaint(line: str) -> bool:
    """Return whether Postfix found fault with how we speak."""
    return bool(re.search(r"improper|error|reject|warning: (?!.*compat)|fatal|panic", line))


# ---- jobs of all kinds


def job(number: int) -> dict[str, Any]:
    """Return one job; what kind of mail it is follows from its number."""
    dice = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    fields = mail(number, subject=sentence(dice, 1, 30), text=body(dice))
    fields["to"] = [{"email": f"u{number}@example.org", "name": sentence(dice, 0, 6)}]
    fields["headers"] = {"X-Number": str(number)}
    return SHAPES[kind](fields, dice)


def sentence(dice: random.Random, low: int, high: int) -> str:
    """Return some words in one line."""
    return " ".join(dice.choice(WORDS) for _ in range(dice.randint(low, high)))


def body(dice: random.Random) -> str:
    """Return some lines."""
    return "\n".join(sentence(dice, 0, 15) for _ in range(dice.randint(1, 20)))


def _both(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields | {"html": f"<p>{body(dice)}</p>"}


def _html(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    del fields["text"]
    return fields | {"html": f"<p>{body(dice)}</p>"}


def _long(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    lines = [dice.choice("xé.") * dice.randint(900, 5_000) for _ in range(3)]
    return fields | {"text": "\n".join(lines), "subject": sentence(dice, 60, 120)}


def _dots(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    lines = [dice.choice((".", "..", ".x", "x.", "", "...")) for _ in range(40)]
    return fields | {"text": "\n".join([".", *lines, "."])}


def _empty(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields | {"text": "", "subject": ""}


def _attachment(dice: random.Random, **more: str) -> dict[str, str]:
    names = ("a.pdf", "Übersicht 2030.xlsx", "日本語.txt", 'quote".bin', "x" * 120 + ".dat")
    content = base64.b64encode(dice.randbytes(dice.randint(0, 30_000))).decode()
    return {"filename": dice.choice(names), "content": content, "type": "application/pdf", **more}


def _files(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields | {"attachments": [_attachment(dice) for _ in range(dice.randint(1, 3))]}


def _inline(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    picture = _attachment(dice, cid="logo@example.com", type="image/png")
    html = f'<img src="cid:logo@example.com">{body(dice)}'
    return fields | {"html": html, "attachments": [picture, _attachment(dice)]}


def _copies(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    number = fields["id"]
    return fields | {
        "cc": f"Copy <cc-{number}@example.org>",
        "bcc": [f"bcc-{number}@example.org"],
        "reply_to": "Grüße <answers@example.com>",
    }


def _raw(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    finished = EmailMessage(policy=policy.SMTP)
    finished["From"], finished["To"] = "news@example.com", fields["to"][0]["email"]
    finished["Subject"], finished["X-Number"] = fields["subject"], fields["id"][1:]
    finished.set_content(fields["text"], cte="base64")
    return {
        "id": fields["id"],
        "mail_from": "news@example.com",
        "rcpt_to": [fields["to"][0]["email"]],
        "raw": base64.b64encode(finished.as_bytes()).decode(),
    }


def _as_it_is(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields


SHAPES = {
    "text": _as_it_is,
    "both": _both,
    "html": _html,
    "long": _long,
    "dots": _dots,
    "empty": _empty,
    "files": _files,
    "inline": _inline,
    "copies": _copies,
    "raw": _raw,
}


# ---- what arrived, against its job


def recipients_of(fields: dict[str, Any]) -> list[str]:
    """Return who has to get a job's mail."""
    if "raw" in fields:
        return list(fields["rcpt_to"])
    number = fields["id"]
    copies = [f"cc-{number}@example.org", f"bcc-{number}@example.org"] if "cc" in fields else []
    return [fields["to"][0]["email"], *copies]


def compare(content: bytes, jobs: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Check one mail against its job, and return which it is, and for whom."""
    letter = message_from_bytes(content, policy=policy.default)
    assert isinstance(letter, EmailMessage)
    label = f"n{letter['x-number']}"
    fields = jobs[label]
    wanted = finished_ones(fields) if "raw" in fields else fields
    assert not letter.defects, (label, letter.defects)
    assert plain(str(letter["subject"])) == plain(wanted["subject"]), label
    assert letter["return-path"] == "<news@example.com>"
    assert letter["bcc"] is None
    assert b"bcc-" not in content.split(b"\nReceived:", 1)[1].replace(b"for <bcc-", b"")
    for name in ("date", "message-id", "from", "mime-version"):
        assert len(letter.get_all(name, [])) == 1, (label, name)
    for subtype, key in (("plain", "text"), ("html", "html")):
        assert text_of(letter, subtype) == wanted.get(key, "").removesuffix("\n"), (label, key)
    check_addresses(letter, fields)
    check_files(letter, fields.get("attachments", []))
    recipient = str(letter["x-original-to"])
    assert recipient in recipients_of(fields)
    return label, recipient


def finished_ones(fields: dict[str, Any]) -> dict[str, str]:
    """Return subject and text of a job that is a finished message."""
    letter = message_from_bytes(base64.b64decode(fields["raw"]), policy=policy.default)
    assert isinstance(letter, EmailMessage)
    return {"subject": str(letter["subject"]), "text": text_of(letter, "plain")}


def plain(text: str) -> str:
    """Return a text without the spaces that the reader may put between encoded words."""
    return re.sub(r"\s+", "", text)


def text_of(letter: EmailMessage, subtype: str) -> str:
    """Return the body of this subtype with LF, without a last line end."""
    for part in letter.walk():
        is_file = part.get_content_disposition() is not None
        if part.get_content_type() == f"text/{subtype}" and not is_file:
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload.decode().replace("\r\n", "\n").removesuffix("\n")
    return ""


def check_addresses(letter: EmailMessage, fields: dict[str, Any]) -> None:
    """Check the fields that name people."""
    assert letter["from"].addresses[0].addr_spec == "news@example.com"
    if "raw" in fields:
        return
    (to,) = letter["to"].addresses
    assert to.addr_spec == fields["to"][0]["email"]
    assert plain(to.display_name) == plain(fields["to"][0]["name"])
    if "cc" in fields:
        assert str(letter["cc"]) == fields["cc"]
        assert letter["reply-to"].addresses[0].display_name == "Grüße"


def check_files(letter: EmailMessage, attachments: list[dict[str, str]]) -> None:
    """Check the attachments: their order, names, types and octets."""
    parts = [part for part in letter.walk() if part.get_content_disposition() is not None]
    assert len(parts) == len(attachments)
    for part, attachment in zip(parts, attachments, strict=True):
        assert part.get_filename() == attachment["filename"]
        assert part.get_content_type() == attachment["type"]
        assert part.get_payload(decode=True) == base64.b64decode(attachment["content"])
        if "cid" in attachment:
            assert part["content-id"] == f"<{attachment['cid']}>"
            assert part.get_content_disposition() == "inline"
