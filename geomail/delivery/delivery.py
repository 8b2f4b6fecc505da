"""A delivery: one slot on its way to a host, and to whom it is left to send."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from geomail.delivery.outcome import Fate, Outcome
from geomail.job import Address, Email

if TYPE_CHECKING:
    from geomail.queue import Queue, Slot


class Delivery(msgspec.Struct, eq=False, gc=False):
    """One slot on its way through a lane: an e-mail, and to whom it is left to send."""

    queue: "Queue"
    slot: "Slot"
    email: Email
    recipients: Sequence[str]
    sender: Address
    route: str
    returned: int = 0
    set_aside: list[tuple[str, Outcome]] = []  # refused, while others go on

    def is_mine(self) -> bool:
        """Return whether the lease under which this slot was taken is still ours."""
        return self.queue.owns(self.slot)

    def left(self) -> list[str]:
        """Return all recipients that nothing was delivered to, refused ones included."""
        return [*self.recipients, *(recipient for recipient, _ in self.set_aside)]

    def narrow(self, outcomes: list[Outcome], surplus: list[int]) -> list[tuple[str, Outcome]]:
        """Leave only the recipients at `surplus` to send to; return those that were delivered.

        The slot remembers who is left, wherever it goes from here.
        """
        pairs = list(zip(self.recipients, outcomes, strict=True))
        onward = set(surplus)
        judged = [pair for position, pair in enumerate(pairs) if position not in onward]
        self.recipients = [pairs[position][0] for position in surplus]
        self.set_aside += [pair for pair in judged if pair[1].fate is not Fate.DELIVERED]
        self.slot.state = msgspec.structs.replace(self.slot.state, rcpt=self.left())
        return [pair for pair in judged if pair[1].fate is Fate.DELIVERED]

    def rejoin(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Take back those that were set aside; return their outcomes behind `outcomes`."""
        self.recipients, aside = self.left(), self.set_aside
        self.set_aside = []
        return [*outcomes, *(outcome for _, outcome in aside)]
