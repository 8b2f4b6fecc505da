"""A task: one slot on its way through a carrier, an URL task or a call."""

import re
from typing import TYPE_CHECKING

from geomail.job import CallTask, HttpTask

if TYPE_CHECKING:
    from geomail.queue import Queue, Slot


_SHOWN = re.compile(r"([^:/?#]*://)(?:[^/?#]*@)?([^?#]*)")


class Task:
    """One slot that is a request to make, or a call."""

    __slots__ = ("job", "queue", "route", "slot")

    def __init__(
        self, queue: "Queue", slot: "Slot", *, job: HttpTask | CallTask, route: str
    ) -> None:
        self.queue = queue
        self.slot = slot
        self.job = job
        self.route = route

    @property
    def target(self) -> str:
        """What people are told of it."""
        return describe(self.job)

    def is_mine(self) -> bool:
        """Return whether the lease under which this slot was taken is still ours."""
        return self.queue.owns(self.slot)


def describe(job: HttpTask | CallTask) -> str:
    """Return what people are told of a task: its URL without the query, or the name it calls.

    Of a URL that is none, as of any other: nobody has read it but to see that it is dead.
    """
    if isinstance(job, CallTask):
        return f"{job.cls}.{job.worker}".lstrip(".")
    found = _SHOWN.match(job.url)
    return f"{found[1].lower()}{found[2]}" if found else ""
