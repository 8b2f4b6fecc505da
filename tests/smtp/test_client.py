"""The client's rules one by one, and as a whole: against our server, and against any at all."""

from collections import deque
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomail.errors import ProtocolError
from geomail.letter import Letter
from geomail.smtp import answers
from geomail.smtp import policy as served
from geomail.smtp.answers import Answer
from geomail.smtp.auth import Login
from geomail.smtp.client import Client
from geomail.smtp.data import stuff
from geomail.smtp.events import Cause, ContentWanted, Event, Finished, Lost, Policy, Transaction
from geomail.smtp.reply import ENOUGH
from geomail.smtp.server import Mail, Server

HELLO = Letter("a@a.example", ("b@b.example",), b"Subject: 1\r\n\r\nHello\r\n", False, False)
ENVELOPE = b"250 ok\r\n250 ok\r\n354 go\r\n"


def greeted(*extensions: str, policy: Policy | None = None) -> Client:
    """Return a client that has heard EHLO's reply, with nothing left to write."""
    client = Client(policy or Policy("client.example"))
    client.receive(b"220 mx.example\r\n")
    assert write(client) == b"EHLO client.example\r\n"
    lines = ["mx.example", *extensions]
    replies = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
    client.receive("".join(f"{line}\r\n" for line in replies).encode())
    return client


def write(client: Client) -> bytes:
    """Take the output as a kernel that takes everything."""
    out = client.output()
    client.wrote(len(out))
    return out


# ---- what the opening brings


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [("off", (False, False)), ("message", (True, False)), ("overlap", (True, True))],
)
def test_pipelining_needs_both_sides(pipeline: str, found: tuple[bool, bool]) -> None:
    policy = Policy("client.example", pipeline=pipeline)
    client = greeted("PIPELINING", policy=policy)
    assert (client.pipelining, client.overlaps) == found
    client = greeted("SIZE", policy=policy)
    assert (client.pipelining, client.overlaps) == (False, False)


@pytest.mark.parametrize(
    "helo", ["", "a b", "a\r\nRSET", "<a>", "a>b", "ä.example", "a\x7f", "a\0"]
)
def test_a_name_that_can_not_stand_in_ehlo_is_not_written(helo: str) -> None:
    client = Client(Policy(helo))
    (lost,) = client.receive(b"220 mx.example\r\n")
    assert "set helo" in str(lost)
    assert client.output() == b""


# ---- what can't be asked for


def test_nothing_begins_before_ready() -> None:
    client = Client(Policy("client.example"))
    with pytest.raises(ProtocolError, match="while opening"):
        client.begin(HELLO, None)
    assert client.output() == b""


@pytest.mark.parametrize("extension", ["PIPELINING", "SIZE"])
def test_nothing_begins_inside_an_envelope(extension: str) -> None:
    client = greeted(extension)
    client.begin(HELLO, None)
    write(client)
    with pytest.raises(ProtocolError):
        client.begin(HELLO, None)


def test_nothing_begins_between_354_and_content() -> None:
    client = greeted("PIPELINING")
    first = client.begin(HELLO, None)
    write(client)
    assert client.receive(ENVELOPE) == [ContentWanted(first)]
    with pytest.raises(ProtocolError):
        client.begin(HELLO, None)


def test_content_is_written_once_and_after_354() -> None:
    client = greeted("PIPELINING")
    first = client.begin(HELLO, None)
    write(client)
    with pytest.raises(ProtocolError):
        client.content(first)
    client.receive(ENVELOPE)
    client.content(first)
    with pytest.raises(ProtocolError):
        client.content(first)
    assert client.output() == stuff(HELLO.content)


def test_no_handshake_that_nobody_agreed_on() -> None:
    with pytest.raises(ProtocolError):
        greeted("STARTTLS", policy=Policy("client.example", tls="never")).tls_started()


# ---- leaving


def test_quit_is_never_content() -> None:
    client = greeted("PIPELINING")
    client.begin(HELLO, None)
    write(client)
    client.receive(ENVELOPE)
    client.quit()
    assert client.output() == b""


def test_quit_waits_for_no_answer_of_others() -> None:
    client = greeted("PIPELINING")
    client.begin(HELLO, None)
    write(client)
    client.quit()
    assert client.output() == b""


def test_quit_is_said_once() -> None:
    client = greeted()
    client.quit()
    assert write(client) == b"QUIT\r\n"
    client.quit()
    assert client.output() == b""
    assert client.receive(b"221 bye\r\n")[-1] == client_lost(Cause.CLOSED, "221 bye")
    client.quit()
    assert client.output() == b""


def client_lost(cause: Cause, text: str) -> object:
    """Match the end of a conversation by cause and text."""

    class End:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Lost) and (other.cause, other.text) == (cause, text)

        __hash__ = None  # type: ignore[assignment] # is only compared

    return End()


def test_after_the_end_nothing_is_read_or_written() -> None:
    client = greeted("PIPELINING")
    client.begin(HELLO, None)
    assert client.cut(Cause.TIMEOUT, "too late") == [client_lost(Cause.TIMEOUT, "too late")]
    assert client.is_lost
    assert client.output() == b""
    assert client.receive(b"250 ok\r\n") == []
    assert client.receive(b"") == []
    assert [t.letter for t in client.unfinished] == [HELLO]


def test_no_content_follows_the_end() -> None:
    client = greeted("PIPELINING")
    first = client.begin(HELLO, None)
    write(client)
    wanted, _lost = client.receive(ENVELOPE + b"250 one too many\r\n")
    assert wanted == ContentWanted(first)
    client.content(first)  # who acts on one event after the other hears of the end later
    assert client.output() == b""
    assert not client.sent_whole(first)


# ---- what is kept


def test_an_answer_to_ehlo_is_read_whole() -> None:
    client = greeted(*["X" * 500] * 120, "PIPELINING")
    assert client.pipelining


@pytest.mark.parametrize("login", [None, Login("ann", "secret" * 10)])
def test_why_a_connection_was_lost_is_no_long_story(login: Login | None) -> None:
    client = Client(Policy("client.example", login=login), under_tls=True)
    for reply in (b"220 mx.example\r\n", b"250-mx.example\r\n250 AUTH PLAIN\r\n"):
        write(client)
        client.receive(reply)
    write(client)
    filling = b"a " * (ENOUGH // 2 - 11)
    (lost,) = client.receive(b"421-" + filling + b"secret" * 10 + b"\r\n421 no\r\n")
    assert isinstance(lost, Lost)
    assert ENOUGH - 30 < len(lost.text) <= ENOUGH
    assert ("secret" in lost.text) == (login is None)


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_a_mail_keeps_little_of_each_reply(chunking: str) -> None:
    policy = Policy("client.example", chunking=chunking)
    client = greeted("PIPELINING", "CHUNKING", policy=policy)
    recipients = tuple(f"b{number}@b.example" for number in range(100))
    first = client.begin(Letter("a@a.example", recipients, b"1\r\n", False, False), None)
    write(client)
    for number in range(102):
        text = b"%03d " % number + b"a" * 500
        client.receive((b"550-" + text + b"\r\n") * 120 + b"550 the end\r\n")
    assert first.mail is not None
    last = first.final if chunking == "on" else first.data
    replies = [first.mail, *first.rcpt, last]
    for number, reply in enumerate(replies):
        assert reply is not None
        assert reply.lines[0].startswith(f"{number:03} aaa")
        assert len(str(reply)) <= ENOUGH + 4
        assert sum(map(len, reply.lines)) > ENOUGH * 0.9


# ---- the last byte


def test_sent_whole_is_true_from_the_last_byte_on() -> None:
    client = greeted("PIPELINING")
    first = client.begin(HELLO, None)
    assert not client.sent_whole(first)
    write(client)
    client.receive(ENVELOPE)
    assert not client.sent_whole(first)
    client.content(first)
    second = client.begin(HELLO, None)
    out = client.output()
    for taken in range(1, len(out) + 1):
        client.wrote(1)
        assert client.sent_whole(first) == (taken >= len(stuff(HELLO.content)))
        assert not client.sent_whole(second)


@pytest.mark.parametrize(("reply", "is_finished"), [(b"250 ok", False), (b"552 no", True)])
def test_an_answer_before_the_last_byte_ends_the_connection(
    reply: bytes, is_finished: bool
) -> None:
    client = greeted("PIPELINING")
    first = client.begin(HELLO, None)
    write(client)
    client.receive(ENVELOPE)
    client.content(first)
    second = client.begin(HELLO, None)
    client.output()
    client.wrote(len(stuff(HELLO.content)) - 1)
    *finished, lost = client.receive(reply + b"\r\n500 Hello?\r\n")
    assert finished == [Finished(first)] * is_finished
    assert isinstance(lost, Lost)
    assert list(client.unfinished) == [first] * (not is_finished) + [second]
    assert second.mail is None


# ---- against our own server


@st.composite
def deliveries(draw: st.DrawFn) -> list[Letter]:
    """Make letters, some to recipients that the server refuses."""
    words = st.sampled_from(["ok", "ok", "never", "later", "twice"])
    lines = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a"]), max_size=5)
    found = []
    for number in range(draw(st.integers(1, 5))):
        names = draw(st.lists(words, min_size=1, max_size=4))
        mail_from = draw(st.sampled_from(["", "a@a.example", "never@a.example"]))
        content = b"".join(line + b"\r\n" for line in draw(lines))
        recipients = tuple(f"{name}{n}@{number}.example" for n, name in enumerate(names))
        found.append(Letter(mail_from, recipients, content, False, False))
    return found


def refuse(address: str) -> Answer | None:
    """Refuse what an address asks to be refused."""
    if address.startswith("never"):
        return Answer(550, "5.1.1", "never")
    return Answer(450, "4.2.0", "later") if address.startswith("later") else None


class Dialogue:
    """A client and a server, and nothing but memory between them."""

    def __init__(
        self, policy: Policy, policy_of_server: served.Policy, data: st.DataObject
    ) -> None:
        self.client, self.server = Client(policy), Server(policy_of_server)
        self.taken: list[Mail] = []
        self.finished: list[Transaction] = []
        self._data = data

    def send(self, letters: list[Letter]) -> None:
        """Send all letters as a sender would."""
        waiting, wanted, client = deque(letters), deque[Transaction](), self.client
        for _ in count():
            events = self._turn()
            self.finished += [e.transaction for e in events if isinstance(e, Finished)]
            assert not any(isinstance(e, Lost) for e in events)
            wanted.extend(e.transaction for e in events if isinstance(e, ContentWanted))
            while waiting and client.chunks and client.may_begin:
                is_wary = self._data.draw(st.booleans())
                client.begin(waiting.popleft(), None, is_wary=is_wary)
            if client.awaited:
                continue
            is_idle = not wanted
            if wanted:
                client.content(wanted.popleft())
            if waiting and not client.chunks and (is_idle or client.overlaps):
                client.begin(waiting.popleft(), None)
            elif is_idle:
                return

    def _turn(self) -> list[Event]:
        out = self.client.output()
        self.client.wrote(len(out))
        for chunk in self._cut(out):
            events = self.server.receive(chunk)
            while events:
                mail = events[-1]
                assert isinstance(mail, Mail)
                self.taken.append(mail)
                events = self.server.answer(answers.OK)
        found: list[Event] = []
        for chunk in self._cut(self.server.output()):
            found += self.client.receive(chunk)
        return found

    def _cut(self, block: bytes) -> list[bytes]:
        cuts = sorted(
            self._data.draw(st.sets(st.integers(1, len(block)), max_size=2)) if block else ()
        )
        chunks = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
        return [chunk for chunk in chunks if chunk]


@settings(max_examples=200)
@given(
    letters=deliveries(),
    pipeline=st.sampled_from(["off", "message", "overlap"]),
    chunking=st.sampled_from(["off", "prove", "on"]),
    lacks=st.sets(st.sampled_from(["extended", "pipelining", "chunking", "swallows_chunks"])),
    data=st.data(),
)
def test_our_server_takes_what_we_send(
    letters: list[Letter], pipeline: str, chunking: str, lacks: set[str], data: st.DataObject
) -> None:
    offers: dict[str, Any] = dict.fromkeys(lacks, False)
    served_policy = served.Policy(check_sender=refuse, check_recipient=refuse, **offers)
    if chunking == "on" and not served_policy.swallows_chunks:
        chunking = "prove"
    policy = Policy("client.example", pipeline=pipeline, chunking=chunking, in_flight=3)
    dialogue = Dialogue(policy, served_policy, data)
    dialogue.send(letters)
    may_chunk = not lacks and pipeline == "overlap"
    assert dialogue.client.chunks == (may_chunk and chunking != "off")
    expected = [
        (one.mail_from, names, one.content)
        for one in letters
        if (names := tuple(r for r in one.recipients if refuse(r) is None))
        and not one.mail_from.startswith("never")
    ]
    assert [(m.mail_from, m.recipients, m.content) for m in dialogue.taken] == expected
    assert [t.letter for t in dialogue.finished] == letters
    assert dialogue.client.delivered == len(expected)


# ---- against any server at all

said = st.sampled_from(
    [b"220", b"250", b"235", b"334", b"354", b"421", b"450", b"452", b"503", b"504", b"550", b"554"]
)
replies = st.one_of(
    said.map(lambda code: code + b" ok\r\n"),
    said.map(lambda code: code + b"-a\r\n" + code + b" PIPELINING\r\n"),
    st.sampled_from(
        [b"250-a\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n", ENVELOPE, b"junk\r\n", b"2"]
    ),
)
LETTERS = [Letter("", ("b@b.example", "c@c.example"), b"CONTENT\r\n", False, False)] * 4


@settings(max_examples=300)
@given(
    st.sampled_from(["off", "message", "overlap"]),
    st.sampled_from(["may", "never", "must"]),
    st.lists(replies, max_size=30),
)
def test_no_server_makes_us_say_content_unasked(
    pipeline: str, tls: str, blocks: list[bytes]
) -> None:
    client = Client(Policy("client.example", tls=tls, pipeline=pipeline))
    waiting, wanted = list(LETTERS), list[Transaction]()
    client.receive(b"220 mx.example\r\n")
    for block in [b"250-a\r\n250 PIPELINING\r\n", *blocks, b""]:
        out = client.output()
        client.wrote(len(out))
        events = client.receive(block)
        wanted += [event.transaction for event in events if isinstance(event, ContentWanted)]
        if client.awaited or client.is_lost or client.phase.name != "READY":
            assert b"CONTENT" not in b"".join(client._out)
            continue
        is_idle = not wanted
        while wanted:
            assert wanted[0].data is not None
            assert wanted[0].data.is_intermediate
            assert wanted[0].has_recipients
            client.content(wanted.pop())
        if waiting and (is_idle or client.overlaps):
            client.begin(waiting.pop(), None)
    assert client.is_lost or client.phase.name == "HANDSHAKE"
    assert client.output() == b""
