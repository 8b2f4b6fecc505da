"""Sorting: who of a job's recipients goes where, when they may have to be told apart.

all to one place                       one delivery
to several relays, or sites of `mx`    split in Redis once: a part for each place, sent on its own
a domain that takes no mail ever       dead, with what DNS has answered
a domain not found out for now         a try, and the retry schedule, for those recipients

Each recipient is in exactly one part, and a part that is done is never sent again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from geomail.config import Settings
from geomail.delivery.delivery import Delivery
from geomail.delivery.dns.site import Site, Unroutable, mail_domain
from geomail.delivery.dns.sites import Found
from geomail.delivery.outcome import Blame, Fate, Outcome
from geomail.queue import Dead, Part, Record, Retry, Slot, Split
from geomail.worker.settlement import record_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where mail goes: to a relay, or one site of a relay `mx`."""

    relay: str
    site: Site | None = None


Where = Place | Unroutable
Look = Callable[[str], Where | None]
Sorted = Mapping[Where, Sequence[str]]


def place(relay: str, found: Found | None) -> Where | None:
    """Return what was found out about a domain as a place of the relay `mx`."""
    return Place(relay, found) if isinstance(found, Site) else found


def sort(
    recipients: Sequence[str], look: Look, *, redirect_to: str | None
) -> tuple[Sorted, set[str]]:
    """Return the recipients by where their mail goes, and the domains that `look` knows nothing of.

    `redirect_to`: to whom everything goes instead.
    """
    by_domain: dict[str | Unroutable, list[str]] = {}
    for recipient in recipients:
        by_domain.setdefault(mail_domain(redirect_to or recipient), []).append(recipient)
    found: dict[Where, list[str]] = {}
    unknown: set[str] = set()
    for domain, theirs in by_domain.items():
        where = look(domain) if isinstance(domain, str) else domain
        if where is not None:
            found.setdefault(where, []).extend(theirs)
        elif isinstance(domain, str):
            unknown.add(domain)
    return found, unknown


def record_of_sorted(
    delivery: Delivery, found: Sorted, *, settings: Settings, now_ms: int, chance: float
) -> Record:
    """Return the record of a job whose recipients don't all go to one place."""
    parts = [
        part
        for where, recipients in found.items()
        if isinstance(where, Place)
        for part in parts_of(delivery.slot, recipients, settings.max_recipients)
    ]
    refused = _refused(found)
    if not refused:
        return Split(delivery.slot, parts)
    delivery.recipients = [recipient for recipient, _ in refused]
    outcomes = [outcome for _, outcome in refused]
    record = record_of(delivery, outcomes, settings=settings, now_ms=now_ms, chance=chance)
    return Split(delivery.slot, [*parts, *_as_parts(record)]) if parts else record


def parts_of(slot: Slot, recipients: Sequence[str], most: int) -> list[Part]:
    """Return parts of `most` recipients each, to be sent at once."""
    return [
        Part(msgspec.structs.replace(slot.state, rcpt=list(recipients[i : i + most])), "slot")
        for i in range(0, len(recipients), most)
    ]


def _refused(found: Sorted) -> list[tuple[str, Outcome]]:
    return [
        (recipient, _outcome(where))
        for where, recipients in found.items()
        if isinstance(where, Unroutable)
        for recipient in recipients
    ]


def _outcome(where: Unroutable) -> Outcome:
    fate = Fate.NEVER if where.is_permanent else Fate.LATER
    return Outcome(fate, Blame.MESSAGE, "dns", str(where))


def _as_parts(record: Record) -> list[Part]:
    match record:
        case Retry():
            return [Part(record.state, ("retry", record.due_in_ms))]
        case Dead():
            return [Part(record.state, "dead")]
        case Split():
            return record.parts
    raise TypeError(f"a refusal makes no {type(record).__name__}")
