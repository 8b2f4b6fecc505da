"""The server's conversation, whole and split at every byte, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_talk import Talk, codes, greeted

from geomail.errors import ProtocolError
from geomail.smtp.accounts import Accounts
from geomail.smtp.answers import OK, Answer
from geomail.smtp.dialogue import LINE_LIMIT
from geomail.smtp.introduction import TlsWanted
from geomail.smtp.phases import Phase
from geomail.smtp.policy import Policy
from geomail.smtp.server import COMMANDS, VERBS, Mail, Server

ENVELOPE = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
GROUP = ENVELOPE + b"DATA\r\n"
LETTER = b"Subject: one\r\n\r\n..dot\r\n"
ACCOUNTS = Accounts(passwords={"ann": "päss"}, nonce=lambda: "chance")


def test_one_mail() -> None:
    talk = Talk(Policy(hostname="mx.example"))
    assert talk.said == b"220 mx.example ESMTP geomail\r\n"
    assert talk.send(b"EHLO me.example\r\n") == (
        b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 67108864\r\n250-8BITMIME\r\n"
        b"250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n"
    )
    assert talk.send(b"mail from:<a@x.example> size=30 body=8BITMIME\r\n") == b"250 2.1.0 Ok\r\n"
    assert talk.send(b"Rcpt To:<b@y.example>\r\n") == b"250 2.1.5 Ok\r\n"
    assert talk.send(b"DATA\r\n") == b"354 End data with <CR><LF>.<CR><LF>\r\n"
    assert talk.send(LETTER + b".\r\n") == b"250 2.0.0 Ok\r\n"
    assert talk.mails == [
        Mail("a@x.example", ("b@y.example",), b"Subject: one\r\n\r\n.dot\r\n", smtputf8=False)
    ]
    assert talk.send(b"QUIT\r\n") == b"221 2.0.0 Bye\r\n"
    assert talk.server.is_closed
    assert talk.send(b"NOOP\r\n") == b""


BURST = (
    GROUP
    + LETTER
    + b".\r\n"
    + GROUP
    + b".\r\n"
    + b"NOOP\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n"
    + b"\r\n.\r\n"
    + b"MAIL FROM:<a@x.example>\r\nRSET\r\nWHAT\r\nDATA\r\nQUIT\r\n"
)
BURST_CODES = [250, 250, 354, 250, 250, 250, 354, 250, 250]
BURST_CODES += [250, 250, 250, 354, 250, 250, 250, 500, 503, 221]


def test_a_burst_is_answered_in_one_output() -> None:
    talk = greeted()
    assert talk.codes(BURST) == BURST_CODES
    assert [mail.content for mail in talk.mails] == [LETTER.replace(b"..", b"."), b"", b"\r\n"]
    assert talk.mails[2].mail_from == ""
    assert talk.mails[2].recipients == ("b@y.example", "c@y.example")


@pytest.mark.parametrize("split", range(len(BURST) + 1))
def test_a_burst_split_at_every_byte(split: int) -> None:
    whole, parts = greeted(), greeted()
    whole.send(BURST)
    parts.send(BURST[:split], BURST[split:])
    assert (parts.said, parts.mails) == (whole.said, whole.mails)


def test_a_burst_byte_by_byte() -> None:
    whole, parts = greeted(), greeted()
    whole.send(BURST)
    parts.send(*(bytes([byte]) for byte in BURST))
    assert (parts.said, parts.mails) == (whole.said, whole.mails)


pieces = st.sampled_from(
    [
        *[b"EHLO x\r\n", b"HELO y\r\n", b"\r", b"\n", b"\r\n", b".", b".\r\n", b"\0", b"\xff"],
        *[b"AUTH PLAIN\r\n", b"AUTH LOGIN AA==\r\n", b"*\r\n", b"STARTTLS\r\n", b"RSET\r\n"],
        *[b"BDAT 6\r\n", b"BDAT 9 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT 200\r\n"],
        *[GROUP, ENVELOPE, LETTER, b"a" * (LINE_LIMIT + 1), b"MAIL FROM:<", b"NOOP\r\n"],
    ]
)


@given(st.lists(pieces, max_size=20), st.data())
def test_anything_is_answered_the_same_however_it_is_split(
    script: list[bytes], data: st.DataObject
) -> None:
    policy = Policy(accounts=ACCOUNTS, auth_in_clear=True, max_size=100)
    wire = b"".join(script)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    blocks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    whole, parts = Talk(policy), Talk(policy)
    assert whole.codes(wire) == parts.codes(*blocks)
    assert whole.mails == parts.mails


def test_nothing_is_answered_before_the_mail_is_safe() -> None:
    server = Server(Policy())
    server.receive(b"EHLO me\r\n" + GROUP)
    server.output()
    events = server.receive(b".\r\n" + GROUP)
    assert [type(event) for event in events] == [Mail]
    assert server.output() == b""
    assert server.receive(b"late\r\n.\r\n") == []
    assert server.output() == b""
    second = server.answer(Answer(451, "4.3.0", "Not now"))
    assert codes(server.output()) == [451, 250, 250, 354]
    assert [event.content for event in second if isinstance(event, Mail)] == [b"late\r\n"]
    assert server.answer(OK) == []
    assert codes(server.output()) == [250]


def test_calls_out_of_place() -> None:
    server = Server(Policy())
    with pytest.raises(ProtocolError, match=r"answer.*ANSWER.*NEW"):
        server.answer(OK)
    with pytest.raises(ProtocolError, match="tls_started"):
        server.tls_started()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"NOOP anything\r\nHELP\r\nVRFY ann\r\nRSET\r\n", [250, 214, 252, 250]),
        (b"EXPN list\r\nETRN x\r\nTURN\r\n", [502, 502, 502]),
        (b"\r\n \r\nNONSENSE\r\nMAILFROM:<>\r\nNOOP\nx\r\n", [500, 500, 500, 500, 500]),
        (b"RCPT TO:<b@y.example>\r\nDATA\r\n", [503, 503]),
        (b"MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n", [250, 503, 554]),
        (b"MAIL FROM:<>\r\nEHLO again\r\nMAIL FROM:<>\r\n", [250, 250, 250]),
        (b"MAIL FROM:<>\r\nHELO again\r\nRCPT TO:<b@y>\r\n", [250, 250, 503]),
        (b"EHLO\r\nEHLO \r\nEHLO a\x01b\r\nHELO\r\n", [501, 501, 501, 501]),
        (b"MAIL\r\nMAIL <a@x>\r\nMAIL FROM:a@x\r\nMAIL FROM:<a@x\r\n", [501] * 4),
        (b"MAIL FROM:<nobody>\r\nMAIL FROM:<a@x>\r\nRCPT TO:<>\r\n", [501, 250, 501]),
        (b"MAIL FROM:<> SIZE=67108865\r\nMAIL FROM:<> SIZE=67108864\r\n", [552, 250]),
        (b"MAIL FROM:<> SIZE=x\r\nMAIL FROM:<> SIZE=\r\nMAIL FROM:<> BODY=9BIT\r\n", [501] * 3),
        (b"MAIL FROM:<> HOLDFOR=9\r\nMAIL FROM:<> AUTH=<>\r\n", [555, 555]),
        (b"MAIL FROM:<> SIZE=1 SIZE=1\r\nMAIL FROM:<> NOTIFY=NEVER\r\n", [501, 555]),
        (b"MAIL FROM:<>\r\nRCPT TO:<b@y> RRVS=1\r\nRCPT TO:<b@y>\r\n", [250, 555, 250]),
        (ENVELOPE + b"DATA now\r\nDATA\r\n", [250, 250, 501, 354]),
        (b"AUTH PLAIN\r\nSTARTTLS\r\n", [502, 502]),
        (b"RSET\r\nQUIT\r\nNOOP\r\n", [250, 221]),
    ],
)
def test_commands(sent: bytes, expected: list[int]) -> None:
    assert greeted().codes(sent) == expected


@pytest.mark.parametrize("phase", COMMANDS)
@pytest.mark.parametrize("verb", [*VERBS, b"EXPN", b"BOGUS"])
def test_every_verb_in_every_phase_gets_one_reply(phase: Phase, verb: bytes) -> None:
    talk = greeted()
    talk.server.phase = phase
    (code,) = talk.codes(verb + b"\r\n")
    allowed = verb in COMMANDS[phase]
    assert allowed or code in (500, 502, 503, 530, 554)


def test_before_ehlo() -> None:
    assert Talk().codes(b"NOOP\r\nMAIL FROM:<>\r\nAUTH PLAIN\r\nQUIT\r\n") == [250, 503, 503, 221]


def test_without_ehlo_there_is_helo() -> None:
    talk = Talk(Policy(extended=False, enhanced_codes=False))
    assert talk.said == b"220 localhost SMTP geomail\r\n"
    assert talk.send(b"EHLO a\r\nHELO a\r\n") == (
        b"502 Command not implemented\r\n250 localhost\r\n"
    )
    assert talk.codes(GROUP + b".\r\n") == [250, 250, 354, 250]


def test_a_greeting_that_refuses() -> None:
    talk = Talk(Policy(greeting=Answer(554, "", "No SMTP service here")))
    assert talk.said == b"554 No SMTP service here\r\n"
    assert talk.codes(b"EHLO a\r\nQUIT\r\n") == [503, 221]
    assert Talk(Policy(greeting=Answer(421, "", "busy"))).server.is_closed


@pytest.mark.parametrize("excess", [1, 2, 3, 5000])
def test_a_line_that_is_too_long(excess: int) -> None:
    line = b"NOOP " + b"x" * (LINE_LIMIT - 5)
    assert greeted().codes(line + b"\r\n") == [250]
    talk = greeted()
    assert talk.codes(line + b"x" * excess, b"y", b"\r", b"\nNOOP\r\n") == [500, 250]
    assert greeted().codes(line + b"x" * excess + b"\r\nNOOP\r\n") == [500, 250]


def test_an_endless_line_takes_no_memory() -> None:
    talk = greeted()
    for _ in range(100):
        assert talk.send(b"x" * 65536) == b""
        assert len(talk.server._buffer) <= LINE_LIMIT + 2
    assert talk.codes(b"\r\nNOOP\r\n") == [500, 250]


@pytest.mark.parametrize("block", [1, 7, 1000, 100_000])
def test_content_larger_than_allowed(block: int) -> None:
    talk = greeted(Policy(max_size=1000))
    talk.send(GROUP)
    wire = b"y\r\n.\r\r\n" * 2000 + b".\r\n" + GROUP + b"small\r\n.\r\n"
    blocks = [wire[start : start + block] for start in range(0, len(wire), block)]
    assert talk.codes(*blocks) == [552, 250, 250, 354, 250]
    assert [mail.content for mail in talk.mails] == [b"small\r\n"]


@pytest.mark.parametrize(("size", "code"), [(999, 250), (1000, 250), (1002, 552), (1200, 552)])
def test_size_counts_before_stuffing(size: int, code: int) -> None:
    content = b".a\r\n" * 300
    content = content[: size - 2] + b"\r\n"
    talk = greeted(Policy(max_size=1000))
    wire = b"." + content.replace(b"\r\n.", b"\r\n..")
    assert talk.codes(GROUP, wire[:700], wire[700:] + b".\r\n") == [250, 250, 354, code]


def test_swallowed_content_takes_no_memory() -> None:
    talk = greeted(Policy(max_size=1000))
    talk.send(GROUP)
    for _ in range(100):
        assert talk.send(b"x" * 65536) == b""
        assert len(talk.server._data_reader._kept) < 2000
    assert talk.codes(b"\r\n.\r", b"\n") == [552]


@pytest.mark.parametrize("smuggled", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r.\r"])
def test_bare_newlines_end_nothing_and_are_refused(smuggled: bytes) -> None:
    talk = greeted()
    wire = GROUP + b"a" + smuggled + ENVELOPE + b"\r\n.\r\nNOOP\r\n"
    assert talk.codes(wire) == [250, 250, 354, 550, 250]
    assert talk.mails == []


def test_too_many_recipients() -> None:
    talk = greeted(Policy(max_recipients=2))
    sent = b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@y>\r\n" * 3 + b"DATA\r\n.\r\n"
    assert talk.codes(sent) == [250, 250, 250, 452, 354, 250]
    assert len(talk.mails[0].recipients) == 2


def test_checks_of_addresses() -> None:
    def refuse(address: str) -> Answer | None:
        return {"b@x": Answer(550, "5.1.1", "No"), "c@x": Answer(421, "4.3.2", "Go")}.get(address)

    talk = greeted(Policy(check_sender=refuse, check_recipient=refuse))
    assert talk.codes(b"MAIL FROM:<b@x>\r\nRCPT TO:<a@x>\r\n") == [550, 503]
    assert talk.codes(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n") == [250, 550, 554]
    assert talk.codes(b"RCPT TO:<c@x>\r\nNOOP\r\n") == [421]
    assert talk.server.is_closed


def test_what_is_not_announced_is_not_taken() -> None:
    talk = greeted(Policy(eight_bit=False, smtputf8=False, enhanced_codes=False))
    assert b"8BITMIME" not in talk.said
    assert b"UTF8" not in talk.said
    assert b"ENHANCED" not in talk.said
    assert talk.codes(b"MAIL FROM:<> BODY=8BITMIME\r\nMAIL FROM:<> SMTPUTF8\r\n") == [555, 555]
    assert talk.send(b"MAIL FROM:<>\r\n") == b"250 Ok\r\n"
    assert talk.codes(b"RCPT TO:<b@y>\r\nDATA\r\n\xe4\r\n.\r\n") == [250, 354, 554]


def test_smtputf8() -> None:
    talk = greeted()
    sender, recipient = "MAIL FROM:<ä@x>", "RCPT TO:<ü@y>\r\n"
    assert talk.codes(f"{sender}\r\nMAIL FROM:<>\r\n{recipient}RSET\r\n".encode()) == [
        *[553, 250],
        *[553, 250],
    ]
    sent = f"{sender} SMTPUTF8\r\n{recipient}DATA\r\n.\r\n"
    assert talk.codes(sent.encode()) == [250, 250, 354, 250]
    assert talk.mails[0] == Mail("ä@x", ("ü@y",), b"", smtputf8=True)
    assert talk.codes("MAIL FROM:<ä@x>\r\n".encode()) == [553]
    assert talk.codes(b"MAIL FROM:<> SMTPUTF8=1\r\n") == [501]


def test_without_pipelining_who_goes_ahead_is_hung_up_on() -> None:
    talk = greeted(Policy(pipelining=False))
    assert talk.codes(*ENVELOPE.splitlines(keepends=True), b"DATA\r\n") == [250, 250, 354]
    assert talk.codes(b"a\r\n", b".\r\n") == [250]
    assert talk.codes(ENVELOPE) == [250, 554]
    assert talk.server.is_closed
    talk = greeted(Policy(pipelining=False))
    talk.send(*ENVELOPE.splitlines(keepends=True), b"DATA\r\n")
    assert talk.codes(b".\r\nMAIL FROM:<>\r\n") == [250, 554]
    assert greeted(Policy(pipelining=False)).codes(b"QUIT\r\nNOOP\r\n") == [221]


# TLS


def test_starttls_begins_anew() -> None:
    server = Server(Policy(starttls=True, require_tls=True))
    server.receive(b"EHLO me\r\n")
    assert b"STARTTLS" in server.output()
    server.receive(b"MAIL FROM:<>\r\nAUTH PLAIN\r\nNOOP\r\n")
    assert codes(server.output()) == [530, 530, 250]
    assert server.receive(b"STARTTLS\r\n") == [TlsWanted()]
    assert codes(server.output()) == [220]
    server.tls_started()
    server.receive(b"MAIL FROM:<>\r\nEHLO me\r\n")
    said = server.output()
    assert said.startswith(b"503 ")
    assert b"STARTTLS" not in said
    server.receive(b"MAIL FROM:<>\r\nRSET\r\nSTARTTLS\r\n")
    assert codes(server.output()) == [250, 250, 503]
    assert server.is_encrypted


@pytest.mark.parametrize("injected", [b"EHLO me\r\n", b"M", b"RSET\r\n"])
def test_commands_behind_starttls_are_never_run(injected: bytes) -> None:
    talk = greeted(Policy(starttls=True))
    assert talk.codes(b"STARTTLS\r\n" + injected) == [554]
    assert talk.server.is_closed
    talk = greeted(Policy(starttls=True))
    assert talk.codes(b"STARTTLS\r\n") == [220]
    assert talk.codes(injected) == [554]
    assert talk.server.is_closed
    assert greeted(Policy(starttls=True)).codes(b"STARTTLS now\r\n") == [501]


def test_close_with_last_words() -> None:
    talk = greeted()
    talk.server.close(Answer(421, "4.3.2", "Going down"))
    assert talk.codes(b"NOOP\r\n") == [421]
    assert talk.server.is_closed


# Delivery reports and limits


@pytest.mark.parametrize(
    ("mail", "rcpt", "expected"),
    [
        (b"RET=HDRS ENVID=x+2By", b"NOTIFY=SUCCESS,FAILURE", [250, 250]),
        (b"ret=full", b"notify=never ORCPT=rfc822;b+40y", [250, 250]),
        (b"ENVID=a", b"NOTIFY=delay", [250, 250]),
        (b"RET=ALL", b"", [501, 503]),
        (b"RET=", b"", [501, 503]),
        (b"ENVID=", b"", [501, 503]),
        (b"ENVID=a=b", b"", [501, 503]),
        (b"ENVID=a+2b", b"", [501, 503]),
        (b"ENVID=a+", b"", [501, 503]),
        (b"ENVID=" + b"x" * 101, b"", [501, 503]),
        (b"RET=FULL RET=HDRS", b"", [501, 503]),
        (b"SIZE=1", b"NOTIFY=NEVER,FAILURE", [250, 501]),
        (b"SIZE=1", b"NOTIFY=", [250, 501]),
        (b"SIZE=1", b"NOTIFY=SUCCESS,", [250, 501]),
        (b"SIZE=1", b"NOTIFY=NEVER NOTIFY=NEVER", [250, 501]),
        (b"SIZE=1", b"ORCPT=b@y", [250, 501]),
        (b"SIZE=1", b"ORCPT=rfc822;", [250, 501]),
        (b"SIZE=1", b"ORCPT=rfc822;b=y", [250, 501]),
        (b"SIZE=1", b"ORCPT=;b", [250, 501]),
        (b"SIZE=1", b"RET=HDRS", [250, 555]),
        (b"ORCPT=rfc822;b", b"", [555, 503]),
    ],
)
def test_parameters_of_delivery_reports(mail: bytes, rcpt: bytes, expected: list[int]) -> None:
    sent = b"MAIL FROM:<a@x> " + mail + b"\r\nRCPT TO:<b@y> " + rcpt + b"\r\n"
    assert greeted().codes(sent) == expected


def test_a_mail_carries_what_was_said_of_delivery_reports() -> None:
    talk = greeted()
    talk.send(b"MAIL FROM:<a@x> SIZE=1 RET=HDRS ENVID=x+2By\r\nRCPT TO:<b@y>\r\n")
    talk.send(b"RCPT TO:<bad\r\nRCPT TO:<c@y> NOTIFY=NEVER ORCPT=rfc822;c@y\r\nDATA\r\n.\r\n")
    talk.send(GROUP + b".\r\nMAIL FROM:<>\r\nRCPT TO:<b@y> NOTIFY=DELAY\r\nRSET\r\n")
    talk.send(ENVELOPE + b"BDAT 0 LAST\r\n")
    assert [mail.dsn for mail in talk.mails] == [
        ("RET=HDRS ENVID=x+2By", "", "NOTIFY=NEVER ORCPT=rfc822;c@y"),
        (),
        (),
    ]


def test_without_dsn_its_parameters_are_not_known() -> None:
    talk = greeted(Policy(dsn=False, size=False))
    assert b"DSN" not in talk.said
    assert b"SIZE" not in talk.said
    sent = b"MAIL FROM:<> RET=HDRS\r\nMAIL FROM:<> SIZE=1\r\nMAIL FROM:<>\r\n"
    assert talk.codes(sent + b"RCPT TO:<b@y> NOTIFY=NEVER\r\n") == [555, 555, 250, 555]


def test_limits() -> None:
    talk = greeted(Policy(limits=True, max_recipients=1, max_mails=2))
    assert b"250-LIMITS MAILMAX=2 RCPTMAX=1\r\n" in talk.said
    envelope = b"MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\n"
    assert talk.codes(envelope + b"RSET\r\n") == [250, 250, 452, 250]
    assert talk.codes(b"MAIL FROM:<x\r\n" + envelope + b"BDAT 0 LAST\r\n") == [
        *[501, 250, 250, 452, 250],
    ]
    assert talk.codes(b"MAIL FROM:<>\r\nNOOP\r\n") == [421]
    assert talk.server.is_closed
    assert b"LIMITS RCPTMAX=1000\r\n" in greeted(Policy(limits=True)).said
