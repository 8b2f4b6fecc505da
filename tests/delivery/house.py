"""A house with lanes, a real queue and a list of what was reported, for tests of senders."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent
from scripted import Peer

from geomail import config, job
from geomail.delivery.delivery import Delivery
from geomail.delivery.lane import Lane
from geomail.delivery.lanes import Lanes
from geomail.delivery.outcome import Fate, Outcome
from geomail.queue import Link, Queue
from geomail.sink import Sink

Report = tuple[str, list[Fate], str]


class House:
    """Lanes with a real queue, and a list of everything they have reported."""

    def __init__(
        self, redis_url: str, folder: Path, *relays: str, keys: str = "", **environ: str
    ) -> None:
        flags = {"--concurrency": environ.pop("concurrency", "10")}
        variables = {f"GEOMAIL_{name.upper()}": value for name, value in environ.items()}
        file = folder / "geomail.toml"
        file.write_text(f"[relay.default]\nurls = {json.dumps(relays)}\n{keys}\n")
        settings = config.load(flags, variables, places=(file,))
        self.queue = Queue(Link(redis_url), "queue:lanes")
        self.queue.register()
        self.reports: list[Report] = []
        self.stranded: list[Delivery] = []
        self.splits: list[tuple[Delivery, int]] = []
        self.delivered_so_far: list[str] = []
        self.lanes = Lanes(
            settings,
            report=self._report,
            progress=self._progress,
            stranded=self.stranded.extend,
            split=lambda delivery, most: self.splits.append((delivery, most)),
        )

    def _report(self, delivery: Delivery, outcomes: list[Outcome], lane: Lane) -> None:
        fates = [outcome.fate for outcome in outcomes]
        self.reports.append((delivery.email.recipients[0], fates, lane.name))

    def _progress(
        self, _delivery: Delivery, delivered: list[tuple[str, Outcome]], _lane: Lane
    ) -> None:
        self.delivered_so_far += [recipient for recipient, _ in delivered]

    @property
    def lane(self) -> Lane:
        return self.lanes.lanes[0]

    def deliveries(
        self, recipients: Sequence[str], *, sender: str = "me@example.com"
    ) -> list[Delivery]:
        mails = [{"to": to, "from": sender, "text": "hi"} for to in recipients]
        self.queue.push([json.dumps(mail).encode() for mail in mails])
        slots = self.queue.take(len(mails)).slots
        assert len(slots) == len(mails)
        found = []
        for slot in slots:
            email = job.decode(slot.payload)
            assert isinstance(email, job.Email)
            found.append(
                Delivery(
                    self.queue,
                    slot,
                    email=email,
                    recipients=email.recipients,
                    sender=job.Address(sender),
                    route="default",
                )
            )
        return found

    def put(self, lane: int, *recipients: str) -> None:
        for delivery in self.deliveries(recipients):
            self.lanes.lanes[lane].put(delivery)

    def fates(self) -> Counter[Fate]:
        return Counter(fate for _, fates, _ in self.reports for fate in fates)

    def close(self) -> None:
        self.lanes.stop()
        self.lanes.join(0.2, last_s=0.2)
        self.queue.close()


MakeHouse = Callable[..., House]


def url(sink: Sink) -> str:
    return f"smtp://127.0.0.1:{sink.address[1]}"


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def until(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        gevent.sleep(0.005)


def many(n: int, local: str = "bo") -> list[str]:
    return [f"{local}{i}@example.org" for i in range(n)]


def _yes(_line: bytes) -> bytes:
    return b"250 ok"


def talk(
    peer: Peer,
    *,
    limits: str = "",
    then: Callable[[], object] = lambda: None,
    reply: Callable[[bytes], bytes] = _yes,
) -> list[int]:
    """Take mails until the client says QUIT; return how many recipients each had.

    `reply` answers each command but DATA, and "." for the content; it hangs up by saying nothing,
    or 421.
    """
    peer.greet(ehlo=b"250-mx.example\r\n250-PIPELINING\r\n250 LIMITS %s\r\n" % limits.encode())
    mails: list[int] = []
    accepted, has_sender = 0, False
    while not (line := peer.hear(b"\r\n")).startswith(b"QUIT"):
        if line == b"DATA":
            peer.say(b"354 go\r\n" if accepted else b"503 no recipients\r\n")
            if not accepted:
                continue
            peer.hear(b"\r\n.\r\n")
            line = b"."
        if line.startswith(b"MAIL"):
            mails.append(0)
            accepted = 0
        is_rcpt = line.startswith(b"RCPT")
        answer = reply(line) if has_sender or not is_rcpt else b"503 no sender"
        if line.startswith(b"MAIL"):
            has_sender = answer.startswith(b"2")
        mails[-1] += is_rcpt
        accepted += is_rcpt and answer.startswith(b"2")
        if answer:
            peer.say(answer + b"\r\n")
        if not answer or answer.startswith(b"421"):
            return mails
    then()
    peer.say(b"221 bye\r\n")
    return mails
