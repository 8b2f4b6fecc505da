"""Random operations on real Redis against a model: every key is compared after every step.

Any call to a script may run twice, as after a reply that was lost. The invariant: each job that was
pushed is delivered, dropped by a person, or in exactly one place; nothing is left in `jobs` that no
key names. MODEL_EXAMPLES=5000 looks longer than the few seconds of every day.
"""

import os
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model_records import (
    NEVER_MS,
    ROUTES,
    comparable,
    follow_ups,
    groups,
    key_of,
    record,
    seen,
    turn,
)
from queue_model import Job, Model, Worker
from redis_servers import RedisServer, dump

from geomail.queue import (
    Link,
    Queue,
    Record,
    Slot,
)
from geomail.queue.link import Script

pytest_plugins = ("queue_fixtures",)

KINDS = (
    "done",
    "done",
    "done",
    "delayed",
    "due",
    "dead",
    "front",
    *ROUTES,
    "split",
    "duplicate",
    "done+",
    "dead+",
    "split+",
    "duplicate+",
    "keep",
    "keep",
)
FATES = ("slot", "slot", "delayed", "due", "dead")
WHO = st.integers(0, 1)
FLIP = st.booleans()
PUSHED = st.lists(st.sampled_from(["plain", "plain", "odd", "empty"]), min_size=2, max_size=9)
LOST = st.sampled_from(["", "", "after", "before"])
Held = tuple[Slot, Job]


class Actor:
    """One process: a queue whose calls may run twice, and the slots in hand, stale ones too."""

    def __init__(self, url: str) -> None:
        self.queue = Queue(Link(url), lease_s=100_000)
        self.hands: list[Held] = []
        self.twice = False
        self.lost = ""
        self.late: list[tuple[bytes, int]] = []
        self.queue._lift.large = NEVER_MS  # only where a rule says so
        self._lose(self.queue._taker)
        for connection in ("_taker", "_settler", "_beater", "_desk"):
            self._double(getattr(self.queue, connection))
        self._double(self.queue._door._connection)

    def _double(self, connection: Any) -> None:
        run: Callable[..., Any] = connection.run

        def run_maybe_twice(*arguments: Any, **options: Any) -> Any:
            first = run(*arguments, **options)
            return run(*arguments, **options) if self.twice else first

        connection.run = run_maybe_twice

    def _lose(self, taker: Any) -> None:
        run: Callable[[bytes, int], Any] = taker.try_atomically

        def run_and_lose(packed: bytes, count: int) -> Any:
            if self.lost == "before":
                self.late.append((packed, count))
                return None
            replies = run(packed, count)
            return None if self.lost == "after" else replies

        taker.try_atomically = run_and_lose
        self.run_late = run


class QueueMachine(RuleBasedStateMachine):
    """Two workers, one list, and everything that can happen to them."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.raw: Any = self.server.raw
        self.raw.flushall()
        self.raw.script_load(Script("lift").source)  # without it the first one would be a take
        self.model = Model()
        self.jobs: dict[str, Job] = {}
        self.number = 0
        self.actors = [Actor(self.server.url) for _ in range(2)]
        for actor in self.actors:
            self._register(actor)

    def teardown(self) -> None:
        for actor in self.actors:
            actor.queue.close()

    def _register(self, actor: Actor) -> None:
        actor.queue.register()
        self.model.workers[actor.queue.worker] = Worker()

    # -- producers

    @rule(kinds=PUSHED)
    def push(self, kinds: list[str]) -> None:
        jobs = [Job(self._payload(kind)) for kind in kinds]
        self.actors[0].queue.push([job.payload for job in jobs])
        self.model.list[:0] = reversed(jobs)
        self.model.pushed += len(jobs)

    def _payload(self, kind: str) -> bytes:
        self.number += 1
        return {"plain": b"%d", "odd": b"\x01%d", "empty": b"%.0d"}[kind] % (
            self.number if kind != "empty" else 0
        )

    @rule(who=WHO, kinds=st.lists(st.sampled_from(["plain", "odd"]), max_size=3), twice=FLIP)
    def submit(self, who: int, kinds: list[str], twice: bool) -> None:
        payloads = [self._payload(kind) for kind in kinds]
        actor = self.actors[who]
        actor.twice = twice
        ids = actor.queue.submit(payloads)
        jobs = [Job(payload, name) for payload, name in zip(payloads, ids, strict=True)]
        self.model.submit(jobs)
        self.jobs.update((job.id, job) for job in jobs)

    @precondition(lambda self: self.model.list)
    @rule()
    def wait(self) -> None:
        self.actors[0].queue.wait(1)
        self.model.arrive.insert(0, self.model.list.pop())

    # -- workers

    def _take(self, who: int, n: int, route: str | None, twice: bool) -> None:
        actor = self.actors[who]
        if actor.queue._lease.holds_suspect():
            return
        due = [self.jobs[name.decode()] for name in self._due()]
        self._expect(who, n, route, twice, self.model.take(actor.queue.worker, n, route, due))

    def _lift(self, who: int, n: int, kinds: list[str], lost: str, twice: bool) -> None:
        actor, model = self.actors[who], self.model
        if model.is_in_front() and len(kinds) % 4:  # else what is in front comes in between
            self._take(who, 20, None, False)
        if actor.queue._lease.holds_suspect():
            return
        self.push(kinds)
        name = actor.queue.worker
        if actor.queue._lift._asked == (name, actor.queue._lease.next_seq):
            self._take(who, n, None, twice)
            return
        due = [self.jobs[job.decode()] for job in self._due()]
        expected = model.lift(name, n, due) if lost != "before" else None
        if expected is None:
            if lost:
                model.use_up(name)
            expected = model.take(name, n, None, due)
        actor.lost, actor.queue._lift._largest = lost, 1
        self._expect(who, n, None, twice, expected)

    @precondition(lambda self: any(actor.late for actor in self.actors))
    @rule()
    def arrive_late(self) -> None:
        for actor in self.actors:
            while actor.late:
                actor.run_late(*actor.late.pop())

    def _expect(
        self, who: int, n: int, route: str | None, twice: bool, expected: list[Job] | None
    ) -> None:
        actor = self.actors[who]
        actor.twice = twice
        batch = actor.queue.take(n, route=route)
        assert batch.fenced == (expected is None)
        assert [slot.payload for slot in batch.slots] == [job.payload for job in expected or []]
        for slot, job in zip(batch.slots, expected or [], strict=True):
            assert (slot.id, slot.deaths, slot.touched) == (job.id, job.deaths, job.touched)
            assert slot.state.dedupe == (job.key if job.touched else None)
            self.jobs[job.id] = job
            actor.hands.append((slot, job))

    def _due(self) -> list[bytes]:
        now_ms = int(self.raw.time()[0]) * 1000
        found: list[bytes] = self.raw.zrangebyscore("{queue:email}:delayed", "-inf", now_ms)
        return found

    @rule(who=WHO, twice=FLIP)
    def claim(self, who: int, twice: bool) -> None:
        actor = self.actors[who]
        actor.twice = twice
        pairs = [(key_of(job), slot.id) for slot, job in actor.hands]
        answers = actor.queue.claim(pairs, 24)
        expected = [self.model.claim(key_of(job), job) for _, job in actor.hands]
        assert answers == expected
        for (slot, job), is_mine in zip(actor.hands, answers, strict=True):
            if is_mine and not job.root:
                slot.state = msgspec.structs.replace(slot.state, dedupe=key_of(job))

    def _settle(self, who: int, data: st.DataObject, twice: bool) -> None:
        actor = self.actors[who]
        kinds = data.draw(
            st.lists(st.sampled_from(KINDS), min_size=len(actor.hands), max_size=len(actor.hands))
        )
        chosen = [(*held, kind) for held, kind in zip(actor.hands, kinds, strict=True)]
        actor.hands = [(slot, job) for slot, job, kind in chosen if kind == "keep"]
        records: list[Record] = []
        fates: dict[str, list[str]] = {}
        for slot, _, kind in chosen:
            if kind.startswith("split"):
                fates[slot.id] = data.draw(st.lists(st.sampled_from(FATES), min_size=1, max_size=3))
            if kind != "keep":
                records.append(record(kind, slot, fates.get(slot.id, [])))
        parts = self._settle_model(chosen, fates)
        actor.twice = twice
        slots = actor.queue.settle(records)
        assert [slot.id for slot in slots] == [part.id for part in parts]
        actor.hands += zip(slots, parts, strict=True)

    def _settle_model(
        self, chosen: list[tuple[Slot, Job, str]], fates: dict[str, list[str]]
    ) -> list[Job]:
        """Tell the model, in the order of settle.lua; return the parts that stay in work."""
        parts: list[Job] = []
        for worker in dict.fromkeys(slot.worker for slot, _, _ in chosen):
            ours = [entry for entry in chosen if entry[0].worker == worker]
            alike = groups(ours)
            ours.sort(key=lambda entry: turn(entry, alike))
            for slot, job, words in ours:
                kind = words.removesuffix("+")
                place = {"due": "delayed"}.get(kind, kind)
                has_moved = False
                if kind == "done":
                    has_moved = self.model.settle_done(worker, slot.seq, slot.index, job)
                elif kind == "split":
                    new = [{"due": "delayed"}.get(fate, fate) for fate in fates[slot.id]]
                    key = slot.state.dedupe
                    stay, has_moved = self.model.split(worker, slot.seq, slot.index, new, key)
                    self._know_parts(job)
                    parts += stay
                elif kind == "duplicate":
                    has_moved = self.model.duplicate(worker, slot.seq, slot.index)
                elif kind != "keep":
                    key = slot.state.dedupe
                    has_moved = self.model.move(worker, slot.seq, slot.index, place, key)
                if has_moved and words.endswith("+"):
                    self._know(self.model.follow(worker, slot.seq, slot.index, follow_ups(slot)))
        return parts

    def _know(self, jobs: list[Job]) -> None:
        self.jobs.update((job.id, job) for job in jobs)

    def _know_parts(self, whole: Job) -> None:
        root = whole.root or whole
        self.jobs.update({job.id: job for job in self.model.touched if job.root is root})

    @rule(who=WHO, twice=FLIP)
    def beat(self, who: int, twice: bool) -> None:
        actor = self.actors[who]
        actor.twice = twice
        is_live = self.model.workers[actor.queue.worker].state == "live"
        assert actor.queue.beat() == is_live
        if not is_live:
            self._register(actor)

    def _die(self, who: int, twice: bool, whole: bool) -> None:
        victim, other = self.actors[who].queue.worker, self.actors[1 - who]
        other.twice = twice
        self.model.fence(victim)
        if whole:
            other.queue.reap([victim])
            self.model.reap(victim)
        else:
            other.queue._reap_call(victim, True, [])

    @rule(who=WHO, twice=FLIP)
    def leave(self, who: int, twice: bool) -> None:
        actor = self.actors[who]
        worker = self.model.workers[actor.queue.worker]
        actor.twice = twice
        assert actor.queue.leave() == (not worker.open)
        if worker.state == "live" and not worker.open:
            worker.state, worker.last = "gone", 0
            self._register(actor)

    # Several rules of one kind make that kind likelier.
    take = rule(who=WHO, n=st.integers(3, 9), route=st.none(), twice=FLIP)(_take)
    lift = rule(who=WHO, n=st.integers(1, 9), kinds=PUSHED, lost=LOST, twice=FLIP)(_lift)
    lift_more = rule(who=WHO, n=st.integers(1, 9), kinds=PUSHED, lost=LOST, twice=FLIP)(_lift)
    take_few = rule(who=WHO, n=st.integers(1, 3), route=st.none(), twice=FLIP)(_take)
    take_route = rule(who=WHO, n=st.integers(1, 9), route=st.sampled_from(ROUTES), twice=FLIP)(
        _take
    )
    settle = rule(who=WHO, data=st.data(), twice=FLIP)(_settle)
    settle_more = rule(who=WHO, data=st.data(), twice=FLIP)(_settle)
    settle_most = rule(who=WHO, data=st.data(), twice=FLIP)(_settle)
    die = rule(who=WHO, twice=FLIP, whole=st.just(True))(_die)
    die_slowly = rule(who=WHO, twice=FLIP, whole=st.just(False))(_die)

    # -- people

    @precondition(lambda self: self.model.dead)
    @rule(data=st.data(), retry=st.booleans(), twice=FLIP)
    def decide(self, data: st.DataObject, retry: bool, twice: bool) -> None:
        letters = sorted(self.model.dead, key=lambda job: job.id)
        job = data.draw(st.sampled_from(letters))
        queue = self.actors[0].queue
        self.actors[0].twice = twice
        is_whole = job.is_whole
        if not is_whole:
            assert queue.dead_list(99) is not None  # drops what it meets
            for letter in letters:
                if not self.model.meet(letter):
                    self.model.dead.discard(letter)
        elif retry:
            queue.dead_retry([job.id])
            self.model.revive(job)
        else:
            queue.dead_drop([job.id])
            self.model.drop(job)

    @rule(old=st.integers(0, 7), twice=FLIP)
    def expire(self, old: int, twice: bool) -> None:
        letters = sorted(self.model.dead, key=lambda job: job.id)[:old]
        for job in letters:
            self.raw.zadd("{queue:email}:dead", {job.id: 5})
        self.actors[0].twice = twice
        whole = [job for job in letters if job.is_whole]
        dropped = self.actors[0].queue.expire_dead(1)
        assert dropped == (len(whole) if not twice else 0)
        for job in letters:
            self.model.drop(job)

    # -- the truth

    @invariant()
    def redis_holds_what_the_model_says(self) -> None:
        now = dump(self.raw)
        now.pop("routes", None)
        assert seen(now) == {key: job.id for key, job in self.model.seen.items()}
        for bucket in ("outcomes:0", "outcomes:1"):
            now.pop(bucket, None)
        assert now.pop("nudge", [b""]) == [b""]  # it says nothing
        assert {name: comparable(name, content) for name, content in now.items()} == (
            self.model.expected()
        )

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        there = list(self.model.at_rest())
        assert len(there) == len(set(there))
        model = self.model
        assert model.pushed == model.delivered + model.dropped + len(there)
        named = {job.root or job for job in there if job.touched} | set(there)
        orphans = {job for job in model.touched if job.is_whole and job not in named}
        assert not orphans

    @invariant()
    def counts_tell_the_truth(self) -> None:
        counts, model = self.actors[0].queue.counts(), self.model
        assert (counts.list, counts.arrive) == (len(model.list), len(model.arrive))
        assert (counts.delayed, counts.dead) == (len(model.delayed), len(model.dead))
        live = sum(
            state != "x"
            for worker in model.workers.values()
            for batch in worker.open.values()
            for state in batch.states
        )
        assert counts.in_flight == live
        assert "reconciled" not in counts.stats


@pytest.fixture
def machine(server: RedisServer) -> type[QueueMachine]:
    QueueMachine.server = server
    return QueueMachine


def test_random_operations(machine: type[QueueMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", "30")),
            stateful_step_count=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
