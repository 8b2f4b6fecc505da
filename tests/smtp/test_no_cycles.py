"""A conversation that is over goes at once, with the letters in it: no search for cycles needed."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from geomail.letter import Letter
from geomail.smtp.client import Client
from geomail.smtp.events import ContentWanted, Policy

LETTER = Letter("a@a.example", ("b@b.example",), b"Subject: 1\r\n\r\nHello\r\n", False, False)
HELLO = b"250-mx.example\r\n250 PIPELINING\r\n"
ENVELOPE = b"250 ok\r\n250 ok\r\n354 go\r\n"


@pytest.fixture
def nobody_searches() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def say(client: Client, *replies: bytes) -> None:
    for reply in replies:
        client.wrote(len(client.output()))
        for event in client.receive(reply):
            if isinstance(event, ContentWanted):
                client.content(event.transaction)


@pytest.mark.parametrize("said", [(), (ENVELOPE,), (ENVELOPE, b"250 taken\r\n"), (b"421 no\r\n",)])
def test_a_conversation_leaves_no_cycle(said: tuple[bytes, ...], nobody_searches: None) -> None:
    client = Client(Policy("client.example"))
    say(client, b"220 mx.example\r\n", HELLO)
    client.begin(LETTER, None)
    say(client, *said)
    seen: list[weakref.ref[object]] = [weakref.ref(client), weakref.ref(client._opening)]
    del client
    assert [each() for each in seen] == [None, None]
