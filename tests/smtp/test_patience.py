"""We leave before a host has had enough, and send fewer ahead the less it likes what it gets."""

from refusing_host import ANNOUNCED

from geomail.letter import Letter
from geomail.smtp.client import Client
from geomail.smtp.events import Policy
from geomail.smtp.patience import Patience

LETTER = Letter("a@a.example", ("b@b.example",), b"Subject: 1\r\n\r\n", False, False)
TAKEN = b"250 ok\r\n250 ok\r\n250 taken\r\n"
REFUSED = b"250 ok\r\n550 no\r\n503 no\r\n"


def ready(chunking: str = "on", proof: bytes = b"") -> Client:
    """Return a client that is ready to send, with nothing left to write."""
    client = Client(Policy("client.example", chunking=chunking, in_flight=8))
    for said in filter(None, (b"220 mx.example\r\n", ANNOUNCED, proof)):
        client.receive(said)
        write(client)
    return client


def write(client: Client) -> bytes:
    """Take the output as a kernel that takes everything."""
    out = client.output()
    client.wrote(len(out))
    return out


def send(client: Client, replies: bytes) -> None:
    """Send one letter and hear this; its RSET is obeyed."""
    client.begin(LETTER, None)
    is_reset = write(client).startswith(b"RSET")
    client.receive(b"250 reset\r\n" * is_reset + replies)
    assert not client.is_lost


def test_a_host_that_refuses_nothing_has_no_end() -> None:
    client = ready()
    for _ in range(100):
        send(client, TAKEN)
    assert not client.is_full


def test_four_refused_in_a_row_are_enough() -> None:
    client = ready()
    found = []
    for _ in range(4):
        found.append(client.is_full)
        send(client, REFUSED)
    assert [*found, client.is_full] == [False] * 4 + [True]


def test_one_that_is_taken_makes_up_for_refusals() -> None:
    client = ready()
    for _ in range(3):
        for _ in range(3):
            send(client, REFUSED)
        assert not client.is_full
        send(client, TAKEN)


def sent_until_full(client: Client) -> int:
    """Send two that are refused and one that is taken, and so on; return how many it took."""
    for count in range(100):
        if client.is_full:
            return count
        send(client, TAKEN if count % 3 == 2 else REFUSED)
    return 100


def test_a_host_is_not_sent_eleven_resets_that_serve_no_mail() -> None:
    # One in three letters is behind a RSET that is not the first since a content.
    assert sent_until_full(ready()) == 27


def test_the_reset_of_the_proof_counts() -> None:
    assert sent_until_full(ready("prove", b"503 no\r\n250 reset\r\n")) == 24


def test_fewer_are_sent_ahead_the_more_is_refused() -> None:
    client, rooms, is_behind_a_reset = ready(), [], False
    for _ in range(4):
        while client.may_begin:
            client.begin(LETTER, None)
        write(client)
        rooms.append(len(client.unfinished))
        client.receive(b"250 reset\r\n" * is_behind_a_reset + REFUSED)
        is_behind_a_reset = True
    assert rooms == [8, 7, 6, 5]
    assert client.is_full


def test_room_is_never_nothing_while_it_is_not_over() -> None:
    for most in (1, 2, 8, 64):
        patience = Patience(most)
        while not patience.is_over:
            assert 1 <= patience.room <= most
            patience.was_refused()
            patience.was_reset()
            patience.had_content(is_taken=False)


def test_ten_resets_are_one_that_is_free_and_nine() -> None:
    patience = Patience(8)
    for _ in range(10):
        assert not patience.is_over
        patience.was_reset()
    assert patience.is_over
    assert patience.room == 0


def test_what_is_taken_gives_all_the_room_back() -> None:
    patience = Patience(64)
    patience.was_refused()
    assert patience.room == 9
    patience.had_content(is_taken=True)
    assert patience.room == 64
