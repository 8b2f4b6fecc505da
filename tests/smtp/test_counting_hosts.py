"""Mails that nobody takes: a connection is left before a host that counts them hangs up."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing_host import RefusingHost

from geomail.letter import Letter
from geomail.smtp.client import Client
from geomail.smtp.events import ContentWanted, Finished, Lost, Policy, Transaction

BORNE_BY_EXIM = 10
BORNE_BY_POSTFIX = 19


class CountingHost(RefusingHost):
    """Knows nobody whose name begins with `no`, and counts as real hosts do.

    `resets`: RSETs but the first after each content, as Exim. `most_errors`: refusals in a row with
    no mail taken between them, as Postfix.
    """

    def __init__(self) -> None:
        super().__init__([])
        self.resets = self.most_errors = self._errors = 0
        self._is_reset = False

    def _on_rset(self, argument: str) -> None:
        self.resets += self._is_reset
        self._is_reset = True
        super()._on_rset(argument)

    def _on_rcpt(self, argument: str) -> None:
        if "<no" in argument:
            self._answer(550)
        else:
            super()._on_rcpt(argument)

    def _answer(self, code: int) -> None:
        self._errors += code >= 500
        self.most_errors = max(self.most_errors, self._errors)
        super()._answer(code)

    def _take(self, content: bytes) -> None:
        self._is_reset, self._errors = False, 0
        super()._take(content)


def letter(is_welcome: bool) -> Letter:
    """Return a letter to somebody, or to nobody."""
    to = "ann@b.example" if is_welcome else "nobody@b.example"
    return Letter("s@a.example", (to,), b"Subject: hi\r\n\r\nHi\r\n", False, False)


def send(client: Client, host: CountingHost, welcome: Iterable[bool]) -> tuple[int, int]:
    """Send letters until none is left or the connection is used up.

    Returns how many were answered, and how many were on their way at once.
    """
    waiting = list(welcome)
    answered, most, is_ready = 0, 0, False
    wanted: list[Transaction] = []
    while True:
        while wanted:
            client.content(wanted.pop())
        while is_ready and waiting and client.may_begin and not client.is_full:
            client.begin(letter(waiting.pop(0)), None)
        most = max(most, len(client.unfinished))
        output = client.output()
        if is_ready and not output and not client.unfinished:
            return answered, most
        client.wrote(len(output))
        host.hear(output)
        for event in client.receive(host.say()):
            assert not isinstance(event, Lost), event
            if isinstance(event, ContentWanted):
                wanted.append(event.transaction)
            answered += isinstance(event, Finished)
            is_ready = True


POLICIES: list[dict[str, Any]] = [
    {"pipeline": "overlap"},
    {"pipeline": "message"},
    {"pipeline": "off"},
    {"chunking": "prove"},
    *({"chunking": "on", "in_flight": most} for most in (1, 4, 8)),
]


@pytest.mark.parametrize("fields", POLICIES, ids=str)
def test_a_stretch_that_nobody_takes_ends_the_connection(fields: dict[str, Any]) -> None:
    client, host = Client(Policy("client.example", **fields)), CountingHost()
    answered, _ = send(client, host, [False] * 50)
    assert client.is_full
    assert 4 <= answered <= 9
    assert host.resets <= BORNE_BY_EXIM
    assert host.most_errors <= BORNE_BY_POSTFIX


@pytest.mark.parametrize("fields", POLICIES, ids=str)
def test_what_is_taken_ends_no_connection(fields: dict[str, Any]) -> None:
    client, host = Client(Policy("client.example", **fields)), CountingHost()
    answered, most = send(client, host, [True] * 300)
    assert answered == 300
    assert not client.is_full
    assert host.resets == 0
    assert most == fields.get("in_flight", 8 if "chunking" in fields else most)


@pytest.mark.parametrize("fields", POLICIES[:3], ids=str)
def test_one_refused_here_and_there_costs_nothing_without_chunks(fields: dict[str, Any]) -> None:
    client, host = Client(Policy("client.example", **fields)), CountingHost()
    answered, _ = send(client, host, [number % 3 > 0 for number in range(300)])
    assert answered == 300
    assert not client.is_full
    assert host.resets == 0


@settings(max_examples=200)
@given(
    fields=st.sampled_from(POLICIES),
    welcome=st.lists(st.booleans(), max_size=100),
)
def test_however_they_come_no_host_counts_too_many(
    fields: dict[str, Any], welcome: list[bool]
) -> None:
    client, host = Client(Policy("client.example", **fields)), CountingHost()
    answered, _ = send(client, host, welcome)
    assert client.is_full or answered == len(welcome)
    assert host.resets <= BORNE_BY_EXIM
    assert host.most_errors <= BORNE_BY_POSTFIX
