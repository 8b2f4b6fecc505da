"""An SMTP door under stress: clients that mean no good, and a queue that takes nothing."""

import random
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent
import pytest
from smtp_doors import ENVELOPE, LETTER, Bare, Opened, opened, wait_until

from geomail.intake import smtp
from geomail.queue import Link, Queue, embedded

DATA = ENVELOPE + b"DATA\r\n"
BLOCK = b"x" * 70 + b"\r\n"
MOST_BYTES = 6_000_000


@pytest.fixture
def door(redis_url: str) -> Iterator[Opened]:
    with opened(redis_url, door_idle_s=0.5) as running:
        yield running


@contextmanager
def little_memory(most: int = MOST_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def is_served(door: Opened) -> bool:
    """Send a mail as anyone would."""
    with door.client() as client:
        return client.sendmail("a@x.example", ["b@y.example"], LETTER) == {}


def test_silence(door: Opened) -> None:
    bare = door.bare()
    assert bare.codes(2) == [220, 421]
    assert bare.rest() == b""


@pytest.mark.parametrize("beginning", [b"", DATA, ENVELOPE + b"BDAT 10000 LAST\r\n"])
def test_a_byte_now_and_then(door: Opened, beginning: bytes) -> None:
    bare = door.bare()
    bare.hello()
    bare.say(beginning)
    bare.socket.settimeout(0.05)
    assert b"\r\n421 4.4.2 Idle for too long\r\n" in b"\r\n" + heard_while_dripping(bare)


def heard_while_dripping(bare: Bare) -> bytes:
    """Send a byte now and then until nobody is there; return what was said."""
    heard = bare.received
    with gevent.Timeout(20), suppress(OSError):
        while True:
            bare.say(b"N")
            with suppress(TimeoutError):
                heard += bare.socket.recv(4096)
                if b"421" in heard:
                    break
    return heard


def test_a_slow_client_that_gets_on_is_served(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    for _ in range(4):
        gevent.sleep(0.25)
        bare.say(b"NOOP\r\n")
        assert bare.codes(1) == [250]
    bare.say(DATA)
    assert bare.codes(3) == [250, 250, 354]
    bare.say(b"Subject: slow\r\n\r\n")
    for _ in range(4):
        gevent.sleep(0.25)
        bare.say(BLOCK * 100)
    bare.say(b".\r\n")
    assert bare.codes(1) == [250]


@pytest.mark.parametrize(
    "beginning",
    [
        *[b"", b"AUTH PLAIN ", DATA, DATA + b"Subject: x\r\n\r\n"],
        *[b"BDAT 1000000000\r\n", ENVELOPE + b"BDAT 1000000000 LAST\r\n"],
    ],
)
def test_what_never_ends(redis_url: str, beginning: bytes) -> None:
    with opened(redis_url, door_max_mb=1) as door:
        bare = door.bare()
        bare.hello()
        with little_memory():
            bare.say(beginning)
            for _ in range(500):
                bare.say(b"x" * 65536)
            assert is_served(door)
        assert door.gate.room.held < 100
        assert len(door.jobs()) == 1


def test_many_large_mails_at_a_time(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they would be 32 MB, and 12 are allowed: some are told so, others go on."""
    monkeypatch.setattr(smtp, "_ROOM_S", 0.3)
    with opened(redis_url, memory_mb=16, door_max_mb=6) as door:
        bares = [door.bare() for _ in range(8)]
        for bare in bares:
            bare.hello()
            bare.say(DATA)
            bare.codes(3)
        with little_memory(40_000_000):
            for bare in bares:
                with suppress(OSError):
                    bare.say(b"Subject: large\r\n\r\n", *[BLOCK * 14_000] * 4)
            assert is_served(door)
        wait_until(lambda: door.door.reception.guests < 8)
        codes = [answer_to_the_dot(bare) for bare in bares]
        assert codes.count(250) >= 1
        assert codes.count(421) >= 4
        assert door.gate.room.held == 0


def answer_to_the_dot(bare: Bare) -> int:
    """End the mail; say what is answered. 421 may be lost with the connection."""
    try:
        bare.say(b".\r\n")
        return bare.codes(1)[0]
    except OSError:
        return 421


def ask_for_ever(bare: Bare) -> None:
    while True:
        bare.say(b"EHLO me.example\r\n" * 2000)


def test_a_client_that_asks_and_does_not_read(door: Opened) -> None:
    bare = door.bare()
    bare.hello()
    bare.socket.settimeout(1.0)
    with little_memory(), pytest.raises(OSError, match=r"timed out|Broken pipe|reset by peer"):
        ask_for_ever(bare)
    assert is_served(door)
    wait_until(lambda: door.door.reception.guests == 0)


WORDS = [
    *[
        b"EHLO ",
        b"MAIL FROM:<",
        b"RCPT TO:<",
        b"DATA\r\n",
        b"BDAT ",
        b"BDAT 9 LAST\r\n",
        b"RSET\r\n",
    ],
    *[b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"STARTTLS\r\n", b">", b"\r\n", b"\r\n.\r\n", b"\0", b"."],
    *[b" SIZE=", b" RET=", b" NOTIFY=", b"<@,:a@b>", b"QUIT\r\n", b"\xff\xfe", b"@x.example>\r\n"],
]


def rubbish(chance: random.Random) -> bytes:
    """Return random bytes, between them words that mean something."""
    pieces = [chance.choice(WORDS), chance.randbytes(chance.randrange(20))]
    return b"".join(chance.choice(pieces) for _ in range(6))


def test_ten_thousand_random_strings(redis_url: str) -> None:
    chance = random.Random(1)
    with opened(redis_url, door_idle_s=5) as door, little_memory():
        for _ in range(500):
            bare = Bare(door.address)
            with suppress(OSError), bare.socket:  # it may have heard enough
                bare.say(*(rubbish(chance) for _ in range(20)))
                bare.socket.shutdown(socket.SHUT_WR)
                assert bare.rest().startswith(b"220 ")
        assert is_served(door)
        wait_until(lambda: door.door.reception.guests == 0)
        assert door.gate.room.held == 0


def test_a_hundred_that_drip(door: Opened) -> None:
    """They are ended one after the other, and the others are served meanwhile."""
    drips = [door.bare() for _ in range(100)]
    begun = time.monotonic()
    while door.door.reception.guests > 1:
        assert time.monotonic() < begun + 20
        for bare in drips:
            with suppress(OSError):
                bare.say(b"N")
        assert is_served(door)


def test_one_connection_too_many(redis_url: str) -> None:
    with opened(redis_url, door_connections=2) as door:
        inside = [door.bare(), door.bare()]
        for bare in inside:
            bare.hello()
            taken(bare)
        outside = door.bare()
        assert outside.rest() == b"421 4.7.0 Too many connections, try again later\r\n"
        inside[0].say(b"QUIT\r\n")
        inside[0].rest()
        assert is_served(door)


@pytest.mark.parametrize("verb", [b"POST", b"GET", b"CONNECT"])
def test_a_web_page_can_not_send(door: Opened, verb: bytes) -> None:
    bare = door.bare()
    bare.say(verb + b" / HTTP/1.1\r\nHost: a\r\n\r\nEHLO me\r\n" + DATA + LETTER + b".\r\n")
    assert bare.codes(2) == [220, 554]
    assert bare.rest() == b""
    assert door.jobs() == []


def test_too_many_wait(redis_url: str) -> None:
    with opened(redis_url, high_water=10) as door:
        queue = Queue(Link(redis_url))
        queue.push([b"{}"] * 20)
        queue.close()
        wait_until(lambda: door.gate.pressure == "high")
        bare = door.bare()
        bare.hello()
        bare.say(DATA)
        assert bare.until(b"\r\n").startswith(b"452 4.3.1 Too many mails are waiting")
        assert bare.codes(2) == [503, 503]


def test_an_address_that_brings_too_many(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the rate is delayed; what is far above it is told so."""
    monkeypatch.setattr(smtp, "_DELAYED_S", 1.0)
    with opened(redis_url, door_rate=20) as door:
        bare = door.bare()
        bare.hello()
        begun = time.monotonic()
        group = ENVELOPE + b"BDAT 0 LAST\r\n"
        bare.say(group * 30)
        assert bare.codes(90) == [250] * 90
        assert time.monotonic() - begun > 0.4
        bare.say(group * 100)
        codes = bare.codes(300)
        taken = codes.index(450) // 3
        assert 15 < taken < 60
        assert codes[3 * taken :] == [450, 503, 503] * (100 - taken)
    assert len(door.jobs()) == 30 + taken


def test_redis_goes_and_comes(tmp_path: Path) -> None:
    server = embedded.start_private(tmp_path)
    with opened(server.url, patience_s=0.3) as door:
        bare = door.bare()
        bare.hello()
        server.kill()
        bare.say(DATA + LETTER + b".\r\n")
        assert bare.codes(3) == [250, 250, 354]
        assert bare.until(b"\r\n") == (b"451 4.3.0 The queue can't be reached, try again later\r\n")
        server = embedded.start_private(server.folder, port=server.port)
        try:
            taken(bare)
            assert len(door.jobs()) == 1
        finally:
            server.kill()


def taken(bare: Bare) -> None:
    """Send a mail until it is taken."""
    with gevent.Timeout(20):
        while True:
            bare.say(DATA + LETTER + b".\r\n")
            if bare.codes(4)[-1] == 250:
                return


def test_it_leaves_when_what_was_sent_is_answered(redis_url: str) -> None:
    with opened(redis_url) as door:
        idle, busy = door.bare(), door.bare()
        idle.hello()
        busy.hello()
        busy.say(DATA)
        assert busy.codes(3) == [250, 250, 354]
        busy.say(LETTER + b".\r\n" + DATA)
        leaving = gevent.spawn(door.door.stop, 20)
        assert busy.codes(4)[0] == 250
        assert busy.rest().startswith(b"421 4.3.2 ") or busy.received == b""
        assert idle.rest() == b"421 4.3.2 Going down, try again later\r\n"
        leaving.get(timeout=20)
        with pytest.raises(ConnectionRefusedError):
            door.bare()
    assert len(door.jobs()) == 1
