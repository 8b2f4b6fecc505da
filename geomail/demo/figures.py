"""What became of the mails of the demo: what arrived, compared with what was pushed.

Pure arithmetic on two lists of times. A mail is known by its recipient, `kind+number@…`: the
backlog and the single ones are numbered from 0 each, in the order in which they were pushed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BACKLOG, SINGLE = "demo", "single"
_First = Mapping[tuple[str, int], float]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from LPUSH to 250 that half, and 99 of 100, of the mails stayed within."""

    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What arrived, compared with what was pushed; `rate` is in mails a second."""

    pushed: int
    delivered: int
    twice: int
    rate: float | None
    backlog: Times | None
    single: Times | None

    @property
    def lost(self) -> int:
        """Mails that were pushed and did not arrive."""
        return self.pushed - self.delivered


def compare(
    backlog: Sequence[float], singles: Sequence[float], arrivals: Sequence[tuple[float, str]]
) -> Figures:
    """Return the figures of a run, from the times of the pushes and what arrived when for whom."""
    seen: Counter[tuple[str, int]] = Counter()
    first_at: dict[tuple[str, int], float] = {}
    for at, recipient in arrivals:
        kind, _, number = recipient.partition("@")[0].partition("+")
        mail = kind, int(number)
        seen[mail] += 1
        first_at.setdefault(mail, at)
    burst = sorted(at for (kind, _), at in first_at.items() if kind == BACKLOG)
    lasted_s = burst[-1] - burst[0] if burst else 0.0
    return Figures(
        pushed=len(backlog) + len(singles),
        delivered=len(seen),
        twice=sum(1 for times in seen.values() if times > 1),
        rate=len(burst) / lasted_s if lasted_s > 0 else None,
        backlog=_times(BACKLOG, backlog, first_at),
        single=_times(SINGLE, singles, first_at),
    )


def _times(kind: str, pushed_at: Sequence[float], first_at: _First) -> Times | None:
    numbered = enumerate(pushed_at)
    took = sorted(first_at[kind, n] - at for n, at in numbered if (kind, n) in first_at)
    if not took:
        return None
    return Times(took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)])
