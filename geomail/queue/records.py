"""The values that go in and out of the queue: slots, batches, and the records of what became of a
slot.

A `Slot` is one job in a worker's hand: its id, its bytes, and where it lies in Redis (worker, seq,
index). A record says what became of it; `Queue.settle` takes any mixture of them, and each may be
settled twice. `JobState` is what is remembered of a job between two tries; it is written as the
`{json}` of a job that was touched, so a field that is not set takes no room. Nothing here talks to
Redis or reads a clock.
"""

from typing import Literal, TypeAlias

import msgspec


class JobState(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is remembered of a job between two tries; make another with msgspec.structs.replace."""

    tries: int = 0
    rcpt: list[str] | None = None  # recipients that are left; None: all of them
    last: str | None = None  # the last reply, or the last I/O failure
    route: str | None = None
    unknown: int = 0  # tries whose outcome nobody knows
    reason: str | None = None  # why it is dead
    at_ms: int | None = None  # when it was tried last
    retried_ms: int | None = None  # a person put it back: its age counts from here
    dedupe: str | None = None  # the key that it claimed; given back when it dies
    reached: bool = False  # somebody has had it: the key that it claimed stays taken
    told: bool = False  # somebody knows its id, and may ask what became of it
    callback: bool = False  # a follow-up of ours: no producer can write that
    last_words: str | None = None  # pushed as a callback, should it die with its workers
    had: list[str] | None = None  # to whom it was delivered, while nobody was called back for that


FRESH = JobState()
TOLD = JobState(told=True)  # what a door brought, and nobody has tried
_PLAIN = {b"{}": FRESH, b'{"told":true}': TOLD}


class Slot(msgspec.Struct, eq=False, gc=False):
    """One job in a worker's hand; two slots are the same only if they are one object."""

    worker: str
    seq: int
    index: int
    id: str
    deaths: int
    first_seen_ms: int
    state: JobState
    payload: bytes
    touched: bool = False  # Redis keeps it by reference
    suspect: bool = False  # two workers died with it in hand; it travels alone
    size: int = 0  # of the payload, when that has been let go of

    @property
    def weight(self) -> int:
        """The size of the payload, in hand or let go of."""
        return len(self.payload) or self.size

    def let_go(self) -> None:
        """Drop the payload, which Redis keeps: all but a split of it can be settled without."""
        self.size, self.payload = len(self.payload) or self.size, b""


class Batch(msgspec.Struct, eq=False):
    """What one take brought; `now_ms` is Redis's clock. An empty batch has used up no seq."""

    seq: int
    now_ms: int
    slots: list[Slot]
    next_due_ms: int | None = None  # the earliest delayed job, may be in the past
    suspects_waiting: bool = False
    routes_due: tuple[str, ...] = ()  # parked routes that may be tried now
    fenced: bool = False  # the lease is lost: register anew


class Done(msgspec.Struct, frozen=True, gc=False):
    """Delivered, or else finished for good."""

    slot: Slot


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """Dropped: another job holds its dedupe key."""

    slot: Slot


class Retry(msgspec.Struct, frozen=True, gc=False):
    """To be tried again, `due_in_ms` from now by Redis's clock."""

    slot: Slot
    due_in_ms: int
    state: JobState


class Dead(msgspec.Struct, frozen=True, gc=False):
    """Kept until a person decides; `state.reason` says why."""

    slot: Slot
    state: JobState


class Park(msgspec.Struct, frozen=True):
    """Put aside until `route` may be tried, alike; an earlier timer of the route stands."""

    slots: list[Slot]  # of one worker, one at least
    route: str
    retry_in_ms: int
    state: JobState

    @property
    def slot(self) -> Slot:
        """One that stands for all."""
        return self.slots[0]


class Release(msgspec.Struct, frozen=True, gc=False):
    """Put back in front of everything, untried."""

    slot: Slot
    state: JobState


Fate: TypeAlias = Literal["slot", "dead"] | tuple[Literal["retry"], int]


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part of a split job: in work at once, due later (ms), or dead."""

    state: JobState
    fate: Fate = "slot"


class Split(msgspec.Struct, frozen=True, gc=False):
    """Divided into parts `<id>/1…k`, each a job of its own that shares the bytes."""

    slot: Slot
    parts: list[Part]


Ending: TypeAlias = Done | Duplicate | Dead | Split


class Followed(msgspec.Struct, frozen=True, gc=False):
    """An ending, and what is pushed for it: when its slot moves, and only then."""

    record: Ending
    payloads: list[bytes]

    @property
    def slot(self) -> Slot:
        """Whose ending it is."""
        return self.record.slot


Record: TypeAlias = Done | Duplicate | Retry | Dead | Park | Release | Split | Followed


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead job as a person sees it; `payload` is read by `dead_show` only, `size` may be a little
    more.
    """

    id: str
    died_at_ms: int
    first_seen_ms: int
    deaths: int
    state: JobState
    size: int
    payload: bytes | None = None

    @property
    def reason(self) -> str:
        """Why it is dead, in words."""
        if self.state.reason is not None or not self.deaths:
            return self.state.reason or "no reason was given"
        return death_of(self.deaths)


def death_of(deaths: int) -> str:
    """Return the reason of a job that has died because its workers did."""
    return f"killed its worker: {deaths} workers died with it in hand"


class Held(msgspec.Struct, frozen=True):
    """A worker on the books: what is left of its lease in ms (negative: it ran out), its live
    slots.
    """

    lease_left_ms: int
    jobs: int
    fenced: bool


class Counts(msgspec.Struct, frozen=True):
    """Where all jobs of a queue are, at one instant."""

    list: int
    arrive: int
    pushed: int
    front: int
    delayed: int
    next_due_ms: int | None
    dead: int
    parked: dict[str, int]
    suspects: int
    workers: dict[str, Held]
    stats: dict[str, int]
    now_ms: int
    held: tuple[tuple[str, str], ...] = ()  # what people hold back: (relay or queue, its name)
    not_empty_since_ms: int | None = None  # of the producers' list; None: empty, or nobody looked
    delivered_per_minute: float = 0.0  # over the last half minute to minute
    pressure: Literal["ok", "high"] = "ok"  # what producers are told

    @property
    def in_flight(self) -> int:
        """Jobs in some worker's hand."""
        return sum(held.jobs for held in self.workers.values())

    @property
    def waiting(self) -> int:
        """Jobs that a take would bring now, delayed ones that are due not counted."""
        return self.list + self.arrive + self.pushed + self.front + self.suspects

    @property
    def drained_in_minutes(self) -> float | None:
        """How long what waits will take at the present rate; None when nothing moves."""
        rate = self.delivered_per_minute
        return self.waiting / rate if rate > 0 else None

    @property
    def maybe_duplicates(self) -> int:
        """Mails that may have gone twice: sent again unanswered, or delivered by two workers."""
        return self.stats.get("unsure", 0) + self.stats.get("duplicates", 0)


encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(JobState).decode


def parse_job(value: bytes) -> tuple[int, int, JobState, bytes]:
    """Read `<deaths> <first seen ms> {json}\\n<bytes>` into its four values."""
    header, _, payload = value.partition(b"\n")
    deaths, first_seen_ms, json = header.split(b" ", 2)
    state = _PLAIN.get(json) or _decode_state(json)
    return int(deaths), int(first_seen_ms), state, payload
