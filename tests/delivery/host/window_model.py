"""A host that takes so many connections, in imagined time, and a lane that has one window to it."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from geomail.delivery.host.window import Window

_CONNECT_S = 0.0005
_PAUSE_S = 0.25


@dataclass
class Run:
    """What came of it."""

    wasted: int = 0
    mails: int = 0
    full_at_s: float = inf
    live: int = 0
    senders: int = 0
    accepted: int = 0
    proved: int = 0
    pause_until: float = 0.0
    events: list[tuple[float, int, str, float]] = field(default_factory=list)
    count: int = 0

    def later(self, at: float, what: str, began: float) -> None:
        """Let something happen."""
        self.count += 1
        heappush(self.events, (at, self.count, what, began))


def serve(window: Window, *, takes: int, answer_s: float, mail_s: float, for_s: float) -> Run:
    """Send for so long, with work for all: each answer takes `answer_s`, each mail `mail_s`."""
    run, now = Run(), 0.0
    run.later(0.0, "staff", 0.0)
    while now <= for_s:
        now, _, what, began = heappop(run.events)
        if what == "connect" and run.accepted >= takes:
            _refuse(run, window, now, began)
        elif what == "connect":
            run.accepted += 1
            run.later(now + answer_s, "open", began)
        elif what == "open":
            run.live += 1
            if run.live == min(takes, window.most):
                run.full_at_s = min(run.full_at_s, now)
            run.later(now + answer_s + mail_s, "first", began)
        elif what in {"first", "mail"}:
            run.mails += 1
            run.proved += what == "first"
            if what == "first":
                window.prove(run.proved)
            window.confirm()
            if run.senders >= window.size and now >= window.rests_until:
                window.grow(now, run.live)
            run.later(now + mail_s, "mail", began)
        _staff(run, window, now)
    return run


def _refuse(run: Run, window: Window, now: float, began: float) -> None:
    run.wasted += 1
    run.senders -= 1
    run.pause_until = now + _PAUSE_S
    run.later(run.pause_until, "staff", now)
    if run.proved:
        window.refused(now, run.proved, began=began)
    else:
        window.shrink(now)


def _staff(run: Run, window: Window, now: float) -> None:
    while run.senders < window.size and now >= run.pause_until:
        run.senders += 1
        run.later(now + _CONNECT_S, "connect", now)
