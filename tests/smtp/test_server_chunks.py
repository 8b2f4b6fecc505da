"""BDAT: chunks that are counted, whatever they hold, and swallowed when they are refused."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_talk import Talk, codes, greeted

from geomail.smtp.answers import OK
from geomail.smtp.phases import Phase
from geomail.smtp.policy import Policy
from geomail.smtp.server import Mail, Server

ENVELOPE = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"
POISON = b"RSET\r\nQUIT\r\n"


def bdat(octets: bytes, *, last: bool = True) -> bytes:
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" * last) + octets


CONTENTS = [b"Subject: one\r\n\r\n.\r\n..\r\nQUIT\r\n", b"", b"no end of line", b"x\r\n"]
FLIGHT = (
    b"".join(ENVELOPE + bdat(content) for content in CONTENTS)
    + ENVELOPE
    + bdat(CONTENTS[0][:5], last=False)
    + bdat(b"", last=False)
    + b"NOOP\r\n"
    + bdat(CONTENTS[0][5:], last=False)
    + b"bdat 0 last\r\n"
    + b"MAIL FROM:<a@x>\r\nRCPT TO:<>\r\n"
    + bdat(POISON)
    + b"RSET\r\n"
    + bdat(POISON)
    + b"QUIT\r\n"
)
FLIGHT_CODES = [250, 250, 250] * 4 + [250] * 7 + [250, 501, 554, 250, 503, 221]


def test_a_flight_of_mails_is_answered_in_one_output() -> None:
    talk = greeted()
    assert talk.codes(FLIGHT) == FLIGHT_CODES
    assert [mail.content for mail in talk.mails] == [*CONTENTS, CONTENTS[0]]
    assert all(mail.is_chunked for mail in talk.mails)


@pytest.mark.parametrize("split", range(len(FLIGHT) + 1))
def test_a_flight_split_at_every_byte(split: int) -> None:
    whole, parts = greeted(), greeted()
    whole.send(FLIGHT)
    parts.send(FLIGHT[:split], FLIGHT[split:])
    assert (parts.said, parts.mails) == (whole.said, whole.mails)


def test_a_flight_byte_by_byte() -> None:
    whole, parts = greeted(), greeted()
    whole.send(FLIGHT)
    parts.send(*(bytes([byte]) for byte in FLIGHT))
    assert (parts.said, parts.mails) == (whole.said, whole.mails)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=6), st.data())
def test_chunks_are_joined_byte_for_byte(chunks: list[bytes], data: st.DataObject) -> None:
    wire = ENVELOPE + b"".join(bdat(chunk, last=False) for chunk in chunks) + b"BDAT 0 LAST\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    talk = greeted(Policy(bare_newlines=True))
    blocks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert talk.codes(*blocks) == [250] * (3 + len(chunks))
    assert [mail.content for mail in talk.mails] == [b"".join(chunks)]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b"", [503]),
        (b"MAIL FROM:<a@x>\r\n", [250, 554]),
        (b"MAIL FROM:<a@x>\r\nRCPT TO:<>\r\n", [250, 501, 554]),
        (b"MAIL FROM:<a@x\r\nRCPT TO:<b@y>\r\n", [501, 503, 503]),
        (ENVELOPE + b"RSET\r\n", [250, 250, 250, 503]),
        (ENVELOPE + b"EHLO me\r\n", [250, 250, 250, 503]),
        (ENVELOPE + bdat(b"one\r\n"), [250, 250, 250, 503]),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_refused_chunk_is_swallowed(before: bytes, expected: list[int], *, last: bool) -> None:
    talk = greeted()
    assert talk.codes(before + bdat(POISON * 100, last=last) + b"NOOP\r\n") == [*expected, 250]
    assert not talk.server.is_closed


@pytest.mark.parametrize(
    ("policy", "code"),
    [(Policy(require_tls=True, starttls=True), 530), (Policy(require_auth=True), 530)],
)
def test_a_chunk_is_swallowed_where_tls_or_login_come_first(policy: Policy, code: int) -> None:
    assert greeted(policy).codes(bdat(POISON) + b"NOOP\r\n") == [code, 250]
    assert Talk(policy).codes(bdat(POISON) + b"NOOP\r\n") == [503, 250]


def test_between_chunks_there_are_only_chunks() -> None:
    talk = greeted()
    assert talk.codes(ENVELOPE + bdat(b"one\r\n", last=False)) == [250, 250, 250]
    sent = b"DATA\r\nMAIL FROM:<>\r\nRCPT TO:<c@y>\r\nVRFY a\r\nSTARTTLS\r\nNOOP\r\n"
    assert talk.codes(sent) == [503] * 5 + [250]
    assert talk.codes(bdat(b"two\r\n")) == [250]
    assert talk.mails == [Mail("a@x", ("b@y",), b"one\r\ntwo\r\n", smtputf8=False, is_chunked=True)]
    assert talk.codes(ENVELOPE + bdat(b"one\r\n", last=False) + b"RSET\r\n") == [250] * 4
    assert talk.codes(ENVELOPE + bdat(b"new\r\n")) == [250] * 3
    assert talk.codes(ENVELOPE + b"DATA\r\nBDAT 3 LAST\r\n.\r\n") == [250, 250, 354, 250]
    assert [mail.content for mail in talk.mails[1:]] == [b"new\r\n", b"BDAT 3 LAST\r\n"]


@pytest.mark.parametrize(
    "argument",
    *[[b"", b"x", b"-1", b"+1", b"1 2", b"0x10", b"1 LAS", b"LAST", b"1LAST", b"9" * 19, b"\xb2"]],
)
@pytest.mark.parametrize("before", [b"", ENVELOPE])
def test_a_chunk_of_unknown_size_ends_it_all(argument: bytes, before: bytes) -> None:
    talk = greeted()
    assert talk.codes(before + b"BDAT " + argument + b"\r\n" + POISON)[-1] == 501
    assert talk.server.is_closed
    assert talk.codes(b"QUIT\r\n") == []


def test_what_is_not_announced_is_not_swallowed() -> None:
    for policy in (Policy(chunking=False), Policy(extended=False)):
        talk = Talk(policy)
        assert b"CHUNKING" not in talk.send(b"EHLO me\r\n")
        assert talk.codes(b"HELO me\r\n" + bdat(b"NOOP\r\n")) == [250, 502, 250]


def test_a_server_that_does_not_swallow() -> None:
    policy = Policy(swallows_chunks=False)
    assert greeted(policy).codes(bdat(b"XYZZY\r\n") + b"RSET\r\n") == [503, 500, 250]
    assert greeted(policy).codes(ENVELOPE + bdat(b"RSET\r\n")) == [250, 250, 250]
    assert greeted().codes(bdat(b"XYZZY\r\n") + b"RSET\r\n") == [503, 250]


def test_without_pipelining_a_chunk_still_comes_with_its_command() -> None:
    talk = greeted(Policy(pipelining=False))
    assert talk.codes(*ENVELOPE.splitlines(keepends=True), bdat(b"x\r\n")) == [250] * 3
    assert talk.codes(bdat(POISON), b"NOOP\r\n") == [503, 250]
    assert talk.codes(b"MAIL FROM:<>\r\n", b"RCPT TO:<b@y>\r\n") == [250, 250]
    assert talk.codes(bdat(b"x", last=False) + bdat(b"y")) == [250, 554]
    assert talk.server.is_closed


@pytest.mark.parametrize("smuggled", [b"a\nb\r\n", b"a\rb\r\n", b"\r\r\n", b"\n", b"\r"])
def test_bare_newlines_are_refused_unless_they_are_wanted(smuggled: bytes) -> None:
    assert greeted().codes(ENVELOPE + bdat(smuggled) + ENVELOPE) == [250, 250, 550, 250, 250]
    talk = greeted(Policy(bare_newlines=True))
    assert talk.codes(ENVELOPE + bdat(smuggled)) == [250, 250, 250]
    assert talk.mails[0].content == smuggled
    assert talk.codes(ENVELOPE + b"DATA\r\n" + smuggled + b"\r\n.\r\n")[-1] == 550


def test_a_crlf_may_be_cut_between_chunks() -> None:
    talk = greeted()
    assert talk.codes(ENVELOPE + bdat(b"a\r", last=False) + bdat(b"\nb")) == [250] * 4
    assert talk.mails[0].content == b"a\r\nb"


def test_eight_bit_content_where_it_was_not_announced() -> None:
    talk = greeted(Policy(eight_bit=False))
    assert talk.codes(ENVELOPE + bdat(b"\xe4\r\n") + b"NOOP\r\n") == [250, 250, 554, 250]


# ---- size and memory


@pytest.mark.parametrize("block", [1, 7, 1000, 100_000])
def test_content_larger_than_allowed(block: int) -> None:
    talk = greeted(Policy(max_size=1000))
    wire = ENVELOPE + bdat(b"x" * 1001) + ENVELOPE + bdat(b"x" * 600, last=False)
    wire += bdat(b"x" * 401, last=False) + bdat(b"x", last=False) + ENVELOPE + b"DATA\r\n"
    wire += bdat(b"x") + b"RSET\r\n" + ENVELOPE + bdat(b"y" * 1000)
    blocks = [wire[start : start + block] for start in range(0, len(wire), block)]
    expected = [250, 250, 552, 250, 250, 250, 552, 503, 503, 503, 503, 503, 250, 250, 250, 250]
    assert talk.codes(*blocks) == expected
    assert [mail.content for mail in talk.mails] == [b"y" * 1000]


def test_the_last_chunk_may_be_the_one_too_many() -> None:
    talk = greeted(Policy(max_size=10))
    sent = ENVELOPE + bdat(b"x" * 10, last=False) + bdat(b"x") + ENVELOPE + bdat(b"x" * 10)
    assert talk.codes(sent) == [250, 250, 250, 552, 250, 250, 250]


def test_content_of_a_transaction_that_was_given_up_counts_no_more() -> None:
    talk = greeted(Policy(max_size=10))
    half = ENVELOPE + bdat(b"x" * 8, last=False)
    sent = half + b"RSET\r\n" + half + b"EHLO me\r\n" + half + bdat(b"x" * 2)
    assert talk.codes(sent) == [250] * 12


@pytest.mark.parametrize("before", [b"", ENVELOPE])
def test_an_announced_gigabyte_takes_no_memory(before: bytes) -> None:
    server = Server(Policy())
    server.receive(b"EHLO me\r\n" + before + b"BDAT 1000000000 LAST\r\n")
    server.output()
    block = b"RSET\r\n" * 10_000
    tracemalloc.start()
    for _ in range(1_000_000_000 // len(block)):
        server.receive(block)
    server.receive(b"x" * (1_000_000_000 % len(block)))
    assert tracemalloc.get_traced_memory()[1] < 300_000
    tracemalloc.stop()
    assert codes(server.output()) == [552 if before else 503]
    assert server.phase is Phase.READY


def test_many_small_chunks_take_no_memory() -> None:
    server = Server(Policy(max_size=100_000))
    server.receive(b"EHLO me\r\n" + ENVELOPE)
    server.output()
    tracemalloc.start()
    for chunk in (b"BDAT 0\r\n", b"BDAT 1\r\nx"):
        for _ in range(1000):
            server.receive(chunk * 100)
            assert codes(server.output()) == [250] * 100
    assert tracemalloc.get_traced_memory()[1] < 400_000
    tracemalloc.stop()
    (mail,) = server.receive(b"BDAT 0 LAST\r\n")
    assert isinstance(mail, Mail)
    assert mail.content == b"x" * 100_000
    server.answer(OK)
    assert codes(server.output()) == [250]
