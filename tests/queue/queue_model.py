"""The queue once more, without Redis: plain lists and sets, and the rules of the scripts.

A `Job` is one mail, or one part of one. References in lists are the jobs themselves; one whose job
does not `exist` any more is dangling, and is dropped where it is met. Lists are taken from the
right end, as in Redis. What Redis decides by its clock (the order of due jobs) is handed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LISTS = ("pushed", "front", "suspects")


@dataclass(eq=False)
class Job:
    """A mail or a part of one."""

    payload: bytes
    id: str = ""
    deaths: int = 0
    touched: bool = False
    exists: bool = True
    root: "Job | None" = None
    parts: int = 0
    key: str | None = None  # the dedupe key in its json
    died: "set[Job]" = field(default_factory=set)  # parts of it that have, with a key
    is_had: bool = False  # one of those was delivered

    @property
    def is_whole(self) -> bool:
        """Whether there is anything left of it to deliver."""
        return self.exists and (self.root is None or self.root.exists)


@dataclass(eq=False)
class OpenBatch:
    """What one take brought; characters as in Redis."""

    jobs: list[Job]
    states: list[str]


@dataclass(eq=False)
class Worker:
    """A name on the books: 'live', 'fenced' (holds something) or 'tomb'."""

    state: str = "live"
    last: int = 0
    open: dict[int, OpenBatch] = field(default_factory=dict)


class Model:
    """All places a job can be in."""

    def __init__(self) -> None:
        self.list: list[Job] = []
        self.arrive: list[Job] = []
        self.refs: dict[str, list[Job]] = {name: [] for name in LISTS}
        self.park: dict[str, list[Job]] = {}
        self.delayed: set[Job] = set()
        self.dead: set[Job] = set()
        self.workers: dict[str, Worker] = {}
        self.touched: set[Job] = set()
        self.seen: dict[str, Job] = {}
        self.pushed = self.delivered = self.dropped = 0

    # -- jobs

    def touch(self, job: Job) -> None:
        job.touched = True
        self.touched.add(job)

    def forget(self, job: Job) -> bool:
        if not (job.touched and job.exists):
            return False
        job.exists = False
        self.delayed.discard(job)
        self.dead.discard(job)
        if job.root:
            self.count_parts(job.root, -1)
        job.parts = 0
        return True

    def count_parts(self, root: Job, change: int) -> None:
        if root.exists:
            root.parts += change
            if root.parts <= 0:
                root.exists, root.parts = False, 0

    def bury(self, job: Job) -> None:
        self.dead.add(job)
        self.free(job)

    def free(self, job: Job) -> None:
        if not job.key:
            return
        root = job.root
        if root is not None:
            root.died.add(job)
            if root.is_had or root.parts > len(root.died & self.dead):
                return
        if self.seen.get(job.key) is (root or job):
            del self.seen[job.key]

    def meet(self, job: Job) -> bool:
        """Whether a job that a reference names is still there; a part of nothing goes."""
        if not job.is_whole:
            job.exists = False
        return job.exists

    # -- verbs

    def submit(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.touch(job)
        self.refs["pushed"][:0] = reversed(jobs)
        self.pushed += len(jobs)

    def claim(self, key: str, job: Job) -> bool:
        if job.root or job in self.dead:
            return True
        holder = self.seen.get(key)
        if holder is not None and holder is not job and holder not in self.dead:
            return False
        self.seen[key] = job
        if job.touched and job.exists and job.key is None:
            job.key = key
        return True

    def duplicate(self, name: str, seq: int, index: int) -> bool:
        worker = self.workers[name]
        batch = worker.open.get(seq)
        if worker.state != "live" or batch is None or batch.states[index] == "x":
            return False
        job = batch.jobs[index]
        batch.states[index] = "x"
        if not job.touched:
            job.exists = False
            self.dropped += 1
        elif self.meet(job):
            self.dropped += job.parts or 1
            self.forget(job)
        self._close(name, seq)
        return True

    def take(self, name: str, n: int, route: str | None, due: list[Job]) -> list[Job] | None:
        """Return the jobs that a take must bring, or None for a worker that is fenced."""
        worker = self.workers[name]
        if worker.state != "live":
            return None
        seq = worker.last + 1
        taken, states = self._gather(worker, n, seq % 2, route, due)
        for index, job in enumerate(taken):
            if not job.id:
                job.id = f"{name}.{seq}.{index}"
                if not job.payload or job.payload[0] == 1:
                    self.touch(job)
        if taken:
            worker.last = seq
            worker.open[seq] = OpenBatch(list(taken), states)
        return taken

    def lift(self, name: str, n: int, due: list[Job]) -> list[Job] | None:
        """Return what moves unread, or None when the list has to be asked in the usual way."""
        worker = self.workers[name]
        if worker.state != "live" or self.is_in_front() or due or not self.list:
            return None
        taken = [self.list.pop() for _ in range(min(n, len(self.list)))]
        seq = worker.last = worker.last + 1
        for index, job in enumerate(taken):
            job.id = f"{name}.{seq}.{index}"
        worker.open[seq] = OpenBatch(list(taken), ["b"] * len(taken))
        return taken

    def is_in_front(self) -> bool:
        """Whether something is taken before the list."""
        return bool(self.arrive) or any(self.refs.values())

    def use_up(self, name: str) -> None:
        """A seq whose lift nobody knows of is not used again."""
        worker = self.workers[name]
        if worker.state == "live":
            worker.last += 1

    def _gather(
        self, worker: Worker, n: int, turn: int, route: str | None, due: list[Job]
    ) -> tuple[list[Job], list[str]]:
        taken: list[Job] = []
        if route is not None:
            self._pull(self.park.get(route, []), n, taken)
        else:
            if not worker.open:
                self._pull(self.refs["suspects"], 1, taken)
            if taken:
                return taken, ["s"]
            self._promote(due, -(-n // 4) if n > 1 else turn, n, taken)
            self._pull(self.refs["front"], n, taken)
            self._pull(self.arrive, n, taken)
            self._pull(self.refs["pushed"], len(taken) + (n - len(taken) + turn) // 2, taken)
            self._pull(self.list, n, taken)
            self._pull(self.refs["pushed"], n, taken)
            self._promote(due, n, n, taken)
        return taken, ["."] * len(taken)

    def _pull(self, source: list[Job], until: int, taken: list[Job]) -> None:
        while source and len(taken) < until:
            job = source.pop()
            if self.meet(job):
                taken.append(job)

    def _promote(self, due: list[Job], want: int, n: int, taken: list[Job]) -> None:
        until = min(n, len(taken) + want)
        while due and len(taken) < until:
            job = due.pop(0)
            self.delayed.discard(job)
            if self.meet(job):
                taken.append(job)

    def follow(self, name: str, seq: int, index: int, payloads: list[bytes]) -> list[Job]:
        """Push what follows a slot that has moved."""
        place = f"{name}.{seq}.{index}.cb"
        numbers = ["", *map(str, range(2, len(payloads) + 1))]
        jobs = [Job(payload, place + n) for payload, n in zip(payloads, numbers, strict=True)]
        self.submit(jobs)
        return jobs

    def settle_done(self, name: str, seq: int, index: int, job: Job) -> bool:
        """Settle a delivery, and return whether the slot has moved."""
        batch = self.workers[name].open.get(seq)
        if batch is None:
            return self._deliver(job)
        if batch.states[index] == "x":
            return False
        batch.states[index] = "x"
        has_moved = self._deliver(job) if job.touched else True
        self.delivered += not job.touched
        job.exists = False
        self._close(name, seq)
        return has_moved

    def _deliver(self, job: Job) -> bool:
        """Forget a job that was delivered, and return whether it was there to be forgotten."""
        weight = (job.parts or 1) if job.is_whole else 0  # counted with its whole, which has gone
        if job.root and job.key and job.is_whole:
            job.root.is_had = True
        is_there = self.forget(job)
        self.delivered += weight if is_there else 0
        return is_there

    def move(self, name: str, seq: int, index: int, place: str, key: str | None) -> bool:
        """Put a live slot's job into a place, with a key; False when the record is passed over."""
        worker = self.workers[name]
        batch = worker.open.get(seq)
        if worker.state != "live" or batch is None or batch.states[index] == "x":
            return False
        job = batch.jobs[index]
        was_suspect = batch.states[index] == "s"
        batch.states[index] = "x"
        if is_there := self.meet(job):
            self.touch(job)
            job.key = key
            self._place(job, "suspects" if place == "front" and was_suspect else place)
        self._close(name, seq)
        return is_there

    def _place(self, job: Job, place: str) -> None:
        match place:
            case "delayed":
                self.delayed.add(job)
            case "dead":
                self.bury(job)
            case "front" | "suspects":
                self.refs[place].append(job)
            case _:
                self.park.setdefault(place, []).insert(0, job)

    def split(
        self, name: str, seq: int, index: int, fates: list[str], key: str | None
    ) -> tuple[list[Job], bool]:
        """Split a live slot's job, and return the parts that stay in the batch, and if it moved."""
        worker = self.workers[name]
        batch = worker.open.get(seq)
        if worker.state != "live" or batch is None or batch.states[index] == "x":
            return [], False
        whole = batch.jobs[index]
        stay: list[Job] = []
        if is_there := self.meet(whole):
            root = whole.root or whole
            if not root.touched:
                root.key = None
            self.touch(root)
            root.parts += len(fates)
            self.pushed += len(fates) - 1
            for number, fate in enumerate(fates, 1):
                part = Job(whole.payload, f"{whole.id}/{number}", whole.deaths, root=root, key=key)
                self.touch(part)
                if fate == "slot":
                    batch.jobs.append(part)
                    batch.states.append(".")
                    stay.append(part)
                else:
                    self._place(part, fate)
            if whole.root:
                whole.exists = False
                self.count_parts(whole.root, -1)
                if fates[-1] == "dead":
                    self.free(part)
        batch.states[index] = "x"
        self._close(name, seq)
        return stay, is_there

    def _close(self, name: str, seq: int) -> None:
        worker = self.workers[name]
        if set(worker.open[seq].states) == {"x"}:
            del worker.open[seq]

    def fence(self, name: str) -> None:
        worker = self.workers[name]
        if worker.state == "live":
            worker.state = "fenced"
        self._bury(worker)

    def reap(self, name: str) -> None:
        worker = self.workers[name]
        if worker.state != "fenced":
            return
        for seq in sorted(worker.open, reverse=True):
            batch = worker.open.pop(seq)
            for job, state in reversed(list(zip(batch.jobs, batch.states, strict=True))):
                if state != "x" and self.meet(job):
                    self._bring_back(job, state == "s")
        self._bury(worker)

    def _bring_back(self, job: Job, is_suspect: bool) -> None:
        job.deaths += 1
        self.touch(job)
        if is_suspect:
            self.bury(job)
        else:
            self.refs["suspects" if job.deaths >= 2 else "front"].append(job)

    @staticmethod
    def _bury(worker: Worker) -> None:
        if worker.state == "fenced" and not worker.open:
            worker.state = "tomb"
            worker.last = 0

    def revive(self, job: Job) -> None:
        self.dead.discard(job)
        if self.meet(job):
            job.deaths = 0
            self.refs["front"].insert(0, job)

    def drop(self, job: Job) -> None:
        self.dead.discard(job)
        if self.meet(job):
            self.forget(job)
            if job.root is None:
                self.free(job)
            self.dropped += 1

    # -- what Redis must hold now

    def expected(self) -> dict[str, Any]:
        """Return the content of all keys, as `redis_servers.dump` gives it, times left out."""
        found: dict[str, Any] = {
            "queue:email": [job.payload for job in self.list],
            "arrive": [job.payload for job in self.arrive],
            "delayed": {job.id for job in self.delayed},
            "dead": {job.id for job in self.dead},
            "jobs": self._jobs(),
        }
        references = self.refs | {f"park:{route}": jobs for route, jobs in self.park.items()}
        for name, jobs in references.items():
            found[name] = [f"\x01{job.id}".encode() for job in jobs]
        for name, worker in self.workers.items():
            table = {str(seq): "".join(batch.states) for seq, batch in worker.open.items()}
            if worker.last:
                table["last"] = str(worker.last)
            found[f"open:{name}"] = table
            for seq, batch in worker.open.items():
                found[f"batch:{name}:{seq}"] = len(batch.jobs)
        return {name: content for name, content in found.items() if content}

    def _jobs(self) -> dict[str, Any]:
        there = [job for job in self.touched if job.exists]
        found: dict[str, Any] = {job.id: job.deaths for job in there}
        found.update({f"{job.id}/": job.parts for job in there if job.parts})
        found.update({f"{job.id}/-": _noted(job) for job in there if job.died or job.is_had})
        return found

    def at_rest(self) -> Iterator[Job]:
        """Every job there still is, once for each place that names it."""
        yield from self.list
        yield from self.arrive
        for jobs in [*self.refs.values(), *self.park.values(), self.delayed, self.dead]:
            yield from (job for job in jobs if job.is_whole)
        for worker in self.workers.values():
            for batch in worker.open.values():
                pairs = zip(batch.jobs, batch.states, strict=True)
                yield from (job for job, state in pairs if state != "x" and job.is_whole)


def _noted(root: Job) -> set[str]:
    """Return what is noted of the parts of a split job."""
    return {part.id.removeprefix(root.id) for part in root.died} | ({"+"} if root.is_had else set())
