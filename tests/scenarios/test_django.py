"""Django's own calls, through geomail's backend and a worker, to a host: what is there reads the
same as what Django's own backends make of it."""

import email.policy
from collections.abc import Iterator
from email.message import EmailMessage as Message
from email.mime.image import MIMEImage
from typing import Any

import django
import pytest
from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.test.utils import override_settings
from django.utils.functional import lazystr

import geomail
from scenarios.stage import Host, Stage, until

if not settings.configured:
    settings.configure(
        USE_TZ=True,
        EMAIL_BACKEND="geomail.django.EmailBackend",
        DEFAULT_FROM_EMAIL="Shop <shop@example.com>",
        ADMINS=[("Ädmin", "admin@example.org")],
        SERVER_EMAIL="root@example.com",
    )
    django.setup()


@pytest.fixture
def host(stage: Stage) -> Iterator[Host]:
    """Give a host without 8BITMIME that keeps what it takes; mail goes there."""
    host = stage.host(keeps=True, policy={"eight_bit": False, "smtputf8": False})
    stage.worker(relay=host)
    with override_settings(GEOMAIL={"redis": stage.server.url, "timeout_s": 10}):
        yield host


def read(host: Host, count: int = 1) -> list[Message]:
    """Return the messages that the host has, in the order of their subjects."""
    host.has_taken(count)
    taken = [parsed(one.content) for one in host.look()]
    return sorted(taken, key=lambda message: str(message["Subject"]))


def parsed(content: bytes) -> Message:
    return email.message_from_bytes(content, policy=email.policy.default)


def parts(message: Any) -> list[tuple[Any, ...]]:
    """Return the tree of a message: types, names, contents."""
    return [
        (
            part.get_content_type(),
            part.get_filename(),
            part["Content-ID"],
            None if part.is_multipart() else lines(part.get_content()),
        )
        for part in message.walk()
    ]


def lines(content: object) -> object:
    """Return text as its lines, for how they end depends on the encoding."""
    return content.splitlines() if isinstance(content, str) else content


def test_send_mail_arrives(host: Host) -> None:
    sent = mail.send_mail(
        lazystr("Grüße"),
        "Schöne Grüße\nFrom here\n.\n..dots",
        None,
        ["Ann Ü <ann@example.org>", "jo@exämple.org"],
        html_message="<p>Schöne Grüße</p>",
    )
    assert sent == 1
    [message] = read(host)
    assert message["Subject"] == "Grüße"
    assert message["From"] == "Shop <shop@example.com>"
    assert parts(message)[1:] == [
        ("text/plain", None, None, ["Schöne Grüße", "From here", ".", "..dots"]),
        ("text/html", None, None, ["<p>Schöne Grüße</p>"]),
    ]
    [taken] = host.look()
    assert taken.sender == "shop@example.com"
    assert taken.to == ["ann@example.org", "jo@xn--exmple-cua.org"]
    assert taken.content.isascii()


def test_all_that_a_message_may_have(host: Host) -> None:
    logo = MIMEImage(b"\x89PNG\r\n", "png")
    logo.add_header("Content-ID", "<logo>")
    message = mail.EmailMultiAlternatives(
        "All of it",
        "Text",
        "Néws <news@example.com>",
        ["ann@example.org"],
        bcc=["secret@example.org"],
        cc=["copy@example.org"],
        reply_to=["Änswers <answers@example.com>"],
        headers={"X-Tag": "ä", "Message-ID": "<one@example.com>", "From": "Shown <s@example.com>"},
    )
    message.attach_alternative("<img src='cid:logo'>", "text/html")
    message.attach_alternative("BEGIN:VCALENDAR", "text/calendar")
    message.attach("prices ä.csv", "ä;1\r\n", "text/csv")
    message.attach("data.bin", bytes(range(256)), "application/octet-stream")
    message.attach("mail.eml", mail.EmailMessage("Inner", "ü"), "message/rfc822")
    message.attach(logo)
    assert message.send() == 1
    [arrived] = read(host)
    assert arrived["X-Tag"] == "ä"
    assert arrived["Message-ID"] == "<one@example.com>"
    assert arrived["From"] == "Shown <s@example.com>"
    assert arrived["Reply-To"] == "Änswers <answers@example.com>"
    assert "secret" not in str(arrived)
    wanted = parsed(message.message().as_bytes())
    for one in (wanted, arrived):  # each writing makes dates and ids of its own
        inner = next(part for part in one.walk() if part["Subject"] == "Inner")
        del inner["Date"], inner["Message-ID"]
    assert parts(arrived) == parts(wanted)
    [taken] = host.look()
    assert taken.sender == "news@example.com"
    assert taken.to == ["ann@example.org", "copy@example.org", "secret@example.org"]


def test_many_and_those_to_admins(host: Host) -> None:
    mail.mail_admins("Wrong", "something")
    some = [(f"Many {n}", "text", "a@example.com", [f"u{n}@example.org"]) for n in range(3)]
    assert mail.send_mass_mail([*some, ("Nobody", "text", None, [])]) == 3
    subjects = [message["Subject"] for message in read(host, 4)]
    assert subjects == ["Many 0", "Many 1", "Many 2", "[Django] Wrong"]
    assert ["admin@example.org"] in [one.to for one in host.look()]


def test_more_keys_of_the_payload_and_the_id(host: Host, stage: Stage) -> None:
    message: Any = mail.EmailMessage("Once", "text", None, ["ann@example.org"])
    message.geomail = {"dedupe_key": "once", "id": "order-4711", "send_at": "2030-01-01"}
    assert message.send() == 1
    job_id = message.geomail_id
    client = geomail.Client(stage.server.url)
    until(lambda: (client.outcome(job_id) or {}).get("outcome") == "delayed")
    assert "order-4711" in stage.ask("why", "order-4711")


def test_what_can_not_be_sent(host: Host) -> None:
    broken = ("Sub\nject", "text", None, ["ann@example.org"])
    with pytest.raises(mail.BadHeaderError):
        mail.send_mail(*broken)
    assert mail.send_mail(*broken, fail_silently=True) == 0
    with pytest.raises(geomail.PayloadError, match="rcpt_to"):
        mail.EmailMessage("s", "t", None, bcc=["nobody"]).send()
    both = [mail.EmailMessage("s", "t", None, [to]) for to in ("nobody@", "ann@example.org")]
    assert mail.get_connection(fail_silently=True).send_messages(both) == 1
    read(host)


def test_redis_is_away() -> None:
    with override_settings(GEOMAIL={"redis": "redis://127.0.0.1:1", "timeout_s": 0.3}):
        with pytest.raises(geomail.RedisAway):
            mail.send_mail("s", "t", None, ["ann@example.org"])
        assert mail.send_mail("s", "t", None, ["ann@example.org"], fail_silently=True) == 0


def test_a_setting_that_is_not_known() -> None:
    with (
        override_settings(GEOMAIL={"reddis": "redis://127.0.0.1:1"}),
        pytest.raises(ImproperlyConfigured, match="did you mean redis"),
    ):
        mail.get_connection()


def test_options_go_before_the_settings(stage: Stage) -> None:
    with override_settings(GEOMAIL={"redis": stage.server.url, "queue": "bulk"}):
        backend = mail.get_connection(queue="urgent")
        assert mail.send_mail("s", "t", None, ["ann@example.org"], connection=backend) == 1
    assert stage.redis.hlen("{urgent}:jobs") == 1


def test_it_takes_what_other_backends_take() -> None:
    options = {"username": "u", "password": "p", "host": "h", "port": 25, "use_tls": True}
    assert mail.get_connection("geomail.django.EmailBackend", **options)
