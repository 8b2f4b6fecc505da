"""Jobs of all shapes to several relays and sites, from two lists, whatever happens meanwhile.

Recipients, senders, relays and refusals are drawn at random. Workers are killed again and again, a
relay is held for a while, a file with other routes is read. In the end each recipient has his mail,
at the host that it was to go to; twice only what a killed worker had not read the answer to.
"""

import json
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
from dns_host import DnsHost

from geomail.queue import Link, Queue
from scenarios.stage import Process, Stage, until

JOBS, KILLS = 800, 6
URGENT = "urgent"
# The answer was on its way for so long at most, and the kill is noted so late.
UNREAD_S = 1.0

FILE = """
[[route]]
recipient = ["east.example", "*.east.example"]
relay = "east"
[[route]]
recipient = "*.test"
relay = "direct"
[[route]]
sender = "shop.example"
relay = "{shop}"
[relay.default]
url = "{default.url}"
[relay.east]
url = "{east.url}"
max_recipients = 3
[relay.west]
url = "{west.url}"
connections = 4
rate = "400/s"
[relay.direct]
url = "mx:{sites.port}"
"""


class Draw:
    """What is put on the lists, and what has to come of it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.wanted: dict[str, set[str]] = {}  # recipient -> names of hosts that may have it
        self.dead: set[str] = set()
        self._number = 0

    def job(self) -> dict[str, object]:
        """Return a job, and note what has to come of it."""
        draw = self._random
        sender = draw.choice(["news@example.com", "a@shop.example", "b@other.example"])
        relay = draw.choice(["east", "west"]) if draw.random() < 0.1 else None
        to = [self._recipient(sender, relay) for _ in range(draw.choice([1, 1, 1, 2, 5, 9]))]
        job: dict[str, object] = {"from": sender, "to": to, "text": "t" * draw.choice([1, 2000])}
        if relay:
            job["relay"] = relay
        if draw.random() < 0.2:
            job = {"mail_from": sender, "rcpt_to": to, "raw": "U3ViamVjdDogeA0KDQp4DQo="}
            job |= {"relay": relay} if relay else {}
        if draw.random() < 0.2:
            job["dedupe_key"] = f"k{self._number}"
        if draw.random() < 0.1:
            job["send_at"] = time.time() + draw.uniform(0, 5)
        return job

    def _recipient(self, sender: str, relay: str | None) -> str:
        draw, number = self._random, self._number
        self._number += 1
        domain = draw.choice(["x.example", "east.example", "a.test", "b.test", "c.test", "no.test"])
        if domain == "no.test" and draw.random() < 0.8:
            domain = "East.Example"
        address = f"u{number}@{domain}"
        if not domain.endswith(".test") and draw.random() < 0.2:
            fault = draw.choice(["greylist", "greylist", "reply+550"])
            address = f"{fault}@n{number}.{domain}"
        is_refused = address.startswith("reply") or (domain == "no.test" and not relay)
        if is_refused:
            self.dead.add(address)
        else:
            self.wanted[address] = self._hosts(domain.lower(), sender, relay)
        return address

    def _hosts(self, domain: str, sender: str, relay: str | None) -> set[str]:
        if relay:
            return {relay}
        if domain == "east.example":
            return {"east"}
        if domain.endswith(".test"):
            return {"sites"}
        return {"west", "default"} if sender.endswith("shop.example") else {"default"}


@pytest.fixture
def dns() -> Iterator[DnsHost]:
    """Give a DNS server for three domains, of which two share a host."""
    host = DnsHost()
    for domain, name in (("a", "mx1"), ("b", "mx2"), ("c", "mx1")):
        host.add(f"{domain}.test 300 MX 10 {name}.test.")
    for name in ("mx1", "mx2"):
        host.add(f"{name}.test 300 A 127.0.0.1")
    yield host
    host.stop()


class Cast:
    """The hosts and the workers, and when one of these was killed."""

    def __init__(self, stage: Stage, dns: DnsHost) -> None:
        self._stage, self._dns = stage, dns
        names = ("default", "east", "west", "sites")
        self.hosts = {name: stage.host(delay_s=0.005) for name in names}
        self.file = stage.folder / "geomail.toml"
        self.killed_at: list[float] = []
        self.write(shop="west")

    def write(self, *, shop: str) -> None:
        self.file.write_text(FILE.format(shop=shop, **self.hosts))

    def worker(self) -> Process:
        address, port = self._dns.address
        return self._stage.worker(
            *("--config", str(self.file), "--queue", f"{URGENT}=8", "--queue", "queue:email"),
            nameserver=f"{address}:{port}",
        )

    def kill(self, worker: Process) -> None:
        worker.kill()
        self.killed_at.append(time.time())

    def is_unread(self, at: float) -> bool:
        """Return whether a worker may have been killed before it read an answer given at `at`."""
        return any(-0.2 <= killed - at <= UNREAD_S for killed in self.killed_at)


def held(queues: list[Queue]) -> int:
    counts = [queue.counts() for queue in queues]
    parked = sum(sum(each.parked.values()) for each in counts)
    return parked + sum(each.waiting + each.delayed + each.in_flight for each in counts)


@pytest.mark.parametrize("seed", [1, 4])
def test_each_recipient_has_his_mail_once(stage: Stage, dns: DnsHost, seed: int) -> None:
    drawn, moments, cast = Draw(seed), random.Random(seed), Cast(stage, dns)
    jobs = [json.dumps(drawn.job()).encode() for _ in range(JOBS)]
    for number, job in enumerate(jobs):
        stage.redis.lpush(URGENT if number % 3 == 0 else "queue:email", job)
    stage.ask("hold", "--relay", "east", queue=f"{URGENT} queue:email")
    workers = [cast.worker(), cast.worker()]
    for turn in range(KILLS):
        workers[0].says("running")
        time.sleep(moments.uniform(0, 1))  # any moment is right
        cast.kill(workers.pop(0))
        workers.append(cast.worker())
        if turn == 1:
            stage.ask("resume", "--relay", "east", queue=f"{URGENT} queue:email")
        if turn == 2:
            cast.write(shop="default")
            workers[0].signal(signal.SIGHUP)
    queues = [Queue(Link(stage.server.url), name) for name in (URGENT, "queue:email")]
    try:
        until(lambda: held(queues) == 0, "everything is settled", within_s=60)
        for queue in queues:
            queue.dead_retry(every=True)  # what was in hand at three kills looks like poison
        until(lambda: held(queues) == 0, "everything is settled again", within_s=60)
        letters = [each for queue in queues for each in queue.dead_list(1000)]
    finally:
        for queue in queues:
            queue.close()
    check(cast, drawn)
    dead = {address for letter in letters for address in letter.state.rcpt or ()}
    assert dead <= drawn.dead


def check(cast: Cast, drawn: Draw) -> None:
    """Check who has got what, and where."""
    took: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for name, host in cast.hosts.items():
        for taken in host.look():
            for recipient in taken.to:
                took[recipient].append((name, taken.at))
    missing = drawn.wanted.keys() - took.keys()
    assert not missing, f"{len(missing)} never arrived: {sorted(missing)[:5]}"
    strange = took.keys() - drawn.wanted.keys()
    assert not strange, f"nobody asked for {sorted(strange)[:5]}"
    astray = {to for to, where in took.items() if not {n for n, _ in where} <= drawn.wanted[to]}
    assert not astray, f"{sorted(astray)[:5]} at hosts not theirs"
    for recipient, where in took.items():
        times = sorted(at for _, at in where)[:-1]
        assert all(map(cast.is_unread, times)), (recipient, where, cast.killed_at)
    extra = sum(len(where) - 1 for where in took.values())
    sys.stdout.write(f"{extra} of {len(took)} arrived more than once\n")
