"""From outcomes to one record for Redis: what is settled, retried, dead, or split.

    every recipient delivered            Done
    some later, the rest delivered       Retry, for those that are left
    some never, the rest delivered       Dead, for those that are left
    some later and some never            Split: one part retried, one part dead

A message refused for now has its tries counted and comes back by the retry schedule, until its
tries or its days are over. One that the host may have without having said so (unknown) has tries of
its own: sent again with the same bytes and Message-ID, or held for a person, as the settings say.
What a host has asked for in words ("try again in 5 minutes") is waited for, at least. A recipient
whose refusal was the host's trouble, while others were delivered, comes back without a try.
"""

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from geomail.config import Settings
from geomail.delivery.delivery import Delivery
from geomail.delivery.outcome import Fate, Outcome
from geomail.delivery.pace import is_too_old, retry_delay_s
from geomail.delivery.wording import asked_wait_s
from geomail.job import CallTask, HttpTask, Job
from geomail.queue import Dead, Done, JobState, Part, Record, Retry, Slot, Split


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the recipients that were not delivered."""

    later: list[int]
    never: list[int]
    due_in_ms: int
    state: JobState


def record_of(
    delivery: Delivery, outcomes: list[Outcome], *, settings: Settings, now_ms: int, chance: float
) -> Record:
    """Return the record that settles `delivery`; `outcomes` has one for each of its recipients."""
    if all(outcome.fate is Fate.DELIVERED for outcome in outcomes):
        return Done(delivery.slot)
    slot, email = delivery.slot, delivery.email
    verdict = _judged(slot, email, outcomes, settings=settings, now_ms=now_ms, chance=chance)
    later, never, state = verdict.later, verdict.never, verdict.state
    if state.dedupe is not None and any(each.fate is Fate.DELIVERED for each in outcomes):
        state = msgspec.structs.replace(state, reached=True)
    if not never:
        return Retry(delivery.slot, verdict.due_in_ms, _for(delivery, later, state))
    dead = msgspec.structs.replace(
        _for(delivery, never, state), reason=_reason(outcomes[never[0]]), at_ms=now_ms
    )
    if not later:
        return Dead(delivery.slot, dead)
    retried = _for(delivery, later, state)
    return Split(delivery.slot, [Part(retried, ("retry", verdict.due_in_ms)), Part(dead, "dead")])


def record_of_task(
    slot: Slot,
    job: HttpTask | CallTask,
    outcome: Outcome,
    *,
    settings: Settings,
    now_ms: int,
    chance: float,
    asked_s: float = 0.0,
) -> Done | Retry | Dead:
    """Return the record that settles a task.

    `asked_s`: how long its host wants to be left alone.
    """
    if outcome.fate is Fate.DELIVERED:
        return Done(slot)
    verdict = _judged(
        slot, job, [outcome], settings=settings, now_ms=now_ms, chance=chance, at_least_s=asked_s
    )
    if verdict.later:
        return Retry(slot, verdict.due_in_ms, verdict.state)
    reason = _reason(outcome)
    return Dead(slot, msgspec.structs.replace(verdict.state, reason=reason, at_ms=now_ms))


def since_ms(slot: Slot, job: Job) -> int:
    """Return from when a job's age counts: seen, put back by a person, or due by its `send_at`."""
    return max(slot.state.retried_ms or slot.first_seen_ms, job.send_at_ms or 0)


# ---- settled at admission


@lru_cache(maxsize=2000)  # what shares a state is parked together
def parked_state(route: str, error: str | None, *, told: bool = False) -> JobState:
    """Return the state of a job that was parked when it was met first."""
    return JobState(route=route, last=error, told=told)


def dead_state(slot: Slot, reason: str, now_ms: int) -> JobState:
    """Return the state of a job that is dead for a `reason` of its own."""
    return msgspec.structs.replace(slot.state, reason=reason, at_ms=now_ms)


def postponed(slot: Slot, error: Exception, settings: Settings) -> Record:
    """Return the record of a job that a fault of ours met: tried again, and dead in the end."""
    state = msgspec.structs.replace(
        slot.state, tries=slot.state.tries + 1, last=f"internal error: {error!r}"
    )
    if state.tries > settings.retries:
        return Dead(slot, msgspec.structs.replace(state, reason=state.last))
    return Retry(slot, int(settings.retry_base_s * 1000), state)


def _judged(
    slot: Slot,
    job: Job,
    outcomes: list[Outcome],
    *,
    settings: Settings,
    now_ms: int,
    chance: float,
    at_least_s: float = 0.0,
) -> Verdict:
    old = slot.state
    fates = {outcome.fate for outcome in outcomes}
    tries = old.tries + (not fates.isdisjoint({Fate.LATER, Fate.NEVER}))
    unknown = old.unknown + (Fate.UNKNOWN in fates)
    retries = settings.retries if job.retries is None else job.retries
    over = tries > retries or is_too_old(since_ms(slot, job), now_ms, max_age_s=settings.max_age_s)
    held = settings.unknown == "hold" or unknown > settings.unknown_retries
    final = {Fate.NEVER: True, Fate.LATER: over, Fate.UNKNOWN: held or over, Fate.AGAIN: False}
    never = [i for i, o in enumerate(outcomes) if final.get(o.fate, False)]
    later = [i for i, o in enumerate(outcomes) if not final.get(o.fate, True)]
    delay_s = retry_delay_s(
        max(1, tries + unknown),
        base_s=settings.retry_base_s,
        cap_s=settings.retry_cap_s,
        chance=chance,
        at_least_s=max(at_least_s, *(_asked_s(outcomes[position]) for position in later), 0.0),
    )
    last = outcomes[(never or later)[0]].text
    state = msgspec.structs.replace(old, tries=tries, unknown=unknown, last=last)
    return Verdict(later, never, int(delay_s * 1000), state)


def _asked_s(outcome: Outcome) -> float:
    """Return how long the host's own words say to wait; only a 4yz asks."""
    if outcome.code is None or not 400 <= outcome.code < 500:
        return 0.0
    return asked_wait_s(outcome.text) or 0.0


def _for(delivery: Delivery, positions: list[int], state: JobState) -> JobState:
    """Return `state` for the recipients at `positions` alone."""
    if len(positions) == len(delivery.email.recipients):
        return state
    rcpt = [delivery.recipients[position] for position in positions]
    return msgspec.structs.replace(state, rcpt=rcpt)


def _reason(outcome: Outcome) -> str:
    duplicate = "maybe_duplicate: " if outcome.maybe_duplicate else ""
    return f"{duplicate}{outcome.phase}: {outcome.text}"
