"""A task: one slot on its way through a carrier, an URL task or a call."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from geomail.job import CallTask, HttpTask

if TYPE_CHECKING:
    from geomail.queue import Queue, Slot


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
    """Return what people are told of a task: its URL without the query, or the name it calls."""
    if isinstance(job, CallTask):
        return f"{job.cls}.{job.worker}".lstrip(".")
    parts = urlsplit(job.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
