"""A host that takes so many mails a connection, and then says so at MAIL instead of hanging up."""

from collections.abc import Callable

from house import MakeHouse, many, talk, until
from scripted import Host

from geomail.delivery.outcome import Fate

pytest_plugins = ("delivery_fixtures",)


def carries(most: int) -> Callable[[bytes], bytes]:
    """Return the answers of a connection that carries `most` mails."""
    seen = [0]

    def answer(line: bytes) -> bytes:
        seen[0] += line.startswith(b"MAIL")
        is_full = line.startswith(b"MAIL") and seen[0] > most
        return b"452 4.5.3 Too many recipients: Too many messages sent" if is_full else b"250 ok"

    return answer


def test_the_mail_that_is_one_too_many_goes_by_the_next_connection(make_house: MakeHouse) -> None:
    talks: list[list[int]] = []
    with Host(lambda peer: talks.append(talk(peer, reply=carries(3)))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.1")
        house.put(0, *many(10))
        until(lambda: len(house.reports) == 10)
        until(lambda: len(talks) == 4)
        assert house.fates() == {Fate.DELIVERED: 10}
        assert not house.lane.backoff.is_closed(0.0)
        # Two have to be told; who comes after them leaves in time.
        assert [len(mails) for mails in talks] == [4, 4, 3, 1]


def test_a_single_word_of_it_teaches_nothing(make_house: MakeHouse) -> None:
    talks: list[list[int]] = []
    with Host(lambda peer: talks.append(talk(peer, reply=carries(1 if not talks else 99)))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1", idle_s="0.1")
        house.put(0, *many(10))
        until(lambda: len(house.reports) == 10)
        until(lambda: len(talks) == 2)
        assert [len(mails) for mails in talks] == [2, 9]


def test_a_connection_that_carried_nothing_is_not_full(make_house: MakeHouse) -> None:
    with Host(lambda peer: talk(peer, reply=carries(0))) as host:
        house = make_house(f"smtp://127.0.0.1:{host.port}", concurrency="1")
        house.put(0, "ann@example.org")
        until(lambda: len(house.reports) == 1)
        assert house.fates() == {Fate.LATER: 1}
