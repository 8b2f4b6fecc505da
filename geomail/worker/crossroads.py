"""The crossroads: mails whose way takes more than a look at their relay's name.

Those whose recipients part, to several relays by [[route]] or to several sites of a relay `mx`, are
split in Redis, one part a place (sorting.py says who goes where). Those to one site get its route.
Where DNS has to be asked first, a mail waits for the answer beside all others (searches.py), and
comes by once more with it; where too much is asked already, it is parked.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from geomail import log, metrics
from geomail.config import Settings
from geomail.delivery.delivery import Delivery
from geomail.delivery.direct import Direct
from geomail.delivery.dns.site import Unroutable
from geomail.delivery.dns.sites import Found
from geomail.delivery.lanes import Lanes
from geomail.delivery.route import Route
from geomail.job import Job
from geomail.queue import Dead, Queue, Record, Retry, Slot
from geomail.worker.clock import RedisClock
from geomail.worker.searches import Searches
from geomail.worker.signpost import Signpost
from geomail.worker.sorting import Place, Sorted, Where, place, record_of_sorted, sort

Answers: TypeAlias = Mapping[str, Found]  # of DNS, by domain


class Crossroads:
    """Where a mail goes, and what becomes of one that goes to several places, or has to wait."""

    def __init__(
        self,
        settings: Settings,
        *,
        lanes: Lanes,
        clock: RedisClock,
        settle: Callable[[Queue, Record, Job], None],
        park: Callable[[Queue, Slot, str, float], None],
        found: Callable[[Delivery, Answers | Exception], None],
    ) -> None:
        """`settle` and `park` take what ends here, `found` what comes back from DNS."""
        self.settings = settings
        self._lanes = lanes
        self._clock = clock
        self._settle = settle
        self._park = park
        self._found = found
        self._searches = Searches(lanes)

    def divide(self, delivery: Delivery, answers: Answers, signpost: Signpost) -> None:
        """Split a job whose recipients go to several relays, or ask DNS for it first."""
        sender_domain = signpost.sender_domain(delivery.email)
        asking: dict[Direct, set[str]] = {}

        def look(domain: str) -> Where | None:
            relay = signpost.relay_of(domain, sender_domain)
            direct = self._lanes.directs.get(relay)
            if direct is None or direct.is_held:
                return Place(relay)
            known = place(relay, direct.site_of(domain, answers))
            if known is None:
                asking.setdefault(direct, set()).add(domain)
            return known

        found, _ = sort(delivery.recipients, look, redirect_to=self.settings.redirect_to)
        for direct, domains in asking.items():
            self._ask(direct, delivery, domains, answers, time.monotonic())
            return
        self._settle_sorted(delivery, found)

    def one_site(
        self, direct: Direct, delivery: Delivery, answers: Answers, now: float
    ) -> Route | None:
        """Return the route to the one site of all recipients.

        None: there are several or none, which is settled, or DNS has to be asked first.
        """
        if direct.is_held:
            self._park(delivery.queue, delivery.slot, direct.name, now)
            return None
        found, unknown = sort(
            delivery.recipients,
            lambda domain: place(direct.name, direct.site_of(domain, answers)),
            redirect_to=self.settings.redirect_to,
        )
        if unknown:
            self._ask(direct, delivery, unknown, answers, now)
            return None
        where = next(iter(found))
        if len(found) == 1 and isinstance(where, Place) and where.site is not None:
            return direct.route_to(where.site, now)
        self._settle_sorted(delivery, found)
        return None

    def stop(self) -> list[tuple[Queue, Slot]]:
        """Wait for DNS no more; return what has waited."""
        return self._searches.stop()

    def _settle_sorted(self, delivery: Delivery, found: Sorted) -> None:
        record = record_of_sorted(
            delivery,
            found,
            settings=self.settings,
            now_ms=self._clock.now_ms(),
            chance=self._lanes.chance(),
        )
        _tell(delivery, found, record)
        self._settle(delivery.queue, record, delivery.email)

    def _ask(
        self, direct: Direct, delivery: Delivery, domains: set[str], answers: Answers, now: float
    ) -> None:
        then = partial(self._come_by_again, delivery, answers)
        if not self._searches.begin(direct, delivery, domains, then):
            direct.note_met(now)
            self._park(delivery.queue, delivery.slot, direct.name, now)

    def _come_by_again(
        self, delivery: Delivery, answers: Answers, found: dict[str, Found] | Exception
    ) -> None:
        known = found if isinstance(found, Exception) else {**answers, **found}
        self._found(delivery, known)


def _tell(delivery: Delivery, found: Sorted, record: Record) -> None:
    """Log and count what is settled by where mail goes."""
    what = {Retry: "deferred", Dead: "dead"}.get(type(record), "split")
    metrics.count(what)
    refused = [str(where) for where in found if isinstance(where, Unroutable)]
    if refused:
        again_in_s = record.due_in_ms / 1000 if isinstance(record, Retry) else None
        log.info(what, id=delivery.slot.id, phase="dns", why=refused[0], again_in_s=again_in_s)
