"""Mail that comes in by SMTP: what ordinary clients do, and what is in Redis then."""

import base64
import re
import smtplib
import socket
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from smtp_doors import ENVELOPE, LETTER, Opened, opened

MAILS = [b"Subject: %d\r\n\r\n.%d\r\n..\r\n" % (number, number) for number in range(3)]
STUFFED = [mail.replace(b"\r\n.", b"\r\n..") for mail in MAILS]
BURST = (
    b"EHLO me.example\r\n"
    + ENVELOPE
    + b"DATA\r\n"
    + STUFFED[0]
    + b".\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n"
    + STUFFED[1]
    + b".\r\n"
    + ENVELOPE
    + b"BDAT 5\r\n"
    + MAILS[2][:5]
    + b"BDAT %d LAST\r\n" % (len(MAILS[2]) - 5)
    + MAILS[2][5:]
    + b"NOOP\r\nQUIT\r\n"
)
BURST_CODES = [250, 250, 250, 354, 250, 250, 250, 250, 354, 250, 250, 250, 250, 250, 250, 221]


@pytest.fixture
def door(redis_url: str) -> Iterator[Opened]:
    with opened(redis_url) as running:
        yield running


def content_of(raw: bytes) -> bytes:
    """Return what stands behind our own field, which has three lines."""
    first, *lines = raw.split(b"\r\n", 3)
    assert first == b"Received: from me.example ([127.0.0.1])"
    assert re.fullmatch(rb"\tby door.example \(geomail\) with E?SMTP;", lines[0])
    assert re.fullmatch(rb"\t\w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000", lines[1])
    return lines[2]


def test_a_mail_by_the_standard_library(door: Opened) -> None:
    with door.client() as client:
        assert client.sendmail("a@x.example", ["b@y.example", "c@y.example"], LETTER) == {}
    [job] = door.jobs()
    assert job["mail_from"] == "a@x.example"
    assert job["rcpt_to"] == ["b@y.example", "c@y.example"]
    assert content_of(job["raw"]) == LETTER


def test_the_answer_names_the_job(door: Opened) -> None:
    with door.client() as client:
        client.ehlo()
        client.mail("a@x.example")
        client.rcpt("b@y.example")
        code, said = client.data(LETTER)
    assert code == 250
    assert said == b"2.0.0 Ok: queued as " + door.jobs()[0]["id"].encode()


def test_what_is_announced(door: Opened) -> None:
    with door.client() as client:
        client.ehlo()
        announced = set(client.esmtp_features)
        size = int(client.esmtp_features["size"])
    wanted = "pipelining chunking size 8bitmime smtputf8 dsn enhancedstatuscodes"
    assert announced == set(wanted.split())
    assert size == (32 * 1024 * 1024 - 65536) * 3 // 4


def test_a_burst_in_one_segment(door: Opened) -> None:
    bare = door.bare()
    bare.say(BURST)
    assert bare.codes(1 + len(BURST_CODES)) == [220, *BURST_CODES]
    assert bare.rest() == b""
    jobs = door.jobs()
    assert [content_of(job["raw"]) for job in jobs] == MAILS
    assert [job["mail_from"] for job in jobs] == ["a@x.example", "<>", "a@x.example"]


def test_a_burst_split_at_every_byte(door: Opened) -> None:
    """Two segments each time, for as many connections as there are bytes."""
    for split in range(1, len(BURST)):
        bare = door.bare()
        bare.say(BURST[:split], BURST[split:])
        assert bare.codes(1 + len(BURST_CODES)) == [220, *BURST_CODES], split
        bare.socket.close()
    jobs = door.jobs()
    assert len(jobs) == 3 * (len(BURST) - 1)
    found = sorted(content_of(job["raw"]) for job in jobs)
    assert found == sorted(MAILS * (len(BURST) - 1))


def test_a_burst_byte_by_byte(door: Opened) -> None:
    bare = door.bare()
    bare.say(*(bytes([byte]) for byte in BURST))
    assert bare.codes(1 + len(BURST_CODES)) == [220, *BURST_CODES]
    assert [content_of(job["raw"]) for job in door.jobs()] == MAILS


def test_what_comes_in_one_segment_is_pushed_together(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    group = ENVELOPE + b"BDAT %d LAST\r\n" % len(LETTER) + LETTER
    bare.say(group * 60)
    assert bare.codes(180) == [250] * 180
    ids = {job["id"].rpartition(".")[0] for job in door.jobs()}
    assert len(ids) < 10


def test_eight_bits_arrive_as_they_are(door: Opened) -> None:
    body = bytes(byte for byte in range(256) if byte not in b"\r\n")
    content = b"Subject: \xc3\xa4\r\n\r\n" + body + b"\r\n"
    with door.client() as client:
        client.sendmail("a@x.example", "b@y.example", content, mail_options=["BODY=8BITMIME"])
    assert content_of(door.jobs()[0]["raw"]) == content


def test_an_address_that_is_not_ascii(door: Opened) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jörg@x.example", "ÿ@ü.example", "é"
    message.set_content("ä\n")
    with door.client() as client:
        client.send_message(message)
    [job] = door.jobs()
    assert (job["mail_from"], job["rcpt_to"]) == ("jörg@x.example", ["ÿ@ü.example"])
    assert b"with UTF8SMTP;" in job["raw"]


def test_reports_are_handed_on(door: Opened) -> None:
    with door.client() as client:
        client.sendmail(
            "a@x.example",
            ["b@y.example"],
            LETTER,
            mail_options=["RET=HDRS", "ENVID=order+2B1"],
            rcpt_options=["NOTIFY=SUCCESS,DELAY"],
        )
    asked = {"ret": "HDRS", "envid": "order+1", "notify": "SUCCESS,DELAY"}
    assert door.jobs()[0]["dsn"] == asked


def test_helo_and_a_mail_without_a_header(door: Opened) -> None:
    bare = door.bare()
    bare.say(b"HELO me.example\r\n" + ENVELOPE + b"DATA\r\nJust words: none\r\n.\r\n")
    assert bare.codes(6) == [220, 250, 250, 250, 354, 250]
    [job] = door.jobs()
    assert content_of(job["raw"]) == b"\r\nJust words: none\r\n"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"RCPT TO:<postmaster>", b"553 5.1.3 address: 'postmaster' is not an address"),
        (b'RCPT TO:<"a b"@y.example>', b"553 5.1.3 address: "),
        (b"RCPT TO:<a@" + b"x" * 64 + b".example>", b"553 5.1.3 address: "),
        (b"RCPT TO:<a@b c>", b"501 5.5.4 "),
    ],
)
def test_an_address_that_could_never_get_mail(door: Opened, command: bytes, reply: bytes) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(b"MAIL FROM:<a@x.example>\r\n" + command + b"\r\n")
    assert bare.codes(1) == [250]
    assert bare.until(b"\r\n").startswith(reply)


def test_a_bad_sender(door: Opened) -> None:
    with door.client() as client, pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.1\.7"):
        client.sendmail("a,b@x.example", "b@y.example", LETTER)


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"Subject: a\r\nbroken\r\n\r\n", b"554 5.6.0 line 2 is no header field"),
        (b"Subject: a\r\n\r\n" + b"x" * 999 + b"\r\n", b"554 5.6.0 line 3 is longer than 998"),
        (b"Subject: a\r\n\r\nb\nc\r\n", b"550 5.5.2 Bare CR or LF"),
    ],
)
def test_content_that_no_host_could_be_given(door: Opened, content: bytes, reply: bytes) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(ENVELOPE + b"DATA\r\n" + content + b".\r\n")
    assert bare.codes(3) == [250, 250, 354]
    assert bare.until(b"\r\n").startswith(reply)
    bare.say(ENVELOPE + b"DATA\r\n" + LETTER + b".\r\n")
    assert bare.codes(4) == [250, 250, 354, 250]
    assert len(door.jobs()) == 1


def test_a_thousand_recipients_and_one(door: Opened) -> None:
    addresses = [f"u{number}@y.example" for number in range(1001)]
    with door.client() as client:
        refused = client.sendmail("a@x.example", addresses, LETTER)
    assert {address: code for address, (code, _) in refused.items()} == {addresses[1000]: 452}
    [job] = door.jobs()
    assert job["rcpt_to"] == addresses[:1000]


def test_too_large(redis_url: str) -> None:
    with opened(redis_url, door_max_mb=1) as door, door.client() as client:
        client.ehlo()
        size = int(client.esmtp_features["size"])
        assert client.mail("a@x.example", [f"SIZE={size + 1}"])[0] == 552
        content = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
        content += (b"y" * 70 + b"\r\n") * (size // 72 - 2)
        client.sendmail("a@x.example", "b@y.example", content)
        del client.esmtp_features["size"]
        with pytest.raises(smtplib.SMTPDataError) as raised:
            client.sendmail("a@x.example", "b@y.example", content + content)
        assert raised.value.smtp_code == 552
        [job] = door.jobs()
        assert content_of(job["raw"]) == content


def test_a_fat_envelope_makes_it_too_large(redis_url: str) -> None:
    with opened(redis_url, door_max_mb=1) as door, door.client() as client:
        client.ehlo()
        line = b"y" * 70 + b"\r\n"
        content = b"Subject: large\r\n\r\n" + line * (int(client.esmtp_features["size"]) // 72 - 2)
        addresses = [f"{'u' * 60}{number}@{'y' * 60}.example" for number in range(1000)]
        with pytest.raises(smtplib.SMTPDataError) as raised:
            client.sendmail("a@x.example", addresses, content)
        assert raised.value.smtp_code == 552
        assert door.jobs() == []


def test_a_large_mail(door: Opened) -> None:
    content = b"Subject: large\r\n\r\n" + (base64.b64encode(b"x" * 54) + b"\r\n") * 200_000
    with door.client() as client:
        client.sendmail("a@x.example", "b@y.example", content)
    assert content_of(door.jobs()[0]["raw"]) == content
    assert door.gate.room.held == 0


def test_half_a_mail_is_none(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(ENVELOPE + b"DATA\r\n" + LETTER)
    bare.codes(3)
    bare.socket.shutdown(socket.SHUT_WR)
    assert bare.rest() == b""
    assert door.jobs() == []
    assert door.gate.room.held == 0
