"""A relay that is limited to 100 mails a second by us, and four workers on it.

The host takes all at once, and notes the time of each mail. The rate is that of a minute, which
begins 2 s after the first mail; the burst is the most that came within any one second, from the
first mail on.
"""

from argparse import Namespace
from collections.abc import Sequence

from farm import Plan
from trial import aim, mails, trial

_LIMIT, _WORKERS = 100.0, 4
_WARM_S, _SPARE = 2.0, 1.2
_LEAST, _MOST, _MOST_AT_ONCE = 99.0, 100.5, 110


def run(args: Namespace) -> None:
    """Deliver for SECONDS, and print rate and burst."""
    with trial([Plan("limited")]) as this:
        count = int(_SPARE * _LIMIT * (args.seconds + _WARM_S))
        wanted = int(_LIMIT * (args.seconds + 2 * _WARM_S))
        this.push(mails(range(count), size=args.size))
        config = f'[relay.default]\nurl = "{this.farm.url("limited")}"\nrate = "{_LIMIT:.0f}/s"\n'
        with this.hire(["--processes", _WORKERS], config=config) as worker:
            arrivals = this.arrived(wanted, worker, within_s=2 * args.seconds + 30)
        books = this.books(is_left_expected=True)
    times = [arrival.at_s for arrival in arrivals]
    begin_s = times[0] + _WARM_S
    rate = sum(begin_s <= at_s < begin_s + args.seconds for at_s in times) / args.seconds
    burst = most_within(times, 1.0)
    print(f"rate    {rate:.2f} mails/s over {args.seconds:.0f} s", end=" ")
    print(aim("99 to 100.5", is_met=_LEAST <= rate <= _MOST))
    print(f"        {burst} in the worst second", end=" ")
    print(aim("110 at most", is_met=burst <= _MOST_AT_ONCE), end=" ")
    print(f"{most_within(times, 0.1)} in the worst 0.1 s; {books}", flush=True)


def most_within(times: Sequence[float], span_s: float) -> int:
    """Return how many of these times lie in the worst span of `span_s`."""
    most = first = 0
    for last, at_s in enumerate(times):
        while times[first] <= at_s - span_s:
            first += 1
        most = max(most, last - first + 1)
    return most
