"""The worker: one process that takes jobs, delivers them, and settles what became of them.

    popper ──► admission ──► lanes (senders) ──► settler ──► Redis

Four kinds of greenlets beside the senders: the popper, the settler, a beat that keeps the lease of
each list, and a reaper that brings back what dead workers held. Each starts again after a surprise,
with the surprise in the log. Only `run` is for others.
"""

from geomail.worker.life import run

__all__ = ["run"]
