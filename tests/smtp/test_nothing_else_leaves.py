"""Whatever a job contains, what reaches the host is its own message, or nothing.

Jobs full of line ends, lone dots, NULs, brackets and SMTP commands are decoded, composed and sent
between two plain mails, to geomail's own server. It has to get what was composed, for the
recipients that were asked for, and the two plain ones. The same bytes are then read once more by
the most careless host there is: to it a bare CR or LF ends a line, and a lone dot on such a line
ends a message. It has to find the same. What is refused is refused before a byte of it is written.
"""

import base64
import json
import re
from collections import deque
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomail.errors import PayloadError
from geomail.job import Address, Attachment, Dsn, Email, decode
from geomail.letter import Letter, compose
from geomail.smtp import answers
from geomail.smtp import policy as served
from geomail.smtp.client import Client
from geomail.smtp.data import lines
from geomail.smtp.events import ContentWanted, Lost, Phase, Policy
from geomail.smtp.server import Mail, Server

WAYS = [("off", "off"), ("overlap", "off"), ("overlap", "on")]
PLAIN = [
    Letter(
        f"{name}@a.example",
        (f"{name}@b.example",),
        b"Subject: %s\r\n\r\nx\r\n" % name.encode(),
        False,
        False,
    )
    for name in ("first", "last")
]
PIECES = [
    *("\r\n", "\r", "\n", "\r\n.\r\n", "\n.\n", "\r.\r", "\r\r\n.\r\r\n", ".", "..", "\0", "\x7f"),
    *("\t", " ", "<", ">", "@", '"', "\\", ",", ";", ":", "=", "+", "(", ")", "[", "]", "%0d%0a"),
    *(
        "RSET\r\n",
        "QUIT\r\n",
        "BDAT 5 LAST\r\n",
        "DATA\r\n",
        "MAIL FROM:<evil@x>\r\n",
        "\r\nBcc: evil@x",
    ),
    *("> SIZE=1", ">\r\nRCPT TO:<evil@x>", "=?utf-8?q?=0D=0A.=0D=0A?=", "=_0.1.m", "--=_0.1.m--"),
    *("ü", "\u2028", "\x85", "\u200d", "\U0001f600", "x", "y.z", "evil@x", "x" * 90, "x" * 999),
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
ADDRESS = st.one_of(
    st.sampled_from(["a@x.org", "<>", "", "jörg@x.org", '"a b"@x.org', "a@bücher.example"]),
    TEXT,
    TEXT.map(lambda text: f"a{text}@x.org"),
    TEXT.map(lambda text: f'"{text}"@x.org'),
    TEXT.map(lambda text: f"a@x{text}.org"),
)
TARGET = ADDRESS.filter(lambda text: text not in ("", "<>"))  # the null sender, and no recipient
BASE64 = TEXT.map(lambda text: base64.b64encode(text.encode()).decode())


class Seen(msgspec.Struct):
    """One message, as a host has taken it."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes


def sent(
    letters: list[Letter], way: tuple[str, str], host: served.Policy
) -> tuple[list[Seen], bytes]:
    """Send letters over one connection; return what the server took, and all that was written."""
    client = Client(Policy("me.example", pipeline=way[0], chunking=way[1]))
    server, written, taken = Server(host), b"", list[Seen]()
    waiting, wanted = deque(letters), None
    while True:
        for event in client.receive(server.output()):
            assert not isinstance(event, Lost), event
            wanted = event.transaction if isinstance(event, ContentWanted) else wanted
        if client.phase is Phase.READY and not client.awaited:
            if wanted is not None:
                client.content(wanted)
                wanted = None
            while (
                waiting
                and client.may_begin
                and (client.chunks or not client.awaited or client.overlaps)
            ):
                client.begin(waiting.popleft(), None)
        out = client.output()
        if not out:
            assert not waiting
            return taken, written
        written += out
        client.wrote(len(out))
        events = server.receive(out)
        while events:
            mail = events[-1]
            assert isinstance(mail, Mail)
            taken.append(Seen(mail.mail_from, mail.recipients, mail.content))
            events = server.answer(answers.OK)


def read_carelessly(written: bytes) -> Iterator[Seen]:
    """Read what a client has written as the most careless host would."""
    position, mail_from, recipients = 0, "", list[str]()

    def line() -> bytes:
        nonlocal position
        found = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)").match(written, position)
        assert found is not None
        position = found.end()
        return found[1]

    while position < len(written):
        command = line()
        verb, _, argument = command.partition(b" ")
        path = argument[argument.find(b"<") + 1 : argument.rfind(b">")].decode()
        if verb == b"MAIL":
            mail_from, recipients = path, []
        elif verb == b"RCPT":
            recipients.append(path)
        elif verb == b"DATA":
            content = b""
            while (found := line()) != b".":
                content += found.removeprefix(b".") + b"\r\n"
            yield Seen(mail_from, tuple(recipients), content)
        elif verb == b"BDAT":
            size = int(argument.split()[0])
            yield Seen(mail_from, tuple(recipients), written[position : position + size])
            position += size
        else:
            assert command in (b"EHLO me.example", b"RSET", b"QUIT")


def check(letter: Letter | None, way: tuple[str, str], *, is_modern: bool) -> None:
    """Send `letter`, unless it is refused, between two plain ones."""
    host = served.Policy(eight_bit=is_modern, smtputf8=is_modern, dsn=is_modern)
    letters = PLAIN if letter is None or is_refused(letter, host) else [PLAIN[0], letter, PLAIN[1]]
    taken, written = sent(letters, way, host)
    expected = [Seen(one.mail_from, one.recipients, lines(one.content)) for one in letters]
    assert taken == expected
    assert list(read_carelessly(written)) == expected


def is_refused(letter: Letter, host: served.Policy) -> bool:
    """Return whether the client gives `letter` to no host like this one."""
    client, server = Client(Policy("me.example")), Server(host)
    client.receive(server.output())
    server.receive(client.output())
    client.receive(server.output())
    return client.refusal(letter) is not None


def composed(email: Email, *, eight_bit: bool) -> Letter | None:
    """Return the letter, or None when it is refused."""
    try:
        return compose(
            email, id="0.1", first_seen_ms=1, sender=Address("me@me.example"), eight_bit=eight_bit
        )
    except PayloadError:
        return None


PAYLOADS = st.fixed_dictionaries(
    {"to": st.one_of(ADDRESS, st.dictionaries(ADDRESS, TEXT, min_size=1, max_size=2))},
    optional={
        "cc": ADDRESS,
        "bcc": ADDRESS,
        "from": ADDRESS,
        "reply_to": ADDRESS,
        "return_path": ADDRESS,
        "subject": TEXT,
        "text": TEXT,
        "html": TEXT,
        "headers": st.dictionaries(
            TEXT | st.sampled_from(["X-A", "Date", "References"]), TEXT, max_size=2
        ),
        "dsn": st.fixed_dictionaries({}, optional={"envid": TEXT, "notify": st.just("failure")}),
        "attachments": st.lists(
            st.fixed_dictionaries(
                {"content": BASE64},
                optional={"filename": TEXT, "cid": TEXT, "type": TEXT | st.just("message/rfc822")},
            ),
            max_size=2,
        ),
    },
)
RAW = st.fixed_dictionaries(
    {
        "raw": TEXT.map(lambda text: base64.b64encode(f"A: b\r\n{text}".encode()).decode()),
        "rcpt_to": ADDRESS,
    },
    optional={"mail_from": ADDRESS},
)


@settings(max_examples=300)
@given(PAYLOADS | RAW, st.sampled_from(WAYS), st.booleans())
def test_of_a_payload(payload: object, way: tuple[str, str], is_modern: bool) -> None:
    try:
        email = decode(json.dumps(payload).encode())
    except PayloadError:
        return
    assert isinstance(email, Email)
    letter = composed(email, eight_bit=is_modern)
    assert letter is None or len(letter.recipients) == len(email.recipients)
    check(letter, way, is_modern=is_modern)


ADDRESSES = st.builds(Address, ADDRESS, TEXT)
EMAILS = st.builds(
    Email,
    to=st.lists(ADDRESSES, max_size=2),
    cc=st.lists(ADDRESSES, max_size=1),
    reply_to=st.lists(ADDRESSES, max_size=1),
    sender=st.none() | ADDRESSES,
    subject=TEXT,
    text=st.none() | TEXT,
    html=st.none() | TEXT,
    headers=st.lists(st.tuples(st.just("X-A"), TEXT), max_size=2),
    attachments=st.lists(
        st.builds(Attachment, st.none() | TEXT, TEXT.map(str.encode), TEXT, st.none() | TEXT),
        max_size=2,
    ),
    mail_from=st.none() | ADDRESS,
    recipients=st.lists(TARGET, min_size=1, max_size=3),
    dsn=st.none()
    | st.builds(Dsn, st.just(("NEVER",)), st.just("FULL"), TEXT.map(lambda text: text[:25])),
)


@settings(max_examples=300)
@given(EMAILS, st.sampled_from(WAYS), st.booleans())
def test_of_an_email_that_nobody_has_checked(
    email: Email, way: tuple[str, str], is_modern: bool
) -> None:
    check(composed(email, eight_bit=is_modern), way, is_modern=is_modern)


@settings(max_examples=300)
@given(
    st.builds(
        Letter,
        ADDRESS,
        st.lists(ADDRESS, min_size=1, max_size=3).map(tuple),
        TEXT.map(str.encode),
        st.just(True),
        st.booleans(),
    ),
    st.sampled_from(WAYS),
)
def test_of_a_letter_that_nobody_has_composed(letter: Letter, way: tuple[str, str]) -> None:
    host = served.Policy()
    letters = PLAIN if is_refused(letter, host) else [PLAIN[0], letter, PLAIN[1]]
    taken, written = sent(letters, way, host)
    # The host may refuse what makes no sense, and then it has the two plain ones.
    contents = [lines(one.content) for one in letters]
    assert [one.content for one in taken] in (contents, [contents[0], contents[-1]])
    assert taken[0].recipients + taken[-1].recipients == ("first@b.example", "last@b.example")
    assert all(set(one.recipients) <= set(letter.recipients) for one in taken[1:-1])
    if len(taken) == len(letters):
        assert [one.content for one in read_carelessly(written)] == contents


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_everywhere(piece: str, way: tuple[str, str]) -> None:
    email = Email(
        to=[Address("b@b.example", piece)],
        subject=piece,
        text=piece,
        html=piece,
        recipients=["b@b.example"],
    )
    check(composed(email, eight_bit=True), way, is_modern=True)
    bodies = Email(to=[Address("b@b.example")], text=piece * 3, recipients=["b@b.example"])
    letter = composed(bodies, eight_bit=True)
    assert letter is not None
    check(letter, way, is_modern=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_announced", [True, False])
def test_reports_are_asked_of_hosts_that_know_them(
    way: tuple[str, str], is_announced: bool
) -> None:
    asked = {"notify": "failure,delay", "ret": "hdrs", "envid": "order 47>+1"}
    email = decode(json.dumps({"to": "b@b.example, c@c.example", "dsn": asked}).encode())
    assert isinstance(email, Email)
    letter = composed(email, eight_bit=True)
    assert letter is not None
    taken, written = sent([letter], way, served.Policy(dsn=is_announced))
    assert [one.recipients for one in taken] == [("b@b.example", "c@c.example")]
    assert written.count(b" RET=HDRS ENVID=order+2047+3E+2B1\r\n") == is_announced
    assert written.count(b"> NOTIFY=FAILURE,DELAY\r\n") == 2 * is_announced
    assert is_announced or not re.search(rb"ENVID|NOTIFY|RET=", written)
