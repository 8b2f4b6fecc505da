"""How much of the protocol a host has shown to bear: learnt down when it fails, kept for an hour.

    pipelining   overlap → message → off, one step each time that replies got out of step
    chunking     on for a host that has proved it within the hour, to be proved by each connection
                 until then, and off for an hour after it failed

What the relay's owner has set is the most; this only takes away.
"""

from typing import Literal

from geomail.delivery.pace import LEARNT_S
from geomail.relays import Chunking, Pipeline

Proof = Literal["off", "prove", "on"]

_PIPELINES: tuple[Pipeline, ...] = ("off", "message", "overlap")


class Learnt:
    """What one host has shown."""

    __slots__ = ("_pipeline", "_pipeline_until", "_proved_until", "_unchunked_until")

    def __init__(self) -> None:
        self._pipeline: Pipeline = "overlap"
        self._pipeline_until = 0.0
        self._proved_until = 0.0
        self._unchunked_until = 0.0

    def pipeline(self, now: float, wanted: Pipeline) -> Pipeline:
        """Return how far commands may be sent ahead of replies: as wanted, or less."""
        if now >= self._pipeline_until:
            return wanted
        return min(wanted, self._pipeline, key=_PIPELINES.index)

    def pipeline_less(self, now: float, wanted: Pipeline) -> Pipeline | None:
        """Take one step down and return it; None where there is none left to take."""
        known = self.pipeline(now, wanted)
        if known == _PIPELINES[0]:
            return None
        self._pipeline = _PIPELINES[_PIPELINES.index(known) - 1]
        self._pipeline_until = now + LEARNT_S
        return self._pipeline

    def chunking(self, now: float, wanted: Chunking) -> Proof:
        """Return whether messages may go by BDAT: no, after a proof, or yes."""
        if wanted == "off" or now < self._unchunked_until:
            return "off"
        return "on" if now < self._proved_until else "prove"

    def chunking_proved(self, now: float) -> None:
        """Note that the host has proved to swallow a chunk that it refuses."""
        self._proved_until = now + LEARNT_S

    def chunk_no_more(self, now: float) -> bool:
        """Take chunking away; return whether it was there."""
        was_on = now >= self._unchunked_until
        self._unchunked_until = now + LEARNT_S
        self._proved_until = 0.0
        return was_on
