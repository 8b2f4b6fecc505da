"""A lane's crew: its senders, and how far each is with its connection.

    connecting   no connection yet
    live         connected; proved: the host has answered a mail on it
    idle         live, and without work
    leaving      how many are to leave after the message in hand, whichever they are
    behind       whose connection is from before the last failure of the host, and may be dead

Who gets a sender is staffing's business; what a sender does, its own.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geomail.delivery.lanes import Lanes
    from geomail.delivery.sender import Sender


class Crew:
    """The senders of one lane; the numbers of those in each state are kept by the senders."""

    def __init__(self, house: "Lanes") -> None:
        self.house = house
        self.senders: set[Sender] = set()
        self.idle: dict[Sender, None] = {}  # the one that was busy last comes last
        self.connecting = 0
        self.live = 0
        self.proved = 0  # of those: the host has answered a mail on them
        self.leaving = 0
        self.epoch = 0  # failures that were counted
        self.behind = 0  # senders whose connection is from before the last of them

    def add(self, sender: "Sender") -> None:
        """Note a sender that is about to connect."""
        sender.epoch = self.epoch
        self.senders.add(sender)

    def renew(self, sender: "Sender") -> None:
        """Note that a sender connects again."""
        self.behind -= sender.epoch < self.epoch
        sender.epoch = self.epoch

    def discard(self, sender: "Sender") -> None:
        """Note that a sender has gone."""
        self.renew(sender)
        self.senders.discard(sender)
        self.leaving = min(self.leaving, len(self.senders))

    def idle_now(self, sender: "Sender") -> None:
        """Note that a sender waits for work."""
        self.idle[sender] = self.house.idle[sender] = None

    def idle_no_more(self, sender: "Sender") -> None:
        """Note that it does not."""
        self.idle.pop(sender, None)
        self.house.idle.pop(sender, None)

    def fall_behind(self) -> None:
        """Note that the host has failed: no connection is from after it."""
        self.epoch += 1
        self.behind = len(self.senders)

    def dismiss_idle(self) -> None:
        """Make idle connections leave: they may be gone too, and would stand for the host later."""
        for sender in tuple(self.idle):
            sender.dismiss()
