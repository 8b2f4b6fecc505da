"""Several mails of one group, answered together: in their order, and not before all are safe."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_talk import Talk, codes

from geomail.errors import ProtocolError
from geomail.smtp.answers import OK, Answer
from geomail.smtp.policy import Policy
from geomail.smtp.server import Event, Mail, Server

GROUP = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"
NOT_NOW = Answer(451, "4.3.0", "Not now")
HELLO = b"EHLO me\r\n"
SCRIPT = (
    GROUP
    + b"DATA\r\none\r\n.\r\n"
    + GROUP
    + b"BDAT 5 LAST\r\ntwo\r\n"
    + b"RSET\r\nWHAT\r\n"
    + GROUP
    + b"DATA\r\nthree\r\n.\r\nQUIT\r\n"
)


def postponed(server: Server, events: list[Event]) -> list[Mail]:
    """Postpone all mails, and return them."""
    mails: list[Mail] = []
    while events:
        event = events.pop()
        assert isinstance(event, Mail)
        mails.append(event)
        events = server.postpone()
    return mails


def test_answers_keep_their_order() -> None:
    server = Server(Policy())
    mails = postponed(server, server.receive(HELLO + SCRIPT))
    assert [mail.content for mail in mails] == [b"one\r\n", b"two\r\n", b"three\r\n"]
    with pytest.raises(ProtocolError, match="3 mails were postponed"):
        server.output()
    server.give_postponed([OK, NOT_NOW, OK])
    assert codes(server.output())[2:] == [
        *[250, 250, 354, 250],
        *[250, 250, 451],
        *[250, 500],
        *[250, 250, 354, 250, 221],
    ]
    assert server.is_closed


@given(st.lists(st.integers(0, len(SCRIPT)), max_size=6))
def test_the_same_as_one_by_one_however_it_is_split(cuts: list[int]) -> None:
    script = HELLO + SCRIPT
    edges = [0, *sorted(cuts), len(script)]
    blocks = [script[a:b] for a, b in pairwise(edges)]
    talk, server = Talk(), Server(Policy())
    talk.send(script)
    said = b""
    mails: list[Mail] = []
    for block in blocks:
        found = postponed(server, server.receive(block))
        server.give_postponed([OK] * len(found))
        mails += found
        said += server.output()
    assert (said, mails) == (talk.said, talk.mails)


def test_without_a_mail_nothing_can_be_postponed() -> None:
    server = Server(Policy())
    with pytest.raises(ProtocolError, match="postpone"):
        server.postpone()
    with pytest.raises(ValueError, match="argument 2 is longer"):
        server.give_postponed([OK])


def test_what_is_kept_is_counted() -> None:
    server = Server(Policy(max_size=1000))
    server.receive(HELLO + GROUP + b"DATA\r\n" + b"x" * 500)
    assert server.kept == 500
    server.receive(b"x" * 5000)
    assert server.kept < 10
    server.receive(b"\r\n.\r\n" + GROUP + b"BDAT 600\r\n" + b"y" * 400)
    assert server.kept == 400
    server.receive(b"y" * 200 + b"BDAT 600 LAST\r\n" + b"y" * 600)
    assert server.kept == 0


@pytest.mark.parametrize("command", ["DATA", "BDAT 1000002 LAST"])
def test_a_mail_that_is_handed_over_is_not_kept(command: str) -> None:
    server = Server(Policy())
    server.receive(HELLO + GROUP + command.encode() + b"\r\n")
    tracemalloc.start()
    for _ in range(10):
        server.receive(b"x" * 100_000)
    assert tracemalloc.get_traced_memory()[0] > 900_000
    events = server.receive(b"\r\n" if "BDAT" in command else b"\r\n.\r\n")
    assert len(events) == 1
    del events
    assert tracemalloc.get_traced_memory()[0] < 10_000
    tracemalloc.stop()
