"""One host of two that is dead, refuses, is slow or hangs, and the rate of the other.

By turns, RUNS times, each timed for TIMED seconds from WARM seconds after the first mail on:

    mx both, alone, dead    a domain's two hosts of one preference; only the first is named; the
                            second lets connections time out
    alone                   one relay, one host
    relays KIND             a second relay, whose mails lie on the same list, one after each of the
                            healthy one's
    members KIND            a second host of the same relay, named before the healthy one
    weighted KIND           the same with weights = [1, 1]

KIND is `refuse` (no connection), `slow` (2 s a reply), or `hang` (nothing after the content). The
rates are those of the healthy hosts. The limit is `core` (hosts answer at once: it is the worker's
core, and mails of a sick relay cost it the work to park them), `host` (4,000 mails/s a host, over
all connections), or, only with --limit, `pool` (5 ms for each flight: it is --concurrency, of which
two relays with work have their shares).
"""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import stand
from farm import Plan
from name_server import name_server
from trial import Books, Pace, Trial, aim, mails, trial

LIMITS = ("core", "host", "pool")
_CONCURRENCY = 20
_HEALTHY, _OTHER, _SICK = "healthy", "other", "sick"
_PACES = {
    "core": Plan(_HEALTHY),
    "host": Plan(_HEALTHY, per="turn", delay_s=1 / 4000),
    "pool": Plan(_HEALTHY, delay_s=0.005),
}
_FASTEST = {"core": 30_000, "host": 4_200, "pool": 4_500}  # mails/s of one host: more can't be
_KINDS = {
    "refuse": Plan(_SICK, does="refuse"),
    "slow": Plan(_SICK, per="reply", delay_s=2.0),
    "hang": Plan(_SICK, does="hang"),
}
_LEAST = 0.95


@dataclass(frozen=True, slots=True)
class _Case:
    """Who is there, and what the rate is compared with."""

    name: str
    plans: tuple[Plan, ...]
    way: str  # mx, relays, members or weighted
    beside: str = ""
    rates: list[float] = field(default_factory=list)


def run(args: Namespace) -> None:
    """Run all cases of each limit by turns, and print medians and ratios."""
    for limit in args.limit or LIMITS[:2]:
        cases = list(_cases(_PACES[limit]))
        for number in range(args.runs):
            for case in cases if number % 2 == 0 else reversed(cases):
                pace, books = _trial(case, limit, args)
                case.rates.append(pace.rate)
                print(f"dead    {limit:<5}{case.name:<15}{pace}; {books}", flush=True)
        _conclude(limit, cases)


def _cases(healthy: Plan) -> Iterator[_Case]:
    other = replace(healthy, name=_OTHER)
    timing_out = Plan(_SICK, does="time-out")
    yield _Case("mx both", (healthy, other), "mx")
    yield _Case("mx alone", (healthy,), "mx")
    yield _Case("mx dead", (healthy, timing_out), "mx", beside="mx alone")
    yield _Case("alone", (healthy,), "members")
    for way in ("relays", "members", "weighted"):
        for kind, sick in _KINDS.items():
            yield _Case(f"{way} {kind}", (sick, healthy), way, beside="alone")


def _conclude(limit: str, cases: list[_Case]) -> None:
    medians = {case.name: stand.median(case.rates) for case in cases}
    print(f"        medians of {len(cases[0].rates)}, {limit}")
    for case in cases:
        rate = medians[case.name]
        told = f"        {case.name:<15}{rate:>8,.0f} mails/s"
        if case.beside:
            ratio = rate / medians[case.beside]
            told += f"  {ratio:.3f} of {case.beside} {aim('0.95', is_met=ratio >= _LEAST)}"
        print(told, flush=True)


def _trial(case: _Case, limit: str, args: Namespace) -> tuple[Pace, Books]:
    plans, count = case.plans, int(_FASTEST[limit] * (args.warm + args.timed + 1))
    if case.way == "mx":
        port = stand.free_port()
        plans = tuple(
            replace(plan, address=f"127.1.0.{number}", port=port)
            for number, plan in enumerate(plans, 1)
        )
        count *= sum(plan.does == "serve" for plan in plans)
    healthy = [plan.name for plan in plans if plan.name != _SICK]
    with ExitStack() as stack:
        this = stack.enter_context(trial(plans))
        config = _config(case, plans, this, stack)
        _push(this, count, args.size, is_mixed=case.way == "relays")
        with this.hire(["--concurrency", _CONCURRENCY], config=config) as worker:
            pace = this.pace(worker, healthy, warm_s=args.warm, timed_s=args.timed)
        return pace, this.books(is_left_expected=True)


def _config(case: _Case, plans: tuple[Plan, ...], this: Trial, stack: ExitStack) -> str:
    urls = {plan.name: this.farm.url(plan.name) for plan in plans}
    if case.way == "mx":
        addresses = {f"{plan.name}.example": plan.address for plan in plans}
        asked = stack.enter_context(name_server({"example.com": list(addresses)}, addresses))
        return f'nameserver = "{asked}"\n[relay.default]\nurl = "mx:{plans[0].port}"\n'
    if case.way == "relays":
        return f'[relay.default]\nurl = "{urls[_HEALTHY]}"\n[relay.sick]\nurl = "{urls[_SICK]}"\n'
    weights = "weights = [1, 1]\n" if case.way == "weighted" else ""
    return f"[relay.default]\nurl = {list(urls.values())}\n{weights}"


def _push(this: Trial, count: int, size: int, *, is_mixed: bool) -> None:
    if not is_mixed:
        this.push(mails(range(count), size=size))
        return
    healthy = mails(range(count), size=size)
    sick = mails(range(count, 2 * count), size=size, relay=_SICK)
    this.push(each for pair in zip(healthy, sick, strict=True) for each in pair)
