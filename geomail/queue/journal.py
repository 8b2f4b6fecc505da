"""The local journal: what hosts have answered, on disk before it is on its way to Redis.

Between a host's final reply and its settling lies a moment in which `kill -9` would make a mail go
twice. So each final outcome is appended here first, whole (worker, seq, slot, id, what became of
every recipient), without fsync: the kernel keeps it when we are killed (record_file.py).

A process has one journal, named after its first worker:

    <worker>.journal       locked by flock(2) while the process lives; says which workers it was,
                           of which queues
    <worker>.<n>.records   outcomes in their order; a new file every few seconds, and the old one
                           goes when Redis has had all of it for ten

The next start takes every journal whose lock it gets, settles again what is in it, and only then
fences those workers and brings back what they held, without waiting for their leases. Settling
twice is harmless. A job that goes on although some recipients have it has a note of who is left,
which counts only where no outcome followed. Redis decides whether a journal is its own: a worker
that it has never heard of is another Redis's, and its journal is left alone, for two days. When
Redis comes back as another process, it may have forgotten its last second: then our own journal is
said again, without the notes, for we still know them.

A journal that is deleted under us, or moved away, is begun anew within a second of work, or at the
next beat. A disk that is full or a folder that can't be written costs duplicates after a kill,
never mail: it is said once a minute. Not promised: anything after the machine itself has died, nor
on file systems without flock (some network mounts).
"""

import errno
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec

from geomail import log, metrics
from geomail.queue.entries import Entry, encode, record_of
from geomail.queue.queue import Queue
from geomail.queue.record_file import ROOM, RecordFile, bodies, frame
from geomail.queue.records import Record, Slot

_MAGIC = b"geomail journal 1\n"
_NEW_FILE_S = 5.0
_KEEP_S = 10.0
_COMPLAIN_EVERY_S = 60.0
_LOOK_EVERY_S = 1.0
_FULL_FOR_S = 1.0
_STRANGE_FOR_S = 2 * 86_400
_PIECE = 1000
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Name(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One registration of the process."""

    queue: str
    worker: str


_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_name = msgspec.msgpack.Decoder(Name).decode


class _File(msgspec.Struct, eq=False):
    """One file of records, and since when Redis has all of it."""

    path: Path
    begun_s: float
    last: int = 0
    settled_s: float | None = None


class Journal:
    """The journal of this process; one without a folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        """Prepare it; the first `enlist` makes its files."""
        self.appended = 0
        self._settled = 0
        self._folder = folder
        self._name = ""
        self._names = -1
        self._workers: dict[str, str] = {}  # worker: queue
        self._page: RecordFile | None = None
        self._full_until_s = 0.0
        self._number = 0
        self._files: deque[_File] = deque()
        self._complained_s = float("-inf")
        self._look_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether outcomes are kept at present."""
        return self._page is not None

    def enlist(self, queue: str, worker: str) -> None:
        """Note that this process is `worker` of `queue`; to be repeated, for it mends the journal
        too.
        """
        if self._folder is None or (worker in self._workers and self.is_open):
            return
        try:
            if self._names < 0:
                self._create(self._folder, worker)
            if worker not in self._workers:
                _write_whole(self._names, frame(_encode(Name(queue, worker))))
                self._workers[worker] = queue
            if not self.is_open:
                self._begin_file()
        except OSError as error:
            self._complain(error)

    def append(self, queue: str, record: Record) -> None:
        """Write one outcome, at once."""
        entry, page = encode(record), self._page
        # Nearly always there is a page, which knows the worker and has room: 3 calls in place of 5.
        if page is not None and record.slot.worker in self._workers and page.append(entry):
            self.appended += 1
        else:
            self._append(queue, record.slot, entry)

    def note(self, queue: str, slot: Slot) -> None:
        """Write who is left of a job that goes on: its state, as it is by now."""
        job_id = slot.id if slot.touched else ""
        place = slot.worker, slot.seq, slot.index
        self._append(queue, slot, _encode(Entry(*place, job_id, slot.state, goes_on=True)))

    def _append(self, queue: str, slot: Slot, entry: bytes) -> None:
        if self._page is not None:
            if slot.worker not in self._workers:
                self.enlist(queue, slot.worker)
            if not self._page.append(entry):
                self._turn(entry)
        self.appended += 1

    def _turn(self, entry: bytes) -> None:
        """Go on in a new file, the old one being full; a full disk is asked once a second."""
        if time.monotonic() < self._full_until_s:
            metrics.count("journal_lost")
            return
        try:
            self._begin_file(len(frame(entry))).append(entry)
        except OSError as error:
            self._full_until_s = time.monotonic() + _FULL_FOR_S
            metrics.count("journal_lost")
            self._complain(error)

    def settled(self, number: int) -> None:
        """Note that Redis has the first `number` outcomes that were appended."""
        self._settled = number
        if (now_s := time.monotonic()) >= self._look_at_s:
            self._look_at_s = now_s + _LOOK_EVERY_S
            self._look()

    def tidy(self) -> None:
        """Begin a new file where it is time, and delete what Redis has had for long enough."""
        now_s = time.monotonic()
        self._look()
        try:
            if (
                self._page is not None
                and self._page.size
                and now_s - self._files[-1].begun_s >= _NEW_FILE_S
            ):
                self._begin_file()
        except OSError as error:
            self._complain(error)  # the old file goes on
        for file in islice(self._files, len(self._files) - self.is_open):
            if file.settled_s is None and file.last <= self._settled:
                file.settled_s = now_s
        while self._files and now_s - (self._files[0].settled_s or now_s) >= _KEEP_S:
            with suppress(OSError):
                self._files.popleft().path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Begin anew where somebody has deleted it under us, or moved it away, with what the last
        file had.
        """
        if self._page is None or not self._is_gone():
            return
        log.warning("journal_deleted", folder=self._folder, consequence="it is begun anew")
        workers, kept = dict(self._workers), bodies(self._path, self._page.content())
        self.remove()
        for worker, queue in workers.items():
            self.enlist(queue, worker)
        for entry in kept:
            if self._page is not None and not self._page.append(entry):
                self._turn(entry)

    def _is_gone(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._names))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # it can't be told: what is open goes on

    def entries(self) -> Iterator[Entry]:
        """Read all outcomes that are still kept, in their order."""
        for file in list(self._files):
            try:
                yield from read_records(file.path)
            except OSError as error:  # deleted under us: must not keep the beat from its work
                self._complain(error)

    def say_again(self, queue: Queue) -> int:
        """Settle once more what is kept for a queue whose Redis may have forgotten its last second;
        return how many outcomes.
        """
        ours = {worker: queue for worker, name in self._workers.items() if name == queue.name}
        return say_again((entry for entry in self.entries() if not entry.goes_on), ours)

    def remove(self) -> None:
        """Delete the journal: Redis has everything, and the workers hold nothing."""
        if self._names < 0:
            return
        with suppress(OSError):
            for file in self._files:
                file.path.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the files, and keep them for the next start."""
        if self._page is not None:
            self._page.close()
        if self._names >= 0:
            os.close(self._names)
        self._page, self._names = None, -1
        self._workers.clear()
        self._files.clear()

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._name}.journal"

    def _create(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name = name
        fd = os.open(self._path, _FLAGS | os.O_EXCL, 0o600)
        try:
            # Whoever looks at it in this moment lets go at once: it says nothing yet.
            fcntl.flock(fd, fcntl.LOCK_EX)
            _write_whole(fd, _MAGIC)
        except BaseException:
            os.close(fd)
            self._path.unlink()
            raise
        self._names = fd

    def _begin_file(self, length: int = 0) -> RecordFile:
        path = self._path.with_suffix(f".{self._number}.records")
        page = RecordFile(path, max(ROOM, length))
        if self._page is not None:
            self._page.close()
        if self._files:
            self._files[-1].last = self.appended
        self._files.append(_File(path, time.monotonic()))
        self._page = page
        self._number += 1
        return page

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= _COMPLAIN_EVERY_S:
            self._complained_s = now_s
            log.warning(
                "journal_not_written",
                folder=self._folder,
                why=error.strerror,
                lost=metrics.snapshot().get("journal_lost"),
                consequence="mail goes on; a kill may send the last of it twice",
            )


def replay(folder: Path, queues: Sequence[Queue]) -> int:
    """Settle what dead processes had left to settle, bring back what they held; return how many.

    To be called before the first take. Journals of the living, and of another Redis, stay.
    """
    by_name = {queue.name: queue for queue in queues}
    back = 0
    for path in sorted(folder.glob("*.journal")):
        try:
            back += _replay_one(path, by_name)
        except (OSError, ValueError) as error:  # another version's, perhaps
            log.warning("journal_not_read", journal=path, why=error)
    return back


def say_again(entries: Iterable[Entry], queues: Mapping[str, Queue]) -> int:
    """Settle entries, each by the queue of its worker, or not at all; return how many."""
    said = 0
    ours = (entry for entry in entries if entry.worker in queues)
    while piece := list(islice(ours, _PIECE)):
        by_queue: dict[Queue, list[Record]] = {}
        for entry in piece:
            by_queue.setdefault(queues[entry.worker], []).append(record_of(entry))
        for queue, records in by_queue.items():
            queue.settle(records)
        said += len(piece)
    return said


def _replay_one(path: Path, by_name: Mapping[str, Queue]) -> int:
    fd = _lock(path)
    if fd < 0:
        return 0
    try:
        names = _read_names(path)
        queues = {
            name.worker: by_name[name.queue]
            for name in names
            if name.queue in by_name and by_name[name.queue].knows(name.worker)
        }
        files = _files_of(path)
        entries = (entry for file in files for entry in read_records(file))
        said = say_again(_outcomes_first(entries), queues) if queues else 0
        back = sum(queue.reap([worker]) for worker, queue in queues.items())
        if queues:
            log.info("journal_replayed", journal=path.name, records=said, back=back)
        if len(queues) == len(names) > 0 or _are_old((*files, path)):
            for file in (*files, path):
                file.unlink(missing_ok=True)
        return back
    finally:
        os.close(fd)


def _outcomes_first(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Put the last note of each job behind all outcomes, where it is passed over if it has one."""
    notes: dict[tuple[str, int, int], Entry] = {}
    for entry in entries:
        if entry.goes_on:
            notes[entry.worker, entry.seq, entry.index] = entry
        else:
            yield entry
    yield from notes.values()


def _lock(path: Path) -> int:
    """Open and lock the journal of a dead process; -1 when its owner lives, or it is gone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another start may have replayed and removed it between our open and our lock.
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return -1


def _read_names(path: Path) -> set[Name]:
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        return set()
    return {_decode_name(body) for body in bodies(path, data, len(_MAGIC))}


def _files_of(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.stem}.*.records")
    return sorted(found, key=lambda file: int(file.suffixes[0][1:]))


def _are_old(files: Iterable[Path]) -> bool:
    return time.time() - max(file.stat().st_mtime for file in files) > _STRANGE_FOR_S


def read_records(path: Path) -> Iterator[Entry]:
    """Read the outcomes in one file, in their order."""
    return map(_decode_entry, bodies(path, path.read_bytes()))


def _write_whole(fd: int, data: bytes) -> None:
    size = os.fstat(fd).st_size
    if os.write(fd, data) < len(data):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
