"""A connection that is reset at any byte: what is said of a message is never more than is known.

Two messages go over one connection, through a real lane, sender and session, to a host that sends
RST after each byte that it has received, and after each that it has sent. Then each message is

    delivered   exactly when the host has written its final reply to the last byte
    unknown     when its content may have reached the host; always, when the host had it whole
    not sent    tried again without `maybe_duplicate`; always, when its content was not asked for

All cuts of a walk run at once, each with a host and a lane of its own.
"""

import ssl
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest
import trustme
from cutting_host import Cut, CuttingHost
from house import House, MakeHouse, until

from geomail.delivery.host.window import Window
from geomail.delivery.outcome import Fate
from geomail.smtp.policy import Policy

pytest_plugins = ("delivery_fixtures",)

AT_ONCE = 60
NAMES = {Fate.DELIVERED: "delivered", Fate.UNKNOWN: "unknown"}
Outcomes = tuple[str, str]


class Walk:
    """Cuts of one kind, what came of them, and what should have."""

    def __init__(
        self, make_house: MakeHouse, scheme: str = "smtp", *, text: str = "hi", **more: str
    ) -> None:
        self.rows: list[tuple[str, int, Outcomes]] = []
        self.faults: list[str] = []
        self._make_house = make_house
        self._scheme = scheme
        self._text = text
        self._more = more
        self.policy = Policy(chunking='chunking = "on"' in more.get("keys", ""))
        self.tls: ssl.SSLContext | None = None

    def whole(self) -> CuttingHost:
        """Return the host of a conversation that nothing cuts."""
        return self.cut([Cut()])[0]

    def cut(self, cuts: Iterable[Cut]) -> list[CuttingHost]:
        """Run conversations that are cut so, and judge each."""
        left, hosts = list(cuts), list[CuttingHost]()
        while left:
            hosts += self._run(left[:AT_ONCE])
            left = left[AT_ONCE:]
        return hosts

    def _run(self, cuts: list[Cut]) -> list[CuttingHost]:
        hosts = [CuttingHost(cut, self.policy, self.tls) for cut in cuts]
        urls = [f"{self._scheme}://127.0.0.1:{host.port}" for host in hosts]
        house = self._make_house(*urls, concurrency=str(2 * len(hosts) + 2), **self._more)
        names = [[f"m{number}-{which}@x.org" for which in "ab"] for number in range(len(hosts))]
        deliveries = house.deliveries([name for pair in names for name in pair])
        for lane, first, second in zip(
            house.lanes.lanes, deliveries[::2], deliveries[1::2], strict=True
        ):
            first.email.text = second.email.text = self._text
            lane.health.window = Window(1)
            lane.put(first)
            lane.put(second)
        until(lambda: len(house.reports) + len(house.stranded) == len(deliveries))
        for host, pair in zip(hosts, names, strict=True):
            self._judge(host, house, pair)
            host.close()
        house.close()
        return hosts

    def _judge(self, host: CuttingHost, house: House, names: list[str]) -> None:
        found = _outcome(house, names[0]), _outcome(house, names[1])
        received, sent = host.cut.received, host.cut.sent
        if sent is not None:
            self.rows.append(("sent", sent, found))
        elif received is not None:
            self.rows.append(("received", received, found))
        had = [mail.recipients[0] for mail in host.had]
        for number, (name, outcome) in enumerate(zip(names, found, strict=True)):
            may_be = _may_be(
                had=name in had,
                replied=name in had[: host.replied],
                asked=number < host.asked or self.policy.chunking,
            )
            if outcome not in may_be:
                self.faults.append(f"{host.cut}: {'ab'[number]} is {outcome}, not {may_be}")

    def __str__(self) -> str:
        """Return a table of the outcomes by ranges of offsets, and what is wrong."""
        lines = ["", "bytes                  first       second"]
        for (kind, outcomes), group in groupby(sorted(self.rows), key=lambda row: row[::2]):
            offsets = [offset for _, offset, _ in group]
            about = f"{kind} {offsets[0]}-{offsets[-1]}"
            lines.append(f"{about:<23}{outcomes[0]:<12}{outcomes[1]}")
        return "\n".join([*lines, *self.faults[:20]])


def _outcome(house: House, name: str) -> str:
    """Return what became of the message to `name`, which is told exactly once."""
    reported = [NAMES.get(fates[0], "not sent") for to, fates, _ in house.reports if to == name]
    assert Fate.NEVER not in house.fates()
    stranded = [d for d in house.stranded if d.recipients[0] == name]
    (outcome,) = reported + ["not sent" for _ in stranded]
    return outcome


def _may_be(*, had: bool, replied: bool, asked: bool) -> list[str]:
    if replied:
        return ["delivered"]
    if had:
        return ["unknown"]
    # Which of them, the kernel knows: it took the last byte, or it had heard of the RST before.
    return ["unknown", "not sent"] if asked else ["not sent"]


def check(walk: Walk) -> None:
    assert not walk.faults, str(walk)
    outcomes = [outcome for _, _, pair in walk.rows for outcome in pair]
    assert set(outcomes) == {"delivered", "unknown", "not sent"}, str(walk)


@pytest.fixture(params=["off", "message", "overlap"])
def pipeline(request: pytest.FixtureRequest) -> str:
    return f'pipeline = "{request.param}"'


def test_after_each_byte_received(make_house: MakeHouse, pipeline: str) -> None:
    walk = Walk(make_house, keys=pipeline)
    most = walk.whole().received
    walk.cut(Cut(received=at) for at in range(most + 1))
    assert most > 600
    check(walk)


def test_after_each_byte_sent(make_house: MakeHouse, pipeline: str) -> None:
    walk = Walk(make_house, keys=pipeline)
    most = walk.whole().sent
    walk.cut(Cut(sent=at) for at in range(most + 1))
    assert most > 200
    check(walk)


def test_chunks_after_each_byte(make_house: MakeHouse) -> None:
    walk = Walk(make_house, keys='chunking = "on"')
    whole = walk.whole()
    assert "CHUNKING" in walk.policy.extensions(is_encrypted=False)
    assert whole.asked == 0
    walk.cut(Cut(received=at) for at in range(whole.received + 1))
    walk.cut(Cut(sent=at) for at in range(whole.sent + 1))
    check(walk)


@pytest.mark.parametrize("chunking", ["off", "on"])
def test_under_tls_around_each_reply(make_house: MakeHouse, tmp_path: Path, chunking: str) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    keys = f'ca_file = "{tmp_path / "ca.pem"}"\nchunking = "{chunking}"'
    walk = Walk(make_house, "smtps", keys=keys)
    walk.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(walk.tls)
    whole = walk.whole()
    walk.cut(Cut(received=at) for at in around(whole.heard, whole.received))
    walk.cut(Cut(sent=at) for at in around(whole.spoken, whole.sent))
    check(walk)


def test_a_content_that_no_kernel_takes_whole(make_house: MakeHouse) -> None:
    # 8 MB: a kernel keeps up to 4 MB that the other one, with its 64 KB, has no room for.
    walk = Walk(make_house, text="All work and no play.\n" * 360_000)
    walk.cut(Cut(received=2**power) for power in (10, 14, 17, 20, 21))
    assert not walk.faults, str(walk)
    assert {pair for _, _, pair in walk.rows} == {("not sent", "not sent")}, str(walk)


def around(boundaries: list[int], most: int) -> list[int]:
    """Return the offsets beside and at each boundary."""
    found = {at + step for at in boundaries for step in (-1, 0, 1)}
    return sorted(at for at in found if 0 <= at <= most)
