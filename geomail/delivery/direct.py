"""Direct: the relay `mx`, which is no host of ours but every domain's own.

A recipient's domain has a site (dns/site.py), and each site a route of its own under the name
RELAY/SITE, with one lane for each of its hosts. Mail goes to those preferred most, the least laden
of equals first; to the next ones only when those can't be reached, and not when they are full: a
host of lower preference is there for when others fail (RFC 5321 section 5.1). A route is made when
mail for it comes, and is given back: at once listed no more among those that share the Pool, when
nothing is in hand and no connection is left; forgotten when it was not used for five minutes and
its hosts are well, or when there are too many. So what 100,000 domains with one mail each leave
behind is bounded. Of a forgotten host that was not well its health is kept for an hour, so that it
is left alone no less for having been forgotten.

Each site has lanes of its own, also where it shares a host with another site: deliveries, limits
and a fair share of the Pool are a site's, and two sites with one host of several in common would
wait for each other. Domains of one provider nearly always have all hosts in common, and then they
are one site. What a host thinks of two sites' connections each lane learns by itself.

As a route the relay itself has room as long as few enough sites have work. It takes no mail into a
lane: what can't be looked up at once, as too many domains are already, waits in Redis under its
name, and what a site has no place for waits under the site's. More than 500 of those a second are
met in vain only for what goes to sites that have room.
"""

import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import gevent

from geomail.config import Member, Relay, Settings
from geomail.delivery.delivery import Delivery
from geomail.delivery.dns.cache import Cache
from geomail.delivery.dns.site import Site
from geomail.delivery.dns.sites import Found, Sites
from geomail.delivery.host.health import Health
from geomail.delivery.lane import Lane
from geomail.delivery.ranked import SiteRoute
from geomail.delivery.route import Route
from geomail.delivery.session.terms import Terms, own_name

if TYPE_CHECKING:
    from geomail.delivery.lanes import Lanes

MOST_ROUTES = 2_000  # 7 KB each with two hosts
_HOSTS_TRIED = 4
_MOST_SEARCHES = 256
_FEWEST_SITES = 64
_FORGET_S = 300.0
_TIDY_EVERY_S = 10.0
_MOST_MET = 500
_WORTH_IT, _A_MOMENT_S = 8, 0.05  # a take for an eighth of the sites, or one in a moment
_ENOUGH = 1_000  # no take brings more
_MOST_TROUBLED = 10_000
_TROUBLED_S = 3600.0
_RESERVED = 8  # an eighth more sites and searches are for lists that have few
_SMTP_PORT = 25


class Direct(Route):
    """One relay `mx`: its sites, and the routes to those that mail was for lately."""

    __slots__ = (
        "_asked_at",
        "_closed",
        "_house",
        "_limits",
        "_listed",
        "_met",
        "_met_at",
        "_port",
        "_relay",
        "_settings",
        "_tidy_at",
        "_troubled",
        "routes",
        "searching",
        "searching_of",
        "sites",
    )

    def __init__(
        self, relay: Relay, settings: Settings, house: "Lanes", before: "Direct | None"
    ) -> None:
        """Take over what was learnt `before`, under the settings that were in force then.

        Raises ConfigError where there is no name server to ask.
        """
        super().__init__(relay.name, ())
        self._relay = relay
        self._port = relay.members[0].port
        self._settings = settings
        self._house = house
        self.searching: int = before.searching if before else 0  # domains
        self.searching_of: Counter[str] = before.searching_of if before else Counter()  # by list
        self._limits = relay.limits
        self._tidy_at = self._asked_at = 0.0
        self._met, self._met_at = 0, 0.0
        self.routes: OrderedDict[str, Route] = OrderedDict()
        self._listed: dict[str, Route] = {}
        self._troubled: Cache[Health] = Cache(_MOST_TROUBLED)  # of forgotten hosts
        self._closed: Cache[float] = Cache(_MOST_TROUBLED)  # until when forgotten routes are
        is_as_before = before is not None and before._asks_as(self)
        self.sites: Sites = before.sites if before and is_as_before else self._make_sites()
        if before and before._port == self._port:
            self._take_over(before)

    def _asks_as(self, other: "Direct") -> bool:
        mine, others = (
            (each._port, each._settings.nameservers, own_name(each._relay, each._settings))
            for each in (self, other)
        )
        return mine == others

    def _make_sites(self) -> Sites:
        from geomail.delivery.dns.nameservers import NameServers  # 50 ms, for this relay alone

        return Sites(
            NameServers(self._settings.nameservers),
            ours=[own_name(self._relay, self._settings)],
            is_at_home=self._port != _SMTP_PORT,
        )

    def _take_over(self, before: "Direct") -> None:
        self.is_held, self.routes = before.is_held, before.routes
        self._troubled = before._troubled
        self._listed = {name: each for name, each in before._listed.items() if each.is_in_use}
        for route in self.routes.values():
            for lane in route.lanes:
                lane.terms = lane.ways.terms = self._terms(lane.terms.member.host)
            self._limit(route)

    # ---- as a route

    def room(self, now: float) -> int:
        """Return how many more deliveries may come for sites that are known or not."""
        if self.is_held:
            return 0
        known = _up_to_enough(route.room(now) for route in self._listed.values())
        return known + max(0, min(self._most_sites() - self._taken_up(), self._unmet(now)))

    def room_for(self, name: str, share: float, now: float) -> int:
        """Return how many more of a list may come for sites that are known or not.

        Where others have work for all sites that may be busy, some more may be of a list that has
        few mails ready in all.
        """
        if self.is_held:
            return 0
        known = _up_to_enough(route.room_for(name, share, now) for route in self._listed.values())
        ready = sum(
            lane.ready.waiting(name) for each in self._listed.values() for lane in each.lanes
        )
        most = self._most_sites()
        due = math.ceil(share * most) - ready
        free = most + most // _RESERVED - self._taken_up()
        return known + max(0, min(due, free, self._unmet(now)))

    def refill_for(self, name: str, share: float, now: float) -> int:  # noqa: ARG002 a relay's
        """Return how much of what waits to be looked up may come of a list."""
        return math.ceil(share * self.refill(now))

    def refill(self, now: float) -> int:
        """Return how much of what waits to be looked up may come: not one by one."""
        if self.is_held:
            return 0
        most = self._most_sites()
        free = min(most - self._taken_up(), _MOST_SEARCHES - self.searching)
        if free < most // _WORTH_IT and now < self._asked_at + _A_MOMENT_S:
            return 0
        return max(0, free)

    def opens_in_s(self, now: float) -> float:  # noqa: ARG002 a relay's
        """Return 0: what waits here waits for room alone."""
        return 0.0

    def is_closed(self, now: float) -> bool:  # noqa: ARG002 a relay's
        """Return False: there is always another host."""
        return False

    def hold(self, *, on: bool) -> list[Delivery]:
        """Hold all sites, or let them go on; return the deliveries that have to leave."""
        self.is_held = on
        return [left for route in self.routes.values() for left in route.hold(on=on)]

    def _most_sites(self) -> int:
        return max(_FEWEST_SITES, 2 * self._settings.concurrency)

    def _taken_up(self) -> int:
        """Return how many sites have work, or are likely to when DNS has answered."""
        return self.searching + sum(1 for route in self._listed.values() if route.is_busy)

    # ---- sites

    def begin_search(self, domains: set[str], name: str) -> bool:
        """Return whether these domains of a list's mail may be looked up now: then call `find`."""
        most, few = _MOST_SEARCHES, _MOST_SEARCHES // _RESERVED
        if self._house.has_several_lists and self.searching_of[name] < few:
            most += few  # no list waits for the slow name servers of another's domains
        if self.searching >= most:
            return False
        self._asked_at = time.monotonic()
        self.searching += len(domains)
        self.searching_of[name] += len(domains)
        return True

    def find(self, domains: set[str], name: str) -> dict[str, Found]:
        """Return where a list's mail of each domain goes; waits for DNS."""
        try:
            asked = {domain: gevent.spawn(self.sites.find, domain) for domain in domains}
            gevent.joinall(list(asked.values()))
        finally:
            self._house.searched(self.name, name, len(domains))
        return {domain: each.get() for domain, each in asked.items()}

    def route_to(self, site: Site, now: float) -> Route:
        """Return the route to `site`, made where there is none."""
        name = f"{self.name}/{site.name}"
        route = self.routes.get(name)
        if route is None:
            hosts = site.in_order(random.getrandbits(64))[:_HOSTS_TRIED]
            ranks = [next(r for r, group in enumerate(site.groups) if h in group) for h in hosts]
            route = SiteRoute(name, [self._lane(h) for h in hosts], ranks, relay=self.name)
            self.routes[name] = self._house.routes[name] = route
            self._limit(route)
        if name not in self._listed:
            self._listed[name] = route
            self._house.list_lanes(route)
        route.used_at = now
        self.routes.move_to_end(name)
        return route

    def is_left_alone(self, name: str, now: float) -> bool:
        """Return whether a route that is forgotten is known to be closed."""
        return self._closed.get(name, now) is not None

    def site_of(self, domain: str, answers: Mapping[str, Found]) -> Found | None:
        """Return where a domain's mail goes, by `answers` or what is known; None: DNS has to tell.

        A domain with limits of its own has a site of its own, unless its hosts have the same ones.
        """
        found = answers.get(domain) or self.sites.known(domain)
        if isinstance(found, Site) and (limits := self._limits.of_domain(domain)) is not None:
            return found if limits is self._limits.of_hosts(found.hosts) else found.as_own(domain)
        return found

    def _limit(self, route: Route) -> None:
        site = route.name.partition("/")[2]
        limits = self._limits.of_domain(site[1:]) if site.startswith("@") else None
        hosts = [lane.terms.member.host for lane in route.lanes]
        self._house.limited.apply(route, limits or self._limits.of_hosts(hosts))

    def note_met(self, now: float) -> None:
        """Note that mail was met that its own route has no place for: it goes to Redis again."""
        if now >= self._met_at + 1.0:
            self._met, self._met_at = 0, now
        self._met += 1

    def _unmet(self, now: float) -> int:
        """Return how many more may be met in vain in this second."""
        return _MOST_MET if now >= self._met_at + 1.0 else max(0, _MOST_MET - self._met)

    def tidy(self, now: float) -> None:
        """Give back what is not in use."""
        quiet = [route for route in self._listed.values() if not route.is_in_use]
        if quiet:
            for route in quiet:
                del self._listed[route.name]
            self._house.list_lanes_no_more(quiet)
        if now >= self._tidy_at or len(self.routes) > MOST_ROUTES:
            self._tidy_at = now + _TIDY_EVERY_S
            self._forget(now)

    def _forget(self, now: float) -> None:
        for name, route in list(self.routes.items()):
            has_time = now < route.used_at + _FORGET_S
            if has_time and len(self.routes) <= MOST_ROUTES:
                break
            is_well = all(lane.is_well for lane in route.lanes)
            if name not in self._listed and (is_well or len(self.routes) > MOST_ROUTES):
                if not is_well:
                    self._keep_trouble(route, now)
                del self.routes[name], self._house.routes[name]
                self._house.limited.forget(name)

    def _keep_trouble(self, route: Route, now: float) -> None:
        opens_at = now + route.opens_in_s(now)
        if opens_at > now:
            self._closed.put(route.name, opens_at, opens_at)
        for lane in route.lanes:
            if not lane.is_well:
                until = max(now, lane.opens_at(now)) + _TROUBLED_S
                self._troubled.put(lane.terms.member.host, lane.health, until)

    def _lane(self, host: str) -> Lane:
        lane, now = Lane(self._terms(host), self._house), time.monotonic()
        kept = self._troubled.get(host, now)
        if kept is not None:
            lane.health = kept
            self._house.reopen_later(lane, kept.connects_from - now)  # nobody else looks at it
            self._troubled.drop(host)  # from now on it is this lane's own
        lane.is_warned = True  # nobody is verified here, which is nobody's mistake
        return lane

    def _terms(self, host: str) -> Terms:
        member = Member("mx", host, self._port)
        return Terms(member, self._relay, self._settings, directory=self.sites.addresses)


def _up_to_enough(rooms: Iterable[int]) -> int:
    """Return the sum, or enough for anything: the others of hundreds of sites needn't be asked."""
    total = 0
    for room in rooms:
        total += room
        if total >= _ENOUGH:
            break
    return total
