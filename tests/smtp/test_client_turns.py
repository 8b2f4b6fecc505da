"""A turn in the steady state: the replies to one content, and to the envelope behind it.

Where all of them come together and all is well, the client takes them in one go. Whatever they say,
that has to be what it makes of them one by one.
"""

from itertools import product
from typing import Any

import pytest
from test_client import ENVELOPE, HELLO, greeted, write

from geomail.smtp.data import stuff
from geomail.smtp.events import ContentWanted, Finished


@pytest.mark.parametrize("is_sent_whole", [True, False])
def test_at_once_is_reply_by_reply(is_sent_whole: bool) -> None:
    for codes in product((250, 354, 451, 550, 421), repeat=4):
        replies = [f"{code} said\r\n".encode() for code in codes]
        at_once = _heard([b"".join(replies)], is_sent_whole=is_sent_whole)
        assert at_once == _heard(replies, is_sent_whole=is_sent_whole), codes


def test_all_is_well() -> None:
    told, _, state, unfinished, _ = _heard([b"250 ok\r\n" + ENVELOPE], is_sent_whole=True)
    assert told == [(Finished, "first"), (ContentWanted, "second")]
    assert state[1:] == [[], 1, False]
    assert unfinished == ["second"]


def _heard(pieces: list[bytes], *, is_sent_whole: bool) -> tuple[Any, ...]:
    """Return what a client makes of `pieces` behind a content and the next envelope."""
    client = greeted("PIPELINING")
    first = client.begin(HELLO, "first")
    write(client)
    client.receive(ENVELOPE)
    client.content(first)
    second = client.begin(HELLO, "second")
    client.wrote(len(client.output()) if is_sent_whole else len(stuff(HELLO.content)) - 1)
    events = [event for piece in pieces for event in client.receive(piece)]
    told = [(type(one), getattr(getattr(one, "transaction", one), "owner", one)) for one in events]
    known = [(one.mail, one.rcpt, one.accepted, one.data, one.final) for one in (first, second)]
    state = [client.phase, client.awaited, client.delivered, client.may_begin]
    return told, known, state, [one.owner for one in client.unfinished], write(client)
