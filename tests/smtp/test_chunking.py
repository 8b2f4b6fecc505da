"""Many messages on one connection, and a host that refuses wherever it can: nobody gets another's.

The promise is the same for chunks and for DATA: whatever was refused, and however the bytes were
cut on their way, each letter's outcome is what the host did with exactly its sender, recipients and
content; and what is not said to be unknown when the connection goes was not taken.
"""

from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing_host import ANNOUNCED, RefusingHost, Taken, Verdict

from geomail.errors import ProtocolError
from geomail.letter import Letter
from geomail.smtp.client import Client
from geomail.smtp.events import (
    Awaited,
    Cause,
    ContentWanted,
    Event,
    Finished,
    Lost,
    Policy,
    Transaction,
)

refusals = st.lists(
    st.sampled_from([Verdict.YES, Verdict.YES, Verdict.LATER, Verdict.NEVER]),
    min_size=30,
    max_size=150,
)
ends = st.tuples(refusals, st.sampled_from([[], [Verdict.LEAVE], [Verdict.HANG_UP]])).map(
    lambda both: both[0] + both[1]
)
sizes = st.lists(st.integers(1, 400), min_size=1, max_size=20)
LINES = (b"Hello\r\n", b".\r\n", b"..\r\n", b"RSET me\r\n", b"\r\n")


def letters(count: int) -> list[Letter]:
    """Make letters that have nothing in common."""
    return [
        Letter(
            f"s{n}@a.example",
            tuple(f"r{n}.{k}@b.example" for k in range(1 + n % 3)),
            f"Subject: {n}\r\n\r\n".encode() + b"".join(LINES[: n % 6]),
            False,
            False,
        )
        for n in range(count)
    ]


class Traffic:
    """A client, a host, and two pipes whose bytes come in pieces of `sizes`."""

    def __init__(self, policy: Policy, host: RefusingHost, sizes: Iterable[int]) -> None:
        self.client = Client(policy)
        self.host = host
        self.begun: list[Letter] = []
        self.finished: list[Transaction] = []
        self.lost: Lost | None = None
        self.most_at_once = 0
        self._sizes = cycle(sizes)
        self._wanted: list[Transaction] = []
        self._is_ready = False

    def send(self, waiting: list[Letter]) -> None:
        """Send letters as a sender would, until all are answered, or the connection has an end."""
        while self.lost is None:
            if self._is_ready:
                self._begin(waiting)
                self.most_at_once = max(self.most_at_once, len(self.client.unfinished))
                if not self.client.unfinished:
                    return
            self._turn()

    def _begin(self, waiting: list[Letter]) -> None:
        client = self.client
        if client.chunks:
            while waiting and client.may_begin and not client.is_full:
                self._begin_one(waiting.pop(0))
        elif not client.awaited:
            is_idle = not self._wanted
            while self._wanted:
                client.content(self._wanted.pop())
            if waiting and (is_idle or client.overlaps) and not client.is_full:
                self._begin_one(waiting.pop(0))

    def _begin_one(self, letter: Letter) -> None:
        self.begun.append(letter)
        self.client.begin(letter, None)

    def _turn(self) -> None:
        """Write all there is, and read now and then between the pieces."""
        for piece in self._pieces(self.client.output()):
            if self.lost is None:
                self.client.wrote(len(piece))
                self.host.hear(piece)
                self._read(at_most=next(self._sizes) % 3)
        self._read(at_most=1 << 20)

    def _read(self, *, at_most: int) -> None:
        if not at_most:
            return
        for piece in self._pieces(self.host.say()):
            self._note(self.client.receive(piece))
        if self.host.is_gone:
            self._note(self.client.receive(b""))

    def _pieces(self, block: bytes) -> Iterator[bytes]:
        position = 0
        while position < len(block):
            size = next(self._sizes)
            yield block[position : position + size]
            position += size

    def _note(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Lost):
                self.lost = event
            elif isinstance(event, Finished):
                self.finished.append(event.transaction)
            elif isinstance(event, ContentWanted):
                self._wanted.append(event.transaction)
            else:
                self._is_ready = True


def told(transaction: Transaction) -> Taken | None:
    """Return what the host must have taken, by its replies to this transaction."""
    letter, final = transaction.letter, transaction.final
    if final is None or not final.is_positive:
        return None
    assert transaction.mail is not None
    assert transaction.mail.is_positive
    both = zip(letter.recipients, transaction.rcpt, strict=True)
    return letter.mail_from, tuple(r for r, reply in both if reply.is_positive), letter.content


def send_all(
    policy: Policy, verdicts: list[Verdict], sizes: list[int], *, swallows: bool = True
) -> list[Traffic]:
    """Send 20 letters over as many connections as the host's patience needs, or to one's end."""
    waiting, left, traffics = letters(20), iter(verdicts), list[Traffic]()
    while waiting and not (traffics and traffics[-1].lost):
        traffic = Traffic(policy, RefusingHost(left, swallows=swallows), sizes)
        traffic.send(waiting)
        check(traffic)
        traffics.append(traffic)
    return traffics


def check(traffic: Traffic) -> None:
    """Hold the outcomes against what the host did."""
    sent = traffic.begun
    told_taken = [found for t in traffic.finished if (found := told(t)) is not None]
    assert [t.letter for t in traffic.finished] == sent[: len(traffic.finished)]
    assert traffic.host.taken[: len(told_taken)] == told_taken
    untold = {content for _, _, content in traffic.host.taken[len(told_taken) :]}
    unfinished = traffic.client.unfinished
    assert untold <= {t.letter.content for t in unfinished if traffic.client.sent_whole(t)}
    by_content = {one.content: one for one in sent}
    for sender, recipients, content in traffic.host.taken:
        assert sender == by_content[content].mail_from
        assert set(recipients) <= set(by_content[content].recipients)


POLICIES: list[dict[str, Any]] = [
    {"pipeline": "overlap"},
    {"pipeline": "message"},
    {"pipeline": "off"},
    {"chunking": "prove"},
    *({"chunking": "on", "in_flight": most} for most in range(1, 9)),
]


@pytest.mark.parametrize("fields", POLICIES, ids=str)
@settings(max_examples=30)
@given(verdicts=refusals, sizes=sizes)
def test_each_letter_has_its_own_outcome(
    fields: dict[str, Any], verdicts: list[Verdict], sizes: list[int]
) -> None:
    traffics = send_all(Policy("client.example", **fields), verdicts, sizes)
    assert sum(len(traffic.finished) for traffic in traffics) == 20
    for traffic in traffics:
        assert traffic.lost is None
        assert len(traffic.host.taken) == sum(told(t) is not None for t in traffic.finished)
    if fields.get("chunking") == "on":
        assert traffics[0].most_at_once == fields["in_flight"]


@pytest.mark.parametrize("fields", POLICIES, ids=str)
@settings(max_examples=30)
@given(verdicts=ends, sizes=sizes)
def test_what_a_lost_connection_leaves_is_unknown_only_if_it_had_left_whole(
    fields: dict[str, Any], verdicts: list[Verdict], sizes: list[int]
) -> None:
    traffic = send_all(Policy("client.example", **fields), verdicts, sizes)[-1]
    if traffic.lost is not None and traffic.lost.cause is Cause.REFUSED:
        assert len(traffic.host.taken) == sum(told(t) is not None for t in traffic.finished)


@settings(max_examples=100)
@given(verdicts=refusals, sizes=sizes)
def test_a_host_that_runs_chunks_as_commands_proves_nothing(
    verdicts: list[Verdict], sizes: list[int]
) -> None:
    policy = Policy("client.example", chunking="prove")
    for traffic in send_all(policy, verdicts, sizes, swallows=False):
        assert traffic.client.proved is False
        assert traffic.lost is None


@settings(max_examples=100)
@given(verdicts=refusals, sizes=sizes, in_flight=st.integers(1, 8))
def test_a_host_that_has_unlearnt_to_swallow_is_left_before_harm_is_done(
    verdicts: list[Verdict], sizes: list[int], in_flight: int
) -> None:
    policy = Policy("client.example", chunking="on", in_flight=in_flight)
    traffic = send_all(policy, verdicts, sizes, swallows=False)[-1]
    if traffic.lost is not None:
        # The second: it has refused a chunk of which the last byte had not left.
        assert traffic.lost.cause in (Cause.OUT_OF_STEP, Cause.REFUSED)


# ---- one rule at a time


def chunking(**fields: Any) -> Client:
    """Return a client that is ready to send by BDAT, with nothing left to write."""
    client = Client(Policy("client.example", chunking="on", **fields))
    client.receive(b"220 mx.example\r\n")
    write(client)
    client.receive(ANNOUNCED)
    assert client.chunks
    return client


def write(client: Client) -> int:
    """Take the output as a kernel that takes everything; return its size."""
    size = len(client.output())
    client.wrote(size)
    return size


def of_size(octets: int) -> Letter:
    """Make a letter with this much content."""
    return Letter("", ("b@b.example",), b"x" * (octets - 2) + b"\r\n", False, False)


@pytest.mark.parametrize("in_flight", [1, 2, 8, 64])
def test_no_more_are_in_flight_than_the_policy_says(in_flight: int) -> None:
    client = chunking(in_flight=in_flight)
    for _ in range(in_flight):
        client.begin(of_size(1000), None)
    with pytest.raises(ProtocolError):
        client.begin(of_size(1000), None)
    write(client)
    room = []
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"250 taken\r\n"):
        client.receive(reply)
        room.append(client.may_begin)
    assert room == [False, False, True]


def test_a_flight_has_a_megabyte_and_no_letter_is_too_large_for_one() -> None:
    client = chunking(in_flight=64)
    client.begin(of_size(10_000_000), None)
    room = [client.may_begin]
    write(client)
    client.receive(b"250 ok\r\n250 ok\r\n554 no\r\n")
    for _ in range(4):
        room.append(client.may_begin)
        client.begin(of_size(1 << 18), None)
    assert [*room, client.may_begin] == [False, True, True, True, True, False]


def test_a_chunk_has_left_whole_with_its_last_byte() -> None:
    client = chunking()
    first, second = (client.begin(of_size(50), n) for n in (1, 2))
    out = client.output()
    left = [0, 0]
    for taken in range(1, len(out) + 1):
        client.wrote(1)
        for n, one in enumerate((first, second)):
            left[n] = left[n] or taken * client.sent_whole(one)
    assert left == [out.index(b"RSET"), len(out)]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_yes_before_the_last_byte_is_no_yes(missing: int) -> None:
    client = chunking()
    first = client.begin(of_size(50), None)
    client.wrote(len(client.output()) - missing)
    *_, event = client.receive(b"250 ok\r\n250 ok\r\n250 taken\r\n")
    assert isinstance(event, Lost if missing else Finished)
    assert client.delivered == (not missing)
    assert list(client.unfinished) == [first] * missing


def test_a_no_before_the_last_byte_is_the_last_that_is_heard() -> None:
    client = chunking()
    first, second = (client.begin(of_size(5000), n) for n in (1, 2))
    client.wrote(4000)
    client.output()
    finished, lost = client.receive(b"250 ok\r\n250 ok\r\n552 5.3.4 too much\r\n500 x?\r\n")
    assert finished == Finished(first)
    assert lost == Lost(Cause.REFUSED, Awaited.BDAT, "552 5.3.4 too much", first.final)
    assert list(client.unfinished) == [second]
    assert not client.sent_whole(second)


def test_nothing_answers_what_was_not_yet_written() -> None:
    client = chunking()
    client.begin(of_size(50), None)
    write(client)
    client.receive(b"250 ok\r\n250 ok\r\n")
    client.begin(of_size(50), None)
    (_, lost) = client.receive(b"250 taken\r\n250 reset\r\n")
    assert isinstance(lost, Lost)
    assert "nothing asked for" in lost.text
    assert client.output() == b""


def test_quit_waits_for_the_flight() -> None:
    client = chunking()
    client.begin(of_size(50), None)
    write(client)
    client.quit()
    assert client.output() == b""
    client.receive(b"250 ok\r\n250 ok\r\n250 taken\r\n")
    client.quit()
    assert client.output() == b"QUIT\r\n"


def test_a_full_connection_says_so() -> None:
    client = Client(Policy("client.example", chunking="on"))
    client.receive(b"220 mx.example\r\n")
    write(client)
    client.receive(b"250-mx.example\r\n250-LIMITS MAILMAX=2\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
    for _ in range(2):
        assert not client.is_full
        client.begin(of_size(50), None)
    assert client.is_full


# ---- against any server at all

codes = st.sampled_from([220, 250, 250, 250, 354, 421, 451, 500, 503, 552])
said = codes.map(lambda code: b"%d so\r\n" % code)


@settings(max_examples=300)
@given(
    policy=st.sampled_from(["prove", "on"]),
    in_flight=st.integers(1, 8),
    replies=st.lists(said | st.sampled_from([b"junk\r\n", b"2", b"250-\r\n"]), max_size=80),
    sizes=sizes,
)
def test_no_server_is_believed_what_it_did_not_say(
    policy: str, in_flight: int, replies: list[bytes], sizes: list[int]
) -> None:
    client = Client(Policy("client.example", chunking=policy, in_flight=in_flight))
    client.receive(b"220 mx.example\r\n")
    write(client)
    events = client.receive(ANNOUNCED)
    waiting, begun, delivered = letters(20), 0, 0
    for reply, size in zip([*replies, b""], cycle(sizes), strict=False):
        while waiting and client.chunks and client.may_begin:
            client.begin(waiting.pop(0), begun)
            begun += 1
        left = len(client.output())
        client.wrote(left if size % 4 else left // 2)
        events += client.receive(reply)
        finished = [event.transaction for event in events if isinstance(event, Finished)]
        delivered = sum(told(one) is not None for one in finished)
        assert len(client.unfinished) <= in_flight
        assert [t.owner for t in (*finished, *client.unfinished)] == list(range(begun))
        assert all(client.sent_whole(one) for one in finished if told(one) is not None)
    assert client.is_lost
    assert delivered == client.delivered
    assert delivered <= sum(reply[:1] == b"2" for reply in replies) // 3
    assert sum(isinstance(event, Lost) for event in events) == 1
    assert client.output() == b""
