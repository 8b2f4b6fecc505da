"""A host's ways: what was learnt of how it wants to be talked to.

How much of the protocol it bears (learnt), after how many messages and how long a pause it ends
connections (pace.Habits), and how many deliveries keep one connection busy for it. All of that is
forgotten after an hour, and outlives connections and failures until then.
"""

import time

from geomail import log, metrics
from geomail.delivery.host.learnt import Learnt, Proof
from geomail.delivery.pace import DEPTH, Habits, deliveries_for
from geomail.delivery.session.terms import Terms
from geomail.relays import Pipeline

_ON_WIRE = 2  # deliveries a connection: the content of one, the envelope of the next; with BDAT
_WINDOWS = 3  # so many windows: one is under way, more is asked for when half are gone
_SHORTEST_PAUSE_S = 1.0


class Ways:
    """What one lane has learnt of its host. Times are seconds of the monotonic clock."""

    __slots__ = ("_for", "_host", "_learnt", "_on_wire", "depth", "habits", "terms")

    def __init__(self, host: str, terms: Terms) -> None:
        self.terms = terms
        self.habits = Habits()
        self.depth = DEPTH
        self._on_wire = _ON_WIRE
        self._for = (0, 0)  # connections, and how many for them: asked with each mail
        self._host = host
        self._learnt = Learnt()

    # ---- what is known

    def pipeline(self, now: float) -> Pipeline:
        """Return how far commands may be sent ahead of replies: as set, or as learnt down."""
        return self._learnt.pipeline(now, self.terms.relay.pipeline)

    def chunking(self, now: float) -> Proof:
        """Return whether the next connection may use BDAT: as set, proved, or learnt down."""
        return self._learnt.chunking(now, self.terms.relay.chunking)

    def deliveries_for(self, connections: int, *, is_proved: bool) -> int:
        """Return how many deliveries keep so many connections busy; few where it is not proved."""
        if not is_proved:
            return _ON_WIRE * connections
        if connections != self._for[0]:
            wanted = deliveries_for(connections, depth=self.depth, on_wire=self._on_wire)
            self._for = connections, wanted
        return self._for[1]

    # ---- what is learnt

    def pipeline_less(self, text: str, now: float) -> bool:
        """After a connection got out of step: pipeline less for a while.

        Returns whether there was something to take back; then another connection is worth making.
        """
        less = self._learnt.pipeline_less(now, self.terms.relay.pipeline)
        if less is None:
            return False
        log.warning("pipelining_less", host=self._host, now=less, why=text)
        return True

    def learn_chunking(self, now: float, *, is_proved: bool, why: str = "") -> None:
        """Note that the host can be sent chunks for the next hour, or that it can't."""
        self._for = (0, 0)
        if is_proved:
            self._learnt.chunking_proved(now)
            self._on_wire = self.terms.relay.in_flight
            self.depth = max(DEPTH, _WINDOWS * self._on_wire)
            return
        self.depth, self._on_wire = DEPTH, _ON_WIRE
        if self._learnt.chunk_no_more(now):
            log.warning("chunking_less", host=self._host, why=why or "the proof has failed")

    def note_end(self, messages: int, *, began: float, is_said: bool = False) -> None:
        """Note that the host ended a connection after `messages`, perhaps saying that for this."""
        metrics.count("connections_used_up")
        self._note_messages(messages, began=began, is_said=is_said)

    def note_idle_end(self, pause_s: float, messages: int, *, began: float) -> None:
        """Note that the host ended a connection that was idle for `pause_s`, after `messages`."""
        metrics.count("connections_stale")
        if pause_s < _SHORTEST_PAUSE_S:
            self._note_messages(messages, began=began)
        else:
            self.habits.note_idle_end(time.monotonic(), pause_s)

    def _note_messages(self, messages: int, *, began: float, is_said: bool = False) -> None:
        now = time.monotonic()
        if self.habits.note_end(now, messages, began=began, is_said=is_said):
            log.info("messages_a_connection", host=self._host, learnt=messages)
