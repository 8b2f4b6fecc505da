"""The queue as a worker sees it: take, settle, beat, reap.

A `Queue` is one worker's client of one list. Each role has its own connection, so a popper (take,
wait), a settler (settle) and a beat greenlet may use one Queue at the same time; the rest (reap,
counts, push, dead letters) share one more, and take turns. Works the same with and without gevent's
patches.

Promised: a reply that was lost loses nothing and takes nothing twice, for the batch's name is the
request's token; an outcome is sent until it is in Redis; what a fenced worker reports delivered is
never sent again by anybody. A job is in exactly one place, and a worker that dies leaves its jobs
to the others. Not promised: that a call returns while Redis is away. What a fenced worker does
after its lease is over is its own duty: ask `owns(slot)` before each transaction.
"""

import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

from geomail import log, metrics
from geomail.errors import RedisUnusable
from geomail.queue import dead, door, status
from geomail.queue.keys import Keys
from geomail.queue.lease import Lease, find_leaks
from geomail.queue.lift import Lift
from geomail.queue.link import Connection, Link, Script
from geomail.queue.records import (
    Batch,
    Counts,
    DeadLetter,
    JobState,
    Record,
    Slot,
)
from geomail.queue.settlement import Settlement, heal, settlements
from geomail.queue.slots import LIVE_IN_REDIS, read_slots

_TAKE, _SETTLE, _BEAT, _LEAVE, _REAP = map(Script, ("take", "settle", "beat", "leave", "reap"))
_CLAIM = Script("claim")
_REAP_BATCHES = 8
_PUSH_MANY, _PUSH_BYTES = 500, 1_000_000
_MOST_SLOTS = 1000
_LOOK = -1
_MARGIN_S = 5.0


class Queue:
    """One worker's client of one list."""

    def __init__(
        self, link: Link, name: str = "queue:email", *, lease_s: float = 30.0, beat_s: float = 5.0
    ) -> None:
        """Prepare the client; raises ConfigError for a name that Redis Cluster would tear apart.

        `lease_s`: how long a worker may be silent before its jobs go to others; `beat_s`: how often
        the caller means to call `beat`.
        """
        self.name = name
        self.lease_s, self.beat_s = lease_s, beat_s
        self.high_water = -1
        """How many waiting jobs are too many for producers, as beats tell them; -1: they don't."""
        self._keys = Keys(name)
        roles = ("taker", "waker", "nudged", "settler", "beat", "desk")
        lines = self._lines = [link.open(role, self._keys.list) for role in roles]
        self._taker, self._waker, self._nudged, self._settler, self._beater, self._desk = lines
        self._ear = door.Ear(self._nudged, self._keys, link.reply_timeout_s)
        self._lift = Lift(self._taker, self._keys)
        self._door = door.Door(link.open("door", self._keys.list), self._keys)
        self.held: frozenset[tuple[str, str]] = frozenset()
        """What people hold back, as of the last beat: (relay or queue, its name)."""
        self._lease = Lease("")
        self._margin_s = min(_MARGIN_S, lease_s / 6)
        self._wait_reply_s = link.reply_timeout_s

    @property
    def worker(self) -> str:
        """The name of the present registration, 16 hex characters; empty before the first."""
        return self._lease.worker

    # -- the lease

    def register(self) -> None:
        """Take a new name and put it on the books; slots of the old name can only be reported."""
        while True:
            lease = Lease(secrets.token_hex(8))
            if self._beat(lease, register=True, patient=False) is not None:
                self._lease = lease
                return

    def beat(self, shown: bytes = b"") -> bool:
        """Renew the lease and compare what Redis believes we hold.

        `shown`: what people are to see of this worker until its next beat; empty: nothing.
        Returns False when somebody has fenced us: the caller registers anew. Slots that Redis lost
        the settling of (a roll-back) are settled again and counted as `reconciled`.
        """
        lease = self._lease
        before_seq, believed = lease.next_seq, lease.snapshot(time.monotonic())
        table = self._beat(lease, register=False, patient=True, shown=shown)
        if table is None:
            lease.lose()
            return False
        leaks = find_leaks(table, believed.of(table), before_seq)
        if leaks:
            self._heal(lease.worker, leaks)
        return True

    def lease_is_mine(self) -> bool:
        """Whether the lease lasts another 5 s (at most a sixth of it), by the monotonic clock."""
        return time.monotonic() < self._lease.until_s - self._margin_s

    def owns(self, slot: Slot) -> bool:
        """Whether work on a slot may begin: the lease is ours, and the slot was taken under it."""
        lease = self._lease  # asked twice a mail
        return slot.worker == lease.worker and time.monotonic() < lease.until_s - self._margin_s

    def leave(self) -> bool:
        """Take this worker off the books, and return True, if it holds nothing."""
        worker = self._lease.worker
        keys = (self._keys.open(worker), self._keys.workers, self._keys.hosts)
        is_gone = bool(self._beater.run(_LEAVE, keys, (worker,)))
        if is_gone:
            self._lease.lose()
        return is_gone

    def close(self) -> None:
        """Hang up all connections, ending all waits; nothing in Redis changes."""
        self.wake()
        for connection in self._lines:
            connection.close()
        self._door.close()

    def _beat(
        self, lease: Lease, *, register: bool, patient: bool, shown: bytes = b""
    ) -> dict[int, bytes] | None:
        sent_s = time.monotonic()
        names = self._keys
        keys = [names.open(lease.worker), names.workers, names.held]
        keys += [names.list, names.arrive, names.stats, names.hosts]
        keys += [names.jobs, names.delayed, names.dead, names.pressure]
        lease_ms = int(self.lease_s * 1000)
        arguments = (lease.worker, int(register), lease_ms, shown, self.high_water)
        reply = self._beater.run(_BEAT, keys, arguments, patient=patient)
        if reply[0] == b"FENCED":
            return None
        lease.renew(
            sent_s=sent_s,
            now_s=time.monotonic(),
            lease_s=self.lease_s,
            longest_gap_s=3 * self.beat_s,
        )
        self.held = frozenset(status.read_held(reply[2]))
        fields = zip(reply[3::2], reply[4::2], strict=True)
        return {int(seq): entry.split(b" ", 1)[1] for seq, entry in fields if seq != b"last"}

    def _heal(self, worker: str, leaks: list[tuple[int, int, bool]]) -> None:
        for settlement in heal(worker, leaks):
            self._send(self._beater, settlement, b"reconciled")
        metrics.count("reconciled", len(leaks))
        log.warning("reconciled", worker=worker, queue=self.name, slots=len(leaks))

    # -- taking

    def take(
        self,
        n: int,
        *,
        max_bytes: int = 2_000_000,
        route: str | None = None,
        suspects: bool = True,
        next_try_ms: int = 5_000,
    ) -> Batch:
        """Take up to `n` jobs (at most 1,000) and about `max_bytes`; a larger payload comes alone.

        `route`: take what is parked for it, and let nobody else try it for `next_try_ms`.
        `suspects`: accept a suspect, alone, if nothing is in hand; while one is in hand every batch
        is empty. An empty batch with `fenced` set means that the lease is lost.
        """
        lease = self._lease
        if lease.holds_suspect():
            time.sleep(0.02)  # so that a caller who asks again at once does not spin
            return Batch(lease.next_seq, int(time.time() * 1000), [], suspects_waiting=True)
        limits = (min(n, _MOST_SLOTS), max_bytes, int(suspects), route or "", next_try_ms)
        while True:
            seq = lease.next_seq
            reply = self._take(lease, seq, route, limits)
            if reply[0] == b"OK":
                batch = self._batch(lease, seq, reply)
                if route is None:
                    self._lift.note(batch.slots, n, max_bytes)
                return batch
            if reply[0] == b"FENCED":
                lease.lose()
                return Batch(seq, int(time.time() * 1000), [], fenced=True)
            lease.next_seq = reply[1] + 1

    def parked_routes(self, most: int) -> list[str]:
        """Return up to `most` routes for which something is parked, who is due first before."""
        names = self._taker.call("ZRANGE", self._keys.routes, 0, most - 1)
        return [name.decode() for name in names]

    def claim(self, pairs: Sequence[tuple[str, str]], window_h: float) -> list[bool]:
        """Claim a dedupe key for each job, given as (key, id); may it go on?

        False: another job holds the key, for it waits, or was claimed within `window_h` and did not
        die; settle the slot as `Duplicate`. True: write the key into the slot's state
        (`JobState.dedupe`), so that it is free again when the job dies. One round trip for all; a
        job may claim its key again, and should at each take.
        """
        if not pairs:
            return []
        names = (self._keys.jobs, self._keys.dead, *self._keys.seen)
        words = [word for pair in pairs for word in pair]
        reply = self._taker.run(_CLAIM, names, (int(window_h * 3_600_000), *words))
        return [answer == 1 for answer in reply]

    def wait(self, timeout_s: float) -> None:
        """Wait until a producer has pushed something, or `timeout_s`, or `wake()`."""
        keys = self._keys
        self._waker.attempt(
            "BLMOVE",
            keys.list,
            keys.arrive,
            "RIGHT",
            "LEFT",
            max(timeout_s, 0.001),
            timeout_s=timeout_s + self._wait_reply_s,
        )

    def wait_for_push(self, timeout_s: float) -> bool:
        """Wait until a door has pushed something since the last time, or `timeout_s`, or `wake()`.

        Returns whether one has. One of all who wait is told.
        """
        return self._ear.wait(timeout_s)

    def wake(self) -> None:
        """End the waits of other greenlets, if they have begun."""
        self._waker.interrupt()
        self._nudged.interrupt()

    def _take(
        self, lease: Lease, seq: int, route: str | None, limits: tuple[int, int, int, str, int]
    ) -> list[Any]:
        lifted = self._lift.ask(lease.worker, seq, limits[:2] if route is None else None)
        if lifted:
            return lifted
        n = _LOOK if self._lift.is_lost else limits[0]
        keys = self._take_keys(lease, seq, route)
        reply: list[Any] = self._taker.run(_TAKE, keys, (lease.worker, seq, n, *limits[1:]))
        return reply

    def _take_keys(self, lease: Lease, seq: int, route: str | None) -> list[bytes]:
        keys = self._keys
        names = [keys.open(lease.worker), keys.batch(lease.worker, seq), keys.jobs, keys.list]
        names += [keys.arrive, keys.pushed, keys.front, keys.delayed, keys.suspects]
        names += [keys.workers, keys.routes, keys.stats, keys.nudge]
        return names if route is None else [*names, keys.park(route)]

    def _batch(self, lease: Lease, seq: int, reply: list[Any]) -> Batch:
        _, now_ms, next_due_ms, suspects, routes, taken_ms, characters = reply[:7]
        del reply[:7]
        slots = read_slots(lease.worker, seq, taken_ms, characters, reply)
        if characters:
            is_suspect = characters == b"s"
            lease.hold(seq, len(characters), suspect=is_suspect)
            live = characters.count(b".") + characters.count(b"b")
            if is_suspect or len(slots) < len(characters) or live < len(reply):
                slots = self._sift(lease, seq, characters, slots)
        return Batch(
            seq,
            now_ms,
            slots,
            next_due_ms if next_due_ms >= 0 else None,
            suspects > 0,
            tuple(name.decode() for name in routes) if routes else (),
        )

    def _sift(self, lease: Lease, seq: int, characters: bytes, slots: list[Slot]) -> list[Slot]:
        """Keep the live slots of a batch that was taken before; close those whose job is gone."""
        there = {slot.index: slot for slot in slots}
        live = [index for index, state in enumerate(characters) if state in LIVE_IN_REDIS]
        settled = [index for index, state in enumerate(characters) if state not in LIVE_IN_REDIS]
        lease.mark(seq, settled, 77)
        gone = [(seq, index, True) for index in live if index not in there]
        for settlement in heal(lease.worker, gone):
            self._send(self._settler, settlement)
        lease.mark(seq, [index for _, index, _ in gone], 77)
        lease.close(seq, time.monotonic())
        kept = [there[index] for index in live if index in there]
        for slot in kept:
            slot.suspect = characters[slot.index] == ord("s")
        return kept

    # -- settling

    def settle(self, records: Sequence[Record]) -> list[Slot]:
        """Write what became of slots, and return the parts that splits left in work, in order.

        Comes back when it is in Redis, however long that takes. May run twice. What is not `Done`
        counts only as long as nobody has fenced the slot's worker: else the job is in other hands,
        and is passed over.
        """
        parts: list[Slot] = []
        for settlement in settlements(records):
            reply = self._send(self._settler, settlement)
            parts += settlement.confirm(reply, self._lease, time.monotonic())
        return parts

    def _send(self, connection: Connection, settlement: Settlement, tag: bytes = b"") -> Any:
        keys = self._keys
        names = [keys.open(settlement.worker), keys.jobs, keys.delayed, keys.dead, keys.front]
        names += [keys.suspects, keys.routes, keys.workers, keys.stats, *keys.seen, *keys.outcomes]
        names += [keys.batch(settlement.worker, seq) for seq in settlement.seqs]
        names += [keys.park(route) for route in settlement.routes]
        if settlement.has_follow_ups:
            names.append(keys.pushed)
        return connection.run(_SETTLE, names, settlement.arguments(tag), patient=True)

    # -- bringing back

    def may_reap(self) -> bool:
        """Whether our own beats have been unbroken long enough to judge others."""
        unbroken_s = time.monotonic() - self._lease.unbroken_since_s
        return self.lease_is_mine() and unbroken_s >= self.lease_s + self.beat_s

    def reap(self, force: Sequence[str] = ()) -> int:
        """Bring back the jobs of workers that stopped beating, and return how many.

        `force`: names of workers known to be dead, reaped at once. Without it nothing happens until
        our own beats have been unbroken for a lease and a beat: after an outage all leases look
        expired.
        """
        victims = list(force)
        if self.may_reap():
            found = self._reap_call("", False, [])
            victims += [name for name in map(bytes.decode, found) if name not in victims]
        return sum(
            self._reap_worker(name, name in force) for name in victims if name != self.worker
        )

    def _reap_worker(self, victim: str, is_forced: bool) -> int:
        is_fenced, *found = self._reap_call(victim, is_forced, [])
        seqs = sorted(map(int, found), reverse=True)
        back = 0
        while is_fenced and seqs:
            moved, done = self._reap_call(victim, is_forced, seqs[:_REAP_BATCHES])
            back += moved
            del seqs[:done]
        if back:
            log.warning("reaped", worker=victim, queue=self.name, jobs=back)
        return back

    def _reap_call(self, victim: str, is_forced: bool, seqs: list[int]) -> list[Any]:
        keys = self._keys
        names = [keys.open(victim or "nobody"), keys.workers, keys.jobs, keys.front]
        names += [keys.suspects, keys.dead, keys.stats, *keys.seen, *keys.outcomes, keys.hosts]
        names += [keys.pushed, *(keys.batch(victim, seq) for seq in seqs)]
        reply: list[Any] = self._desk.run(_REAP, names, (victim, int(is_forced), *seqs))
        return reply

    def knows(self, worker: str) -> bool:
        """Return whether this Redis has a worker on its books, living, fenced or as a tombstone."""
        return self._desk.call("ZSCORE", self._keys.workers, worker) is not None

    def run_id(self) -> str:
        """Return the name that Redis gave itself when it started; empty if it may not be asked."""
        try:
            info: bytes = self._desk.call("INFO", "server")
        except RedisUnusable:
            return ""
        found = re.search(rb"run_id:(\w+)", info)
        return found[1].decode() if found else ""

    # -- producers, people

    def push(self, payloads: Sequence[bytes]) -> None:
        """Put payloads on the producers' list, first one first; a lost reply may push a piece
        twice.
        """
        piece: list[bytes] = []
        size = 0
        for payload in payloads:
            piece.append(payload)
            size += len(payload)
            if len(piece) >= _PUSH_MANY or size >= _PUSH_BYTES:
                self._desk.call("LPUSH", self._keys.list, *piece)
                piece, size = [], 0
        if piece:
            self._desk.call("LPUSH", self._keys.list, *piece)

    def submit(self, payloads: Sequence[bytes], *, told: bool = True) -> list[str]:
        """Put jobs on the queue, never twice, and return the id of each, in order.

        `told`: somebody gets to know the id, so their end is written down for `outcome`.
        """
        return self._door.submit(payloads, JobState(told=told))

    def outcome(self, job_id: str) -> dict[str, Any] | None:
        """Say what became of a told job; None when nothing is known of it (any more: a day or two).

        `outcome` is waiting, delayed (`due_ms`), delivered, dead (`reason`), duplicate or dropped,
        with `at_ms`, `tries`, `last` as far as known; `parts`: the ends so far of a job that was
        split.
        """
        return door.outcome(self._desk, self._keys, job_id)

    def hold(self, kind: Literal["relay", "queue"], name: str, *, on: bool) -> bool:
        """Hold back what goes to a relay or comes from a queue, or let it go on.

        Every worker of this queue obeys within a beat (`held`). Returns whether that is news.
        """
        command = "SADD" if on else "SREM"
        return bool(self._desk.call(command, self._keys.held, f"{kind}:{name}"))

    def counts(self) -> Counts:
        """Count where all jobs are, at one instant."""
        return status.read_counts(self._desk, self._keys)

    def dead_list(self, limit: int, reason: str | None = None) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first, whose reason contains `reason`."""
        return dead.find(self._desk, self._keys, limit=limit, reason=reason)

    def dead_reasons(self, *, sample: int = 1000) -> dict[str, int]:
        """Count the newest `sample` dead letters by reason, most frequent first."""
        return dead.reasons(self._desk, self._keys, sample=sample)

    def expire_dead(self, days: float) -> int:
        """Delete dead letters older than `days` (0: never), at most 1,000; return how many."""
        return dead.expire(self._desk, self._keys, age_ms=int(days * 86_400_000)) if days else 0

    def dead_show(self, job_id: str) -> DeadLetter | None:
        """Return a dead letter with its payload, or None when there is none of that id."""
        return dead.show(self._desk, self._keys, job_id)

    def dead_retry(
        self, ids: Sequence[str] = (), *, reason: str | None = None, every: bool = False
    ) -> int:
        """Put dead letters back with all their tries, and return how many: by id, by reason, or
        all.
        """
        return dead.retry(self._desk, self._keys, dead.Choice(tuple(ids), reason, every))

    def dead_drop(
        self, ids: Sequence[str] = (), *, reason: str | None = None, every: bool = False
    ) -> int:
        """Delete dead letters for ever, and return how many: by id, by reason, or all."""
        return dead.drop(self._desk, self._keys, dead.Choice(tuple(ids), reason, every))
