"""A host that answers, refuses and hangs up by chance: what is reported is what it has."""

import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import gevent
import pytest
from house import House, MakeHouse, until
from scripted import Host, Peer

from geomail.delivery.delivery import Delivery
from geomail.delivery.host.refusals import Refusals
from geomail.delivery.lane import Lane, Refused
from geomail.delivery.outcome import Fate, Outcome

pytest_plugins = ("delivery_fixtures",)

_MAILS = 120
_ODD = {
    b"220": b"421 no|554 go away|",
    b"MAIL": b"451 not now|550 no|421 busy|452 4.5.3 full|535 login|421 too many mails a session",
    b"RCPT": b"452 4.5.3 too many|550 nobody|451 later|530 login|421 no|552 too many",
    b"DATA": b"451 no data|250 hm|421 no",
    b".": b"451 later|550 spam|421 closing|530 login||taken",
}


class HangsUp(Exception):
    """It says no more on this connection."""


@dataclass
class ByChance:
    """Takes mails by DATA and BDAT, and does something else in one of so many cases."""

    chance: random.Random
    oddness: float
    has: Counter[str] = field(default_factory=Counter)

    def play(self, peer: Peer) -> None:
        try:
            self._say(peer, b"220", b"220 mx.example")
            peer.hear(b"\r\n")
            peer.say(b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
            self._converse(peer)
        except HangsUp:
            pass

    def _converse(self, peer: Peer) -> None:
        has_sender, accepted = False, list[str]()
        while (line := peer.hear(b"\r\n")) != b"QUIT":
            verb = line[:4]
            if verb == b"MAIL":
                has_sender = not has_sender and self._say(peer, verb)
            elif verb == b"RCPT" and has_sender:
                if self._say(peer, verb):
                    accepted.append(line[9:-1].decode())
            elif verb == b"RSET":
                has_sender, accepted = False, []
                peer.say(b"250 ok\r\n")
            elif self._reads(peer, line, accepted):
                has_sender, accepted = False, self._take(peer, accepted)
        peer.say(b"221 bye\r\n")

    def _reads(self, peer: Peer, line: bytes, accepted: list[str]) -> bool:
        """Read the content behind DATA or BDAT; return whether it is somebody's."""
        if line.startswith(b"BDAT"):
            peer.read(int(line.split()[1]))
        if not accepted:
            peer.say(b"503 out of order\r\n")
        elif line == b"DATA":
            if not self._say(peer, b"DATA", b"354 go"):
                return False
            peer.hear(b"\r\n.\r\n")
        return bool(accepted)

    def _take(self, peer: Peer, accepted: list[str]) -> list[str]:
        odd = self._odd(b".")
        if odd is None or odd == b"taken":
            self.has.update(accepted)
        if odd == b"taken":
            raise HangsUp
        self._answer(peer, b"250 ok" if odd is None else odd)
        return []

    def _say(self, peer: Peer, verb: bytes, usual: bytes = b"250 ok") -> bool:
        """Answer; return whether it was as usual."""
        odd = self._odd(verb)
        self._answer(peer, usual if odd is None else odd)
        return odd is None

    def _answer(self, peer: Peer, answer: bytes) -> None:
        if answer:
            peer.say(answer + b"\r\n")
        if not answer or answer[:3] in (b"421", b"554"):
            raise HangsUp

    def _odd(self, verb: bytes) -> bytes | None:
        if self.chance.random() >= self.oddness:
            return None
        return self.chance.choice(_ODD[verb].split(b"|"))


class Ledger:
    """What the lane said of each recipient, once."""

    def __init__(self, house: House) -> None:
        self.fates: dict[str, Fate] = {}
        self.ended: set[Delivery] = set()
        house.lanes.report, house.lanes.progress = self._report, self._note

    def _report(self, delivery: Delivery, outcomes: list[Outcome], lane: Lane) -> None:
        assert delivery not in self.ended
        self.ended.add(delivery)
        self._note(delivery, list(zip(delivery.recipients, outcomes, strict=True)), lane)

    def _note(self, _: Delivery, pairs: list[tuple[str, Outcome]], _lane: Lane) -> None:
        for recipient, outcome in pairs:
            assert recipient not in self.fates
            self.fates[recipient] = outcome.fate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chunking", ["off", "on"])
def test_what_is_reported_is_what_the_host_has(
    make_house: MakeHouse, chunking: str, seed: int
) -> None:
    chance = random.Random(f"{chunking}{seed}")
    by_chance = ByChance(chance, [0.02, 0.06, 0.15][seed])
    with Host(by_chance.play) as host:
        house = make_house(
            f"smtp://127.0.0.1:{host.port}",
            concurrency="3",
            keys=f'chunking = "{chunking}"',
            backoff_base_s="0.01",
            backoff_cap_s="0.05",
            idle_s="0.05",
        )
        house.lane.refusals = Refusals[Refused](hold_s=0.3)
        ledger = Ledger(house)
        recipients = send_all(house, ledger, chance)
        until(lambda: not house.lane.senders)
        assert set(ledger.fates) == recipients
        assert house.lane.in_hand == house.lanes.bytes_in_hand == house.lane.live == 0
        assert house.lane.connecting == house.lane.leaving == 0
    for recipient, fate in ledger.fates.items():
        if fate is Fate.DELIVERED:
            assert by_chance.has[recipient] == 1
        else:
            assert fate is Fate.UNKNOWN or not by_chance.has[recipient]


def send_all(house: House, ledger: Ledger, chance: random.Random) -> set[str]:
    """Put mails of one to five recipients, and what comes back, until all have ended."""
    waiting = deque(
        delivery
        for sender in ("me", "you", "them")
        for delivery in house.deliveries(["x@x.org"] * (_MAILS // 3), sender=f"{sender}@x.org")
    )
    for number, delivery in enumerate(waiting):
        most = chance.choice([1, 1, 1, 2, 5])
        delivery.recipients = [f"m{number}r{i}@x.org" for i in range(most)]
    recipients = {recipient for delivery in waiting for recipient in delivery.recipients}
    deadline = time.monotonic() + 60
    while len(ledger.ended) < _MAILS:
        assert time.monotonic() < deadline, "not all came to an end"
        waiting.extend(house.stranded)
        house.stranded.clear()
        while waiting and house.lane.has_place(time.monotonic()):
            house.lane.put(waiting.popleft())
        gevent.sleep(chance.choice([0.0, 0.001, 0.01, 0.08]))
    return recipients
