"""Mail of all kinds: jobs for it, its way to a real server, and what arrived against its job.

What kind of mail a job is for follows from its number. Nobody has a name that begins with
`refused`: a server of the tests takes none for it, and what arrives never shows its name but in Cc.
"""

import base64
import json
import random
import re
from collections.abc import Iterable, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from scenarios.peer import Peer
from scenarios.stage import Stage, mail, until

CONCURRENCY = 8
WORDS = (
    *("weiß", "Grüße", "日本語", "Ünïcödé", "naïve", "🎉", "plain", "words", "of", "a", "mail"),
    *(".", "..", ".dot", "--", "From", "=", "&", "<b>"),
)
_TRACE = {"received", "return-path", "delivered-to", "x-original-to"}


def deliver(
    stage: Stage, peer: Peer, wanted: Mapping[str, dict[str, Any]], /, **relay: object
) -> None:
    """Send the mail of all jobs `wanted` to `peer`, and check what becomes of it.

    All arrives as it was meant, what is refused is dead with the server's words, and the server
    finds no fault with how we speak. `relay`: what geomail.toml says of this relay, as its URL.
    """
    stage.push(wanted.values())
    config = stage.folder / "geomail.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in relay.items()]
    config.write_text("\n".join(["[relay.default]", *lines]))
    refused = {label for label, fields in wanted.items() if is_refused(fields)}
    last = stage.burst("--config", str(config), f"--concurrency={CONCURRENCY}")
    assert last == f"left delayed=0 parked=0 dead={len(refused)}", stage.dead()[:3]
    assert all("550" in letter.reason for letter in stage.dead())
    expected = sum(len(recipients_of(fields)) for fields in wanted.values())
    until(lambda: peer.count() >= expected, f"{expected} mails", within_s=60)
    seen = {compare(content, wanted) for content in peer.mails()}
    assert len(seen) == expected == peer.count()
    assert not peer.complaints(), peer.complaints()[:5]
    troubles = re.findall(r".* (?:WARNING|ERROR|deferred) .*", stage.processes[-1].stderr)
    assert not troubles, troubles[:5]


def jobs(numbers: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Return a job of each number, under its label."""
    return {f"n{number}": job(number) for number in numbers}


def mostly_refused() -> dict[str, dict[str, Any]]:
    """Return about a hundred jobs that nobody takes, and two that somebody does."""
    refused = {label: job for label, job in jobs(range(1_500)).items() if nobody_takes(job)}
    taken = {label: job for label, job in jobs(range(20)).items() if not is_refused(job)}
    return refused | dict(list(taken.items())[:2])


def job(number: int) -> dict[str, Any]:
    """Return one job; what kind of mail it is follows from its number."""
    dice = random.Random(number)
    kind = dice.choice(list(SHAPES))
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


def _partly(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields | {"cc": f"refused-{fields['id']}@example.org"}


def _refused(fields: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    return fields | {"to": [{"email": f"refused-{fields['id']}@example.org"}]}


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
    "partly": _partly,
    "refused": _refused,
}


# ---- what arrived, against its job


def recipients_of(fields: dict[str, Any]) -> list[str]:
    """Return who gets a job's mail, from a server that has them all but the refused ones."""
    return [each for each in _named(fields) if not each.startswith("refused")]


def nobody_takes(fields: dict[str, Any]) -> bool:
    """Return whether all recipients of the job are refused."""
    return not recipients_of(fields)


def is_refused(fields: dict[str, Any]) -> bool:
    """Return whether a recipient of the job is refused, so that it leaves a dead letter."""
    return len(recipients_of(fields)) < len(_named(fields))


def _named(fields: dict[str, Any]) -> list[str]:
    if "raw" in fields:
        return list(fields["rcpt_to"])
    copies = [fields["cc"].split("<")[-1].rstrip(">")] if "cc" in fields else []
    return [fields["to"][0]["email"], *copies, *fields.get("bcc", [])]


def compare(content: bytes, wanted: Mapping[str, dict[str, Any]]) -> tuple[str, str]:
    """Check one mail against its job, and return which it is, and for whom."""
    letter = message_from_bytes(content, policy=policy.default)
    assert isinstance(letter, EmailMessage)
    label = f"n{letter['x-number']}"
    fields = wanted[label]
    texts = finished_ones(fields) if "raw" in fields else fields
    assert not letter.defects, (label, letter.defects)
    assert plain(str(letter["subject"])) == plain(texts["subject"]), label
    assert letter["return-path"] == "<news@example.com>"
    assert letter["bcc"] is None
    written = [value for name, value in letter.items() if name.lower() not in _TRACE]
    assert not any("bcc-" in str(value) for value in written), label
    for name in ("date", "message-id", "from", "mime-version"):
        assert len(letter.get_all(name, [])) == 1, (label, name)
    for subtype, key in (("plain", "text"), ("html", "html")):
        assert text_of(letter, subtype) == texts.get(key, "").removesuffix("\n"), (label, key)
    check_addresses(letter, fields)
    check_files(letter, fields.get("attachments", []))
    recipient = str(letter["delivered-to"])
    assert recipient in recipients_of(fields)
    return label, recipient


def finished_ones(fields: dict[str, Any]) -> dict[str, str]:
    """Return subject and text of a job that is a finished message."""
    letter = message_from_bytes(base64.b64decode(fields["raw"]), policy=policy.default)
    assert isinstance(letter, EmailMessage)
    return {"subject": str(letter["subject"]), "text": text_of(letter, "plain") + "\n"}


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
    if "reply_to" in fields:
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
