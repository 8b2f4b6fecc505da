"""The queue: jobs in Redis, taken by workers, in exactly one place at any time.

`Link` is a Redis server, `Queue` one worker's client of one list, the rest are the values that go
in and out. The contract with Redis, key by key, is in the heads of the scripts beside this file,
one verb each.
"""

from geomail.queue.ceilings import Ceilings
from geomail.queue.limits import Limiter
from geomail.queue.link import Connection, Link
from geomail.queue.queue import Queue
from geomail.queue.records import (
    FRESH,
    TOLD,
    Batch,
    Counts,
    Dead,
    DeadLetter,
    Done,
    Duplicate,
    Ending,
    Fate,
    Followed,
    Held,
    JobState,
    Park,
    Part,
    Record,
    Release,
    Retry,
    Slot,
    Split,
    death_of,
)

__all__ = [
    "FRESH",
    "TOLD",
    "Batch",
    "Ceilings",
    "Connection",
    "Counts",
    "Dead",
    "DeadLetter",
    "Done",
    "Duplicate",
    "Ending",
    "Fate",
    "Followed",
    "Held",
    "JobState",
    "Limiter",
    "Link",
    "Park",
    "Part",
    "Queue",
    "Record",
    "Release",
    "Retry",
    "Slot",
    "Split",
    "death_of",
]
