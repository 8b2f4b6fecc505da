"""What an ending takes along for whoever asked to be called back."""

from typing import Any

import msgspec
import pytest

from geomail.config import Settings
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.job import CallTask, Email, HttpTask, decode
from geomail.queue import (
    Dead,
    Done,
    Duplicate,
    Followed,
    JobState,
    Part,
    Record,
    Retry,
    Slot,
    Split,
)
from geomail.worker.callbacks import Callbacks
from geomail.worker.clock import RedisClock

PEOPLE = ["a@x", "b@x", "c@x"]
BACK = "https://shop.example/told"
YES = Outcome(Fate.DELIVERED, Blame.NOBODY, "content", "250 Ok", 250)
LATER = Outcome(Fate.LATER, Blame.MESSAGE, "rcpt", "451 Later", 451)
NEVER = Outcome(Fate.NEVER, Blame.MESSAGE, "rcpt", "550 No", 550)


class _Stopped(RedisClock):
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 1_893_456_000_250


@pytest.fixture
def callbacks() -> Callbacks:
    """Callbacks that are on."""
    return Callbacks(Settings(data="", url_hosts=("shop.example",)), _Stopped())


def slot(**state: Any) -> Slot:
    """Return a slot with a state."""
    return Slot("w", 1, 2, "w.1.2", 0, 0, JobState(**state), b"{}")


def email(**more: Any) -> Email:
    """Return a mail to three people whose author wants to be told."""
    return Email(recipients=PEOPLE, label="order", callback_url=BACK, **more)


def events(record: Record) -> list[dict[str, Any]]:
    """Return the events that follow a record; each is an URL task that is sound."""
    assert isinstance(record, Followed)
    found = []
    for payload in record.payloads:
        task = decode(payload)
        assert isinstance(task, HttpTask)
        assert (task.url, task.method, task.callback_url) == (BACK, "POST", None)
        found.append(task.json)
    return [msgspec.convert(each, dict[str, Any]) for each in found]


def test_a_delivery(callbacks: Callbacks) -> None:
    pairs = [(one, YES) for one in PEOPLE]
    [event] = events(callbacks.after(Done(slot(tries=1)), email(), pairs, "mx:25"))
    row = {"outcome": "delivered", "code": 250, "reply": "250 Ok", "host": "mx:25"}
    assert event == {
        "type": "message.delivered",
        "id": "w.1.2",
        "label": "order",
        "at": "2030-01-01T00:00:00.250Z",
        "tries": 2,
        "recipients": [{"addr": one, **row} for one in PEOPLE],
    }


def test_who_had_it_before_is_told_of_at_the_end(callbacks: Callbacks) -> None:
    left = JobState(tries=1, rcpt=["b@x", "c@x"])
    first = Retry(slot(), 1000, left)
    kept = callbacks.after(first, email(), [("a@x", YES), ("b@x", LATER), ("c@x", LATER)])
    assert isinstance(kept, Retry)
    assert kept.state.had == ["a@x"]
    dead = Dead(slot(had=["a@x"]), JobState(tries=2, rcpt=["c@x"], had=["a@x"], reason="rcpt: no"))
    record = callbacks.after(dead, email(), [("b@x", YES), ("c@x", NEVER)], "mx:25")
    [event] = events(record)
    assert event["type"] == "message.dead"
    assert {one["addr"]: one["outcome"] for one in event["recipients"]} == {
        "a@x": "delivered",
        "b@x": "delivered",
        "c@x": "dead",
    }
    assert isinstance(record, Followed)
    assert isinstance(record.record, Dead)
    assert record.record.state.had is None  # put back by a person, they are not told of again


def test_a_split_tells_of_the_dead_and_keeps_the_rest(callbacks: Callbacks) -> None:
    parts = [
        Part(JobState(rcpt=["b@x"]), ("retry", 1000)),
        Part(JobState(rcpt=["c@x"], reason="rcpt: no"), "dead"),
    ]
    pairs = [("a@x", YES), ("b@x", LATER), ("c@x", NEVER)]
    record = callbacks.after(Split(slot(), parts), email(), pairs)
    [event] = events(record)
    assert event["id"] == "w.1.2/2"
    assert [one["addr"] for one in event["recipients"]] == ["c@x"]
    assert isinstance(record, Followed)
    assert isinstance(record.record, Split)
    assert [part.state.had for part in record.record.parts] == [["a@x"], None]


def test_a_split_that_ends_nothing_tells_nothing(callbacks: Callbacks) -> None:
    parts = [Part(JobState(rcpt=[one], had=["z@x"])) for one in PEOPLE]
    record = callbacks.after(Split(slot(had=["z@x"]), parts), email())
    assert isinstance(record, Split)
    assert [part.state.had for part in record.parts] == [["z@x"], None, None]


def test_what_died_before_it_was_sent(callbacks: Callbacks) -> None:
    [event] = events(callbacks.after(Dead(slot(), JobState(reason="expired")), email()))
    assert event["recipients"] == [
        {"addr": one, "outcome": "dead", "reply": "expired"} for one in PEOPLE
    ]
    [event] = events(callbacks.after(Duplicate(slot()), email()))
    assert event["type"] == "message.duplicate"
    assert [one["outcome"] for one in event["recipients"]] == ["duplicate"] * 3


def test_tasks(callbacks: Callbacks) -> None:
    task = HttpTask("https://u:p@a.example/x?key=1", callback_url=BACK)
    pairs = [("https://a.example/x", Outcome(Fate.DELIVERED, Blame.NOBODY, "url", "200 OK", 200))]
    [event] = events(callbacks.after(Done(slot()), task, pairs, "a.example:443"))
    assert event["type"] == "task.done"
    assert (event["target"], event["code"]) == ("https://a.example/x", 200)
    call = CallTask("pack", cls="Shop", callback_url=BACK)
    [event] = events(callbacks.after(Dead(slot(), JobState(reason="no such task")), call))
    assert (event["type"], event["target"]) == ("task.dead", "Shop.pack")
    assert event["reply"] == "no such task"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://[", "http://["),
        ("http://a]b/x?key=1", "http://a]b/x"),
        ("http://u:p@a\u2100b/x#y", "http://a\u2100b/x"),
        ("HTTPS://u@p@host?key=1", "https://host"),
    ],
)
def test_a_url_that_is_none_can_be_told_of(callbacks: Callbacks, url: str, target: str) -> None:
    dead = Dead(slot(), JobState(reason="no host"))
    [event] = events(callbacks.after(dead, HttpTask(url, callback_url=BACK)))
    assert (event["type"], event["target"]) == ("task.dead", target)


def test_nothing_follows_who_did_not_ask_nor_a_callback(callbacks: Callbacks) -> None:
    done = Done(slot())
    assert callbacks.after(done, Email(recipients=PEOPLE)) is done
    told = Done(slot(callback=True))
    assert callbacks.after(told, HttpTask(BACK, callback_url=BACK)) is told
    retry = Retry(slot(), 1000, JobState(tries=1))
    assert callbacks.after(retry, email(), [(one, LATER) for one in PEOPLE]) is retry


def test_without_hosts_nothing_follows(callbacks: Callbacks) -> None:
    callbacks.configure(Settings(data=""))
    done = Done(slot())
    assert callbacks.after(done, email()) is done


def test_last_words_are_the_same_each_time(callbacks: Callbacks) -> None:
    suspect = slot(tries=1, had=["a@x"])
    suspect.deaths = 2
    words = callbacks.last_words(suspect, email())
    assert words == callbacks.last_words(suspect, email())
    assert words is not None
    task = decode(words.encode())
    assert isinstance(task, HttpTask)
    event = msgspec.convert(task.json, dict[str, Any])
    assert "at" not in event
    assert (event["type"], event["id"], event["tries"]) == ("message.dead", "w.1.2", 1)
    why = "killed its worker: 3 workers died with it in hand"
    assert event["recipients"] == [
        {"addr": "a@x", "outcome": "delivered"},
        {"addr": "b@x", "outcome": "dead", "reply": why},
        {"addr": "c@x", "outcome": "dead", "reply": why},
    ]
    assert callbacks.last_words(suspect, Email(recipients=PEOPLE)) is None
    assert callbacks.last_words(slot(callback=True), email()) is None
