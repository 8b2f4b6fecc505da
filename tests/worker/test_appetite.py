"""How much is taken for tasks beside mail; lanes and carriers are numbers here."""

from typing import cast

from geomail.carriers.carriers import Carriers
from geomail.delivery.lanes import Lanes
from geomail.worker.appetite import Appetite


class Route:
    """A relay that is open, or closed for a second."""

    is_held = False

    def __init__(self) -> None:
        self.closed_s = 0.0

    def opens_in_s(self, _now: float) -> float:
        """Return the seconds until it is open."""
        return self.closed_s


class Given:
    """What lanes and carriers say, as far as anybody asks."""

    def __init__(self) -> None:
        self.mail, self.tasks, self.met, self.bytes = 0, 200, 0, 1
        self.is_on = True
        self.relay = Route()
        self.routes = {"default": self.relay}
        self.settings = self
        self.relays = ("default",)
        this = self

        class House:
            settings, routes = self, self.routes

            def room(self) -> int:
                return this.mail

            def bytes_to_take(self) -> int:
                return this.bytes

        self.appetite = Appetite(cast("Lanes", House()), cast("Carriers", self))

    def room(self) -> int:
        """Return how many tasks there is room for."""
        return self.tasks

    def take(self, now: float, tasks: int, *, mails: int = 0) -> None:
        """Take something fresh at `now`."""
        self.met += tasks
        self.appetite.note(tasks + mails, now, is_fresh=True)


def test_mail_alone_is_taken_as_if_there_were_no_tasks() -> None:
    given = Given()
    given.mail = 40
    for now in range(5):
        given.take(now, 0, mails=40)
        assert given.appetite.room(now) == 40
    given.is_on = False
    given.mail = 0
    assert given.appetite.room(100.0) == 0
    assert given.appetite.again_in_s(100.0) > 1e9


def test_tasks_make_hungry_and_mails_end_it() -> None:
    given = Given()
    given.mail = 10
    given.take(0.0, 10)
    assert given.appetite.room(0.0) == 31
    given.take(0.0, 31)
    assert given.appetite.room(0.0) == 73
    given.take(0.0, 0, mails=73)
    assert given.appetite.room(0.0) == 10


def test_what_was_parked_tells_nothing() -> None:
    given = Given()
    given.mail = 10
    given.met += 50
    given.appetite.note(50, 0.0, is_fresh=False)
    assert given.appetite.room(0.0) == 10


def test_lanes_that_want_nothing_are_passed_by_ever_more_rarely() -> None:
    given = Given()
    pauses, sizes = [], []
    now = 1.0
    for _ in range(8):
        sizes.append(given.appetite.room(now))
        given.take(now, 0, mails=sizes[-1])
        assert given.appetite.room(now) == 0
        pauses.append(round(given.appetite.again_in_s(now), 3))
        now += pauses[-1] + 0.001
    assert sizes == [16, 32, 64, 128, 200, 200, 200, 200]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2]
    given.take(now, 3)
    assert given.appetite.room(now) == 7
    assert given.appetite.room(now + 0.1) == 16


def test_a_list_that_was_empty_is_asked_at_once() -> None:
    given = Given()
    given.take(1.0, 0, mails=16)
    given.take(1.1, 0)
    assert given.appetite.room(1.1) == 16


def test_where_no_host_is_open_all_room_counts() -> None:
    given = Given()
    given.relay.closed_s = 1.0
    given.take(1.0, 0, mails=200)
    assert given.appetite.room(1.0) == 200


def test_without_room_for_tasks_nobody_asks_again_and_again() -> None:
    given = Given()
    given.tasks = 0
    assert given.appetite.room(1.0) == 0
    assert given.appetite.again_in_s(1.0) > 1e9
    given.tasks, given.bytes = 200, 0
    assert given.appetite.room(1.0) == 0
    assert given.appetite.again_in_s(1.0) > 1e9
