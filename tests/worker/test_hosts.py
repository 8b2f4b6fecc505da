"""A worker and its hosts: mails that hosts choke on, faults of ours on the way, taking turns."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
import pytest
from hired import Hired, Place, mail, mails, until, url

from geomail import metrics
from geomail.delivery import sender as senders
from geomail.letter import Letter, compose
from geomail.queue import Park
from geomail.sink import Sink
from geomail.smtp import extensions
from geomail.smtp.answers import Answer
from geomail.smtp.client import Client
from geomail.smtp.events import Awaited
from geomail.smtp.policy import Policy
from geomail.smtp.reply import Reply

pytest_plugins = ("worker_fixtures",)


def hang_up_on_poison(address: str) -> Answer | None:
    """Cut the connection at MAIL, without a word."""
    if address.startswith("poison"):
        raise OSError("the host hangs up")
    return Answer(421, "4.0.0", "Go away") if address.startswith("unwanted") else None


@pytest.mark.parametrize("sender", ["poison@x.org", "unwanted@x.org"])
@pytest.mark.parametrize("is_warm", [True, False])
def test_a_mail_that_ends_its_connections_closes_the_host_for_nobody_else(
    place: Place, sender: str, is_warm: bool
) -> None:
    poison = mail("p", **{"from": sender})
    the_others_get_through(place, poison, is_warm=is_warm)


def test_many_such_mails_are_no_worse(place: Place) -> None:
    poison = [mail(f"p{i}", **{"from": "poison@x.org"}) for i in range(5)]
    the_others_get_through(place, *poison, is_warm=False)


def the_others_get_through(place: Place, *poison: bytes, is_warm: bool) -> None:
    arrived: set[str] = set()
    policy = Policy(check_sender=hang_up_on_poison)
    with Sink(policy=policy, on_mail=lambda _, to, __: arrived.update(to)) as host:
        # A mail whose answer was cut off by the poison behind it goes twice.
        place.worker(host, concurrency=5, unknown_retries=50)
        if is_warm:
            place.push(*mails(50))
            until(lambda: len(arrived) == 50)
        before = len(arrived)
        place.push(*poison, *[mail(f"b{i}") for i in range(200)])
        until(lambda: len(arrived) == before + 200)
        place.push(mail("later"))
        until(lambda: len(arrived) == before + 201)
        until(lambda: place.held() == len(poison))  # they are kept


# ---- faults of ours


def nothing_in_hand(worker: Hired) -> Callable[[], bool]:
    lane, lanes = worker.lane, worker.lanes
    return lambda: (lane.in_hand, lanes.bytes_in_hand, lane.live, lane.connecting) == (0, 0, 0, 0)


def broken(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, works: Any, met: Any) -> None:
    """Have `place.name` raise where `met` says so, for the first time."""
    failed: list[bool] = []

    def surprise(*words: Any, **more: Any) -> Any:
        if not failed and met(*words):
            failed.append(True)
            raise RuntimeError("a bug of ours")
        return works(*words, **more)

    monkeypatch.setattr(place, name, surprise)


def is_for_u1(letter: Letter) -> bool:
    return letter.recipients[0].startswith("u1@")


def break_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, senders, "compose", compose, lambda email: email.label == "n1")


def break_before_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, Client, "begin", Client.begin, lambda _, letter, *__: is_for_u1(letter))


def break_within_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    works = extensions.envelope
    broken(monkeypatch, extensions, "envelope", works, lambda letter, _: is_for_u1(letter))


def break_content(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Client.content
    broken(monkeypatch, Client, "content", works, lambda _, t, *__: is_for_u1(t.letter))


def break_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_u1(client: Client, _: Reply) -> bool:
        return client.unfinished[-1].letter.recipients[0].startswith("u1@")

    broken(monkeypatch, Client, "_on_mail", Client._on_mail, is_u1)
    answer_mail_by(monkeypatch, Client._on_mail)
    take_turn = Client._take_turn

    def break_behind_turn(client: Client, *replies: Reply) -> bool:
        if not take_turn(client, *replies):
            return False
        client._on_mail(replies[1])  # as if it were its turn: it breaks there
        return True

    monkeypatch.setattr(Client, "_take_turn", break_behind_turn)


def answer_mail_by(monkeypatch: pytest.MonkeyPatch, handler: Callable[..., None]) -> None:
    handlers = {**Client._handlers, Awaited.MAIL: handler}
    monkeypatch.setattr(Client, "_handlers", handlers)


@pytest.mark.parametrize("concurrency", [1, 2])  # with one, a reply shares its read with a 250
@pytest.mark.parametrize(
    "fault",
    [break_compose, break_before_begin, break_within_begin, break_content, break_reply],
)
def test_a_fault_of_ours_loses_nothing_and_forgets_nothing(
    place: Place,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
    concurrency: int,
) -> None:
    fault(monkeypatch)
    failures = metrics.snapshot().get("host_failures", 0)
    place.push(*mails(4))
    worker = place.worker(sink, concurrency=concurrency, idle_s=0.1)
    until(lambda: place.held() == 0)
    assert sink.count == place.counts().stats["delivered"] == 4
    assert place.counts().stats["retried"] >= 1
    assert metrics.snapshot()["host_failures"] == failures + 1  # it has backed off
    until(nothing_in_hand(worker), "counters that are back at nothing")


def test_a_fault_that_stays_does_not_spin(
    place: Place, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    answer_mail_by(monkeypatch, bug)
    worker = place.worker(sink, backoff_base_s=0.2, backoff_cap_s=9, retry_base_s=9, retry_cap_s=9)
    place.push(*mails(5))
    gevent.sleep(1.0)
    assert 1 <= sink.connections_ever <= 5
    until(nothing_in_hand(worker))
    assert place.held() == 5


# ---- taking turns


def two_relays(place: Place, default: Sink, other: Sink) -> Path:
    file = place.folder.parent / "geomail.toml"
    file.write_text(f'[relay.default]\nurl = "{url(default)}"\n[relay.b]\nurl = "{url(other)}"\n')
    return file


def test_two_relays_take_turns_over_one_connection(place: Place, sink: Sink) -> None:
    with Sink(delay_s=0.01) as busy:
        place.worker(file=two_relays(place, busy, sink), concurrency=1)
        place.push(*mails(100))
        until(lambda: busy.count > 5)
        place.push(*[mail(f"b{i}", relay="b") for i in range(20)])
        place.redis.rpush("queue:email", mail("first", relay="b"))
        until(lambda: sink.count >= 1, within_s=2)
        until(lambda: place.held() == 0)
        assert (busy.count, sink.count) == (100, 21)


def test_more_relays_than_connections_all_get_turns(place: Place) -> None:
    with ExitStack() as stack:
        hosts = [stack.enter_context(Sink(delay_s=0.002)) for _ in range(5)]
        file = place.folder.parent / "geomail.toml"
        file.write_text(
            "".join(f'[relay.r{i}]\nurl = "{url(host)}"\n' for i, host in enumerate(hosts))
        )
        place.push(*[mail(i, relay=f"r{i % 5}") for i in range(250)])
        place.worker(file=file, concurrency=2)
        until(lambda: all(host.count for host in hosts))
        until(lambda: place.held() == 0)
        assert [host.count for host in hosts] == [50] * 5


def test_parked_mail_comes_back_as_fast_as_its_host_takes_it(place: Place, sink: Sink) -> None:
    place.desk.register()
    place.push(*mails(400))
    slots = place.desk.take(400).slots
    place.desk.settle([Park([slot], "default", 1, slot.state) for slot in slots])
    place.desk.leave()
    with Sink() as idle:
        place.worker(file=two_relays(place, sink, idle), concurrency=2)
        until(lambda: sink.count == 400, within_s=3)
