"""Every fault that an address can ask the sink for, seen from a client's end of the socket."""

import smtplib
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sink_peers import ENVELOPE, LETTER, SEVERAL, Bare, client_of, wait_until

from geomail.sink import Sink
from geomail.sink.faults import NAMES, Fault, read_fault
from geomail.smtp.policy import Policy


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture
def bare(sink: Sink) -> Iterator[Bare]:
    client = Bare(sink)
    yield client
    client.socket.close()


def test_reply(sink: Sink) -> None:
    with client_of(sink) as client:
        assert client.sendmail("a@x", ["reply+451@y", "reply@y", "b@y"], LETTER) == {
            "reply+451@y": (451, b"4.0.0 As the address asks for"),
            "reply@y": (550, b"5.0.0 As the address asks for"),
        }
        with pytest.raises(smtplib.SMTPSenderRefused, match="452"):
            client.sendmail("reply+452@x", SEVERAL, LETTER)
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="421"):
            client.sendmail("a@x", ["reply+421@y"], LETTER)
    assert sink.count == 1


def test_greylist(sink: Sink) -> None:
    with client_of(sink) as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
                client.sendmail("a@x", ["greylist+2@y"], LETTER)
        client.sendmail("a@x", ["greylist+2@y"], LETTER)
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
            client.sendmail("a@x", ["greylist@y"], LETTER)
    assert sink.count == 1


def test_data(sink: Sink) -> None:
    with client_of(sink) as client:
        for asked, code in (("data+452", 452), ("data", 550), ("data+1.2.3", 550)):
            with pytest.raises(smtplib.SMTPDataError, match=str(code)):
                client.sendmail("a@x", ["b@y", f"{asked}@y"], LETTER)
        with pytest.raises(smtplib.SMTPDataError, match="421"):
            client.sendmail("a@x", ["data+421@y"], LETTER)
    assert sink.count == 0


@pytest.mark.parametrize("recipient", ["slow+0.05@y", "stall+0.05@y", "drip+0.001@y"])
def test_late_answers_come(sink: Sink, recipient: str) -> None:
    with client_of(sink) as client:
        assert client.sendmail("a@x", [recipient], LETTER) == {}
        assert client.sendmail("a@x", ["b@y"], LETTER) == {}
    assert sink.count == 2


def test_stall_is_silence_first(sink: Sink, bare: Bare) -> None:
    bare.mail("stall+30@y")
    wait_until(lambda: sink.count == 1)
    bare.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        bare.socket.recv(1)


def test_hangup(sink: Sink, bare: Bare) -> None:
    bare.mail("hangup@y")
    assert bare.rest() == b""
    assert sink.count == 1


def test_never(sink: Sink, bare: Bare) -> None:
    bare.mail("never@y")
    bare.socket.sendall(b"NOOP\r\nQUIT\r\n")
    bare.socket.shutdown(socket.SHUT_WR)
    assert bare.rest() == b""
    assert sink.count == 1


def test_junk(sink: Sink, bare: Bare) -> None:
    bare.mail("junk@y")
    bare.socket.shutdown(socket.SHUT_WR)
    assert bare.rest() == b"Hello, this is no reply.\r\n"
    assert sink.count == 1


def test_twice(sink: Sink, bare: Bare) -> None:
    bare.mail("twice@y")
    bare.socket.sendall(b"QUIT\r\n")
    assert bare.rest() == b"250 2.0.0 Ok\r\n" * 2 + b"221 2.0.0 Bye\r\n"
    assert sink.count == 1


# By BDAT


def test_a_fault_of_data_answers_the_last_chunk(sink: Sink, bare: Bare) -> None:
    bare.hello()
    bare.socket.sendall(ENVELOPE.format("data+451@y").encode() + b"BDAT 3\r\na\r\n")
    assert bare.until(b"go on\r\n").count(b"250 ") == 3
    bare.socket.sendall(b"BDAT 3 LAST\r\nb\r\n" + ENVELOPE.format("b@y").encode())
    assert bare.until(b"2.1.5 Ok\r\n").startswith(b"451 4.0.0 As the address asks for\r\n")
    assert sink.count == 0


def test_bdat(sink: Sink, bare: Bare) -> None:
    bare.hello()
    for asked, code in (("bdat", b"502"), ("bdat+503", b"503")):
        bare.socket.sendall(ENVELOPE.format(f"{asked}@y").encode() + b"BDAT 4 LAST\r\nQUIT")
        bare.until(b"2.1.5 Ok\r\n")
        assert bare.until(b"\r\n").startswith(code)
    assert sink.count == 0
    with client_of(sink) as client:
        assert client.sendmail("a@x", ["bdat+503@y"], LETTER) == {}
    assert sink.count == 1


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        ("hangup", b""),
        ("never", b""),
        ("junk", b"Hello, this is no reply.\r\n"),
        ("twice", b"250 2.0.0 Ok\r\n" * 2),
        ("skip", b""),
        ("drip+0.001", b"250 2.0.0 Ok\r\n"),
        ("stall+0.001", b"250 2.0.0 Ok\r\n"),
    ],
)
def test_faults_by_bdat(sink: Sink, bare: Bare, fault: str, heard: bytes) -> None:
    bare.hello()
    bare.socket.sendall(ENVELOPE.format(f"{fault}@y").encode() + b"BDAT 3 LAST\r\na\r\n")
    bare.until(b"2.1.5 Ok\r\n")
    wait_until(lambda: sink.count == 1)
    bare.socket.shutdown(socket.SHUT_WR)
    assert bare.rest() == heard


def test_skip(sink: Sink, bare: Bare) -> None:
    bare.mail("skip@y")
    bare.socket.sendall(b"NOOP\r\nQUIT\r\n")
    assert bare.rest() == b"250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"
    assert sink.count == 1


# Within the content


def listen(bare: Bare) -> None:
    while block := bare.socket.recv(4096):
        bare.received += block


def reset(bare: Bare) -> bytes:
    """Return what is heard before the reset, which has to come."""
    with pytest.raises(ConnectionResetError):
        listen(bare)
    return bare.received


@pytest.mark.parametrize(("more", "taken"), [(-1000, 0), (0, 0), (2, 0), (3, 1), (1000, 1)])
def test_a_reset_within_data(sink: Sink, bare: Bare, more: int, taken: int) -> None:
    bare.hello()
    content = b"Subject: one\r\n\r\n" * 50
    after = max(0, len(content) + more)
    bare.socket.sendall(ENVELOPE.format(f"rst+{after}@y").encode() + b"DATA\r\n")
    bare.until(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    with suppress(ConnectionResetError):
        bare.socket.sendall(content + b".\r\n")
        listen(bare)
    assert bare.received == b""
    wait_until(lambda: sink.connections == 0)
    assert sink.count == taken


def test_a_reset_comes_no_octet_too_late(sink: Sink, bare: Bare) -> None:
    bare.hello()
    bare.socket.sendall(ENVELOPE.format("rst+5@y").encode() + b"DATA\r\n")
    bare.until(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    bare.socket.sendall(b"1234")
    bare.is_silent()
    bare.socket.sendall(b"5")
    assert reset(bare) == b""
    assert sink.count == 0


@pytest.mark.parametrize(("after", "taken"), [(0, 0), (5, 0), (6, 1), (7, 1)])
def test_a_reset_after_a_chunk_came_whole(sink: Sink, bare: Bare, after: int, taken: int) -> None:
    bare.hello()
    sent = ENVELOPE.format(f"rst+{after}@y").encode() + b"BDAT 6 LAST\r\n1234\r\n"
    bare.socket.sendall(sent)
    assert reset(bare).count(b"250 ") <= 2
    assert sink.count == taken


def test_a_reset_within_a_chunk(sink: Sink, bare: Bare) -> None:
    bare.hello()
    bare.socket.sendall(ENVELOPE.format("rst+5@y").encode() + b"BDAT 2\r\n12BDAT 6 LAST\r\n34")
    bare.until(b"go on\r\n")
    bare.is_silent()
    bare.socket.sendall(b"5")
    assert reset(bare) == b""
    assert sink.count == 0


def test_a_reset_that_was_called_off(sink: Sink, bare: Bare) -> None:
    bare.hello()
    for end in (b"RSET\r\n", b"BDAT 1\r\nxRSET\r\n"):
        bare.socket.sendall(ENVELOPE.format("rst+5@y").encode() + end)
        bare.until(b"250 2.0.0 Ok\r\n")
    bare.socket.sendall(ENVELOPE.format("b@y").encode() + b"BDAT 9 LAST\r\n1234567\r\n")
    bare.until(b"250 2.0.0 Ok\r\n")
    assert sink.count == 1


# For every mail


def test_a_fault_for_every_mail() -> None:
    with Sink(fault=Fault("data", 451)) as sink, client_of(sink) as client:
        for _ in range(2):
            with pytest.raises(smtplib.SMTPDataError, match="451"):
                client.sendmail("a@x", SEVERAL, LETTER)
        with pytest.raises(smtplib.SMTPDataError, match="452"):
            client.sendmail("a@x", ["data+452@y"], LETTER)
    with Sink(fault=Fault("greylist", 0)) as sink, client_of(sink) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
            client.sendmail("a@x", ["b@y"], LETTER)
        assert client.sendmail("a@x", ["b@y"], LETTER) == {}
        assert sink.count == 1


def test_a_host_that_does_not_swallow() -> None:
    with Sink(policy=Policy(swallows_chunks=False)) as sink:
        bare = Bare(sink)
        bare.hello()
        bare.socket.sendall(b"BDAT 7 LAST\r\nXYZZY\r\nRSET\r\nQUIT\r\n")
        said = bare.rest().splitlines()
        assert [line[:3] for line in said] == [b"503", b"500", b"250", b"221"]
        bare.socket.close()


def test_read_fault() -> None:
    assert read_fault("data+451.5@x") == Fault("data", 451.5)
    assert read_fault("data+1.2.3@x") == Fault("data", 0)
    assert [read_fault(name) for name in NAMES] == [Fault(name, 0) for name in NAMES]
    for address in ("", "a@x", "data+@x", "datum@x", "DATA@x", "data+451", "a.data@x"):
        assert (read_fault(address) is None) == (address != "data+451")
