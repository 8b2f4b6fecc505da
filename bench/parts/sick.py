"""500 hosts of which 50 refuse and 50 are slow, and the rate of the 400 others.

One list, the hosts' mails on it by turns, --concurrency 1000. A healthy host takes two connections
and answers each flight after 200 ms, so that the hosts are the limit (4,000 mails/s) and neither
connections nor the worker's core; with --limit core it takes any number and answers after 100 ms.
A slow one takes 2 s for each reply. By turns, RUNS times, timed for TIMED seconds
from WARM seconds after the first mail on:

    without   the 400 healthy hosts and their mails
    with      the same mails of theirs, and as many a host for the 100 sick ones in between

Both ways Redis's commands are counted by INFO commandstats: all of them, those inside of scripts
too, and the calls of scripts, for each mail that has left the list (delivered, or parked until its
host is well), whatever was taken and put back in between. A host is a relay of its own in
geomail.toml (--through relays), or a domain of its own with the relay `mx` and a name server in
this process (--through mx).
"""

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import cycle

import stand
import redis
from farm import Plan, need_files
from name_server import name_server
from trial import Pace, Trial, aim, trial

WAYS = ("relays", "mx")
_CONCURRENCY = 1000
_WELL = {"host": Plan("", delay_s=0.2, takes=2), "core": Plan("", delay_s=0.1)}
_REFUSES, _SLOW = Plan("", does="refuse"), Plan("", per="reply", delay_s=2.0)
_FASTEST = {"host": 6_000, "core": 24_000}  # mails taken from the list a second
_LEAST, _MOST_COMMANDS = 0.95, 1.05


@dataclass(frozen=True, slots=True)
class _Seen:
    """The healthy hosts' pace; commands and calls of scripts for each mail that left the list."""

    pace: Pace
    commands: float
    scripts: float


def run(args: Namespace) -> None:
    """Run both by turns, and print medians and ratios."""
    need_files(2 * _CONCURRENCY + args.hosts)
    plans = _plans(args)
    trials = {"without": [plan for plan in plans if _is_healthy(plan)], "with": plans}
    seen: dict[str, list[_Seen]] = {name: [] for name in trials}
    for number in range(args.runs):
        for name in trials if number % 2 == 0 else reversed(trials):
            seen[name].append(_trial(name, trials[name], args))
    rate, commands, scripts = {}, {}, {}
    for name, each in seen.items():
        rate[name] = stand.median([one.pace.rate for one in each])
        commands[name] = stand.median([one.commands for one in each])
        scripts[name] = stand.median([one.scripts for one in each])
    ratio, more = rate["with"] / rate["without"], commands["with"] / commands["without"]
    print(f"        {rate['with']:,.0f} of {rate['without']:,.0f} mails/s: {ratio:.3f}", end=" ")
    print(aim("0.95", is_met=ratio >= _LEAST))
    said = aim("1.05 at most", is_met=more <= _MOST_COMMANDS)
    print(f"        {commands['with']:.2f} of {commands['without']:.2f} commands a mail:", end=" ")
    print(f"{more:.3f} {said}; calls of scripts", end=" ")
    print(f"{scripts['with']:.4f} and {scripts['without']:.4f}", flush=True)


def _limit(args: Namespace) -> str:
    return "core" if args.limit == ["core"] else "host"


def _plans(args: Namespace) -> list[Plan]:
    port, well = stand.free_port(), _WELL[_limit(args)]
    ten = (well, well, _REFUSES, well, well, well, well, _SLOW, well, well)
    return [
        replace(kind, name=f"h{n}", address=f"127.2.{n // 250}.{n % 250 + 1}", port=port)
        for n, kind in zip(range(args.hosts), cycle(ten), strict=False)
    ]


def _is_healthy(plan: Plan) -> bool:
    return plan.does == "serve" and plan.per == "flight"


def _trial(name: str, plans: Sequence[Plan], args: Namespace) -> _Seen:
    healthy = [plan.name for plan in plans if _is_healthy(plan)]
    rounds = int(_FASTEST[_limit(args)] * (args.warm + args.timed + 1) / len(healthy)) + 1
    with ExitStack() as stack:
        this = stack.enter_context(trial(plans))
        config = _config(plans, args.through, stack)
        this.push(_mails(plans, rounds, args))
        with this.hire(["--concurrency", _CONCURRENCY], config=config) as worker:
            this.wait_for(lambda: this.farm.mails(healthy) > 0, worker, "for a first mail")
            time.sleep(args.warm)
            before, delivered = _calls(this), this.farm.mails(healthy)
            pace = this.pace(worker, healthy, warm_s=0, timed_s=args.timed)
            after, delivered = _calls(this), this.farm.mails(healthy) - delivered
        books = this.books(is_left_expected=True)
    all_calls, script_calls, left = (b - a for a, b in zip(before, after, strict=True))
    taken = max(1, -left)
    commands, scripts = all_calls / taken, script_calls / taken
    print(f"sick    {name:<8}{pace}; {taken:,} taken, {commands:.2f} commands each,", end=" ")
    print(f"{all_calls / max(1, delivered):.2f} for each delivered; {books}", flush=True)
    return _Seen(pace, commands, scripts)


def _config(plans: Sequence[Plan], through: str, stack: ExitStack) -> str:
    if through == "relays":
        return "".join(
            f'[relay.{plan.name}]\nurl = "smtp://{plan.address}:{plan.port}"\n' for plan in plans
        )
    sites = {_domain(plan): [f"mx.{_domain(plan)}"] for plan in plans}
    addresses = {f"mx.{_domain(plan)}": plan.address for plan in plans}
    asked = stack.enter_context(name_server(sites, addresses))
    return f'nameserver = "{asked}"\n[relay.default]\nurl = "mx:{plans[0].port}"\n'


def _domain(plan: Plan) -> str:
    return f"{plan.name}.example"


def _mails(plans: Sequence[Plan], rounds: int, args: Namespace) -> Iterator[bytes]:
    body, number = stand.text_of(args.size), 0
    for _ in range(rounds):
        for plan in plans:
            if args.through == "relays":
                yield stand.mail(number, body, plan.name)
            else:
                yield stand.mail(number, body, domain=_domain(plan))
            number += 1


def _calls(this: Trial) -> tuple[int, int, int]:
    """Return the commands that Redis has carried out, the calls of scripts, and the list's length.

    What is parked and taken again has left the list once: that is what counts as one mail.
    """
    counts = this.queue.counts()
    with redis.Redis.from_url(this.url) as server:
        stats = server.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}
    return sum(calls.values()), calls.get("evalsha", 0), counts.list + counts.arrive
