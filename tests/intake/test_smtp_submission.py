"""What a mail by SMTP becomes: payloads that admission reads, with the content untouched."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail import job
from geomail.intake.submission import (
    MOST_HOPS,
    Origin,
    Refusal,
    outline,
    payload,
    protocol,
    received,
)
from geomail.job import Address, Dsn, Email, RecipientDsn
from geomail.letter import compose
from geomail.smtp.server import Mail

CONTENT = b"Subject: one\r\n\r\n.dot\r\n\xff\x00\r\n"
FROM = Origin("me.example", "192.0.2.7", "ESMTP")
OURS = (
    b"Received: from me.example ([192.0.2.7])\r\n\tby mx.example (geomail) with ESMTP;\r\n"
    b"\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
)


def mail(content: bytes = CONTENT, *to: str, dsn: tuple[str, ...] = ()) -> Mail:
    return Mail("a@x.example", to or ("b@y.example",), content, smtputf8=False, dsn=dsn)


def made(what: Mail) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(payload(what, FROM, host="mx.example", now_s=0))
    return found | {"raw": base64.b64decode(found["raw"])}


def decoded(what: Mail) -> Email:
    found = job.decode(payload(what, FROM, host="mx.example", now_s=0))
    assert isinstance(found, Email)
    return found


def test_one_mail() -> None:
    assert made(mail(CONTENT, "b@y.example", "c@y.example")) == {
        "mail_from": "a@x.example",
        "rcpt_to": ["b@y.example", "c@y.example"],
        "raw": OURS + CONTENT,
    }


@given(st.binary(max_size=100), st.sampled_from(["", "NOTIFY=DELAY"]))
def test_the_outline_lacks_nothing_but_the_content(body: bytes, asked: str) -> None:
    what = mail(b"Subject: any\r\n\r\n" + body, "b@y.example", "c@y.example", dsn=("", asked, ""))
    outlined = json.loads(outline(what))
    assert outlined == {**json.loads(payload(what, FROM, host="x", now_s=0)), "raw": "LQ=="}


def test_the_null_sender_stays_one() -> None:
    email = decoded(Mail("", ("b@y.example",), CONTENT, smtputf8=False))
    assert email.mail_from == ""


@given(st.binary(max_size=300))
def test_whatever_the_body_it_arrives(body: bytes) -> None:
    content = b"Subject: any\r\n\r\n" + body.replace(b"\r", b"").replace(b"\n", b"\r\n")
    email = decoded(mail(content))
    assert email.raw == OURS + content


@pytest.mark.parametrize(
    ("content", "between"),
    [
        (b"", b""),
        (b"\r\nno header\r\n", b""),
        (b"Hello you\r\n", b"\r\n"),
        (b" indented: text\r\n", b"\r\n"),
        (b".\r\n", b"\r\n"),
        (b"a:", b""),
    ],
)
def test_content_without_a_header_is_a_body(content: bytes, between: bytes) -> None:
    assert made(mail(content))["raw"] == OURS + between + content


@pytest.mark.parametrize(
    ("content", "enhanced", "reason"),
    [
        (b"Subject: a\r\nnot a field\r\n\r\nx", "5.6.0", "line 2 is no header field"),
        (b"Subject: a\r\nnot a field", "5.6.0", "line 2 is no header field"),
        (b"Subject: a\r\n\r\n" + b"x" * 999, "5.6.0", "line 3 is longer than 998 octets"),
        (b"x" * 999, "5.6.0", "line 1 is longer than 998 octets"),
        (b"From a@x Thu Jan 1 00:00:00 1970\r\nSubject: a\r\n", "5.6.0", "of a mailbox file"),
        (b"Received: x\r\n" * (MOST_HOPS + 1) + b"\r\n", "5.4.6", "goes in circles"),
    ],
)
def test_what_no_host_could_be_given(content: bytes, enhanced: str, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as raised:
        made(mail(content))
    assert raised.value.enhanced == enhanced


def test_received_in_the_body_is_no_hop() -> None:
    assert made(mail(b"Subject: a\r\n\r\n" + b"Received: x\r\n" * 200))


@pytest.mark.parametrize(
    ("origin", "beginning"),
    [
        (Origin("a b", "::1", "ESMTPSA"), b"Received: from unknown ([IPv6:::1])\r\n"),
        (Origin("a", "fe80::1%eth0", "ESMTP"), b"Received: from a ([IPv6:fe80::1])\r\n"),
        (Origin("x" * 300, "127.0.0.1", "SMTP"), b"Received: from unknown ([127.0.0.1])\r\n"),
        (Origin("[127.0.0.1]", "127.0.0.1", "SMTP"), b"Received: from [127.0.0.1] ([127.0.0.1])"),
    ],
)
def test_the_field_says_nothing_that_was_made_up(origin: Origin, beginning: bytes) -> None:
    field = received(origin, host="mx.example", now_s=0)
    assert field.startswith(beginning)
    assert field.count(b"\r\n") == 3


def test_how_it_was_spoken() -> None:
    def said(**known: bool) -> str:
        usual = {"is_extended": True, "is_utf8": False, "is_encrypted": False, "has_login": False}
        return protocol(**{**usual, **known})

    assert said(is_extended=False) == "SMTP"
    assert said() == "ESMTP"
    assert said(is_encrypted=True, has_login=True) == "ESMTPSA"
    assert said(is_utf8=True, has_login=True) == "UTF8SMTPA"


def test_reports_that_all_want() -> None:
    asked = mail(dsn=("RET=hdrs ENVID=order+2B1+20a", "NOTIFY=success,failure"))
    email = decoded(asked)
    assert email.dsn == Dsn(("SUCCESS", "FAILURE"), "HDRS", "order+1 a")


def test_recipients_that_want_different_reports() -> None:
    asked = mail(
        CONTENT,
        *["a@y.example", "b@y.example", "c@y.example", "d@y.example"],
        dsn=("", "NOTIFY=NEVER", "ORCPT=rfc822;o+2B@y.example NOTIFY=delay", "", "NOTIFY=never"),
    )
    assert decoded(asked).dsn == Dsn(
        each={
            "a@y.example": RecipientDsn(("NEVER",)),
            "b@y.example": RecipientDsn(("DELAY",), "rfc822;o+@y.example"),
            "d@y.example": RecipientDsn(("NEVER",)),
        }
    )


def test_what_was_asked_is_asked_of_the_host() -> None:
    said = ("RET=HDRS ENVID=a+2Bb", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;o+2B+3D@y.example", "")
    email = decoded(mail(CONTENT, "b@y.example", "c@y.example", dsn=said))
    letter = compose(email, id="1", first_seen_ms=0, sender=Address("a@x.example"), eight_bit=True)
    assert letter.dsn == said
