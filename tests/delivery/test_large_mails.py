"""What a connection keeps of a mail once its outcome is told: nothing, for it may be megabytes."""

import gc

import pytest
from house import MakeHouse, until

from geomail.delivery.delivery import Delivery
from geomail.letter import Letter
from geomail.sink import Sink
from geomail.smtp.events import Transaction

pytest_plugins = ("delivery_fixtures",)


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_an_idle_connection_keeps_no_mail(make_house: MakeHouse, chunking: str) -> None:
    with Sink() as sink:
        house = make_house(
            f"smtp://127.0.0.1:{sink.address[1]}",
            keys=f'chunking = "{chunking}"',
            concurrency="2",
            idle_s="60",
        )
        house.put(0, *[f"kept{number}@{chunking}.org" for number in range(20)])
        until(lambda: len(house.reports) == 20 and len(house.lane.idle) == len(house.lane.senders))
        assert house.lane.idle
        gc.collect()
        assert kept(f"@{chunking}.org") == []


def kept(domain: str) -> list[object]:
    """Return what is held of mails to `domain` by anything in this process."""
    found: list[object] = []
    for one in gc.get_objects():
        letter = one.letter if type(one) is Transaction else one
        if type(letter) in (Delivery, Letter) and letter.recipients[0].endswith(domain):
            found.append(one)
    return found
