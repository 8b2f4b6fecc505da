"""A host that takes five connections, and twenty are allowed.

The host's sixth connection hears 421 and is closed; each mail takes it 1 s on its connection, so
the bound is 5 mails/s. Wasted are the attempts that failed: connections that were refused, of those
and the mails together.
"""

from argparse import Namespace

from farm import Plan
from trial import aim, mails, trial

_TAKES, _MAIL_S, _CONCURRENCY = 5, 1.0, 20
_MOST_WASTED, _LEAST_OF_BOUND = 0.02, 0.95
_SLOWEST = 5.0  # times as long as the bound: nobody waits for more


def run(args: Namespace) -> None:
    """Deliver MAILS to it, and print what was wasted and how fast it went."""
    count, bound = args.mails, _TAKES / _MAIL_S
    with trial([Plan("five", per="mail", delay_s=_MAIL_S, takes=_TAKES)]) as this:
        this.push(mails(range(count), size=args.size))
        flags = ["--relay", this.farm.url("five"), "--concurrency", _CONCURRENCY]
        with this.hire(flags) as worker:
            arrivals = this.arrived(count, worker, within_s=30 + _SLOWEST * count / bound)
        books, seen = this.books(), this.farm.counts()["five"]
    # Of five at once, the first was begun a mail's time before it was answered.
    rate = len(arrivals) / (arrivals[-1].at_s - arrivals[0].at_s + _MAIL_S)
    attempts = seen.refused + len(arrivals)
    wasted = seen.refused / attempts
    print(f"five    {seen.refused:,} of {attempts:,} attempts refused: {wasted:.1%}", end=" ")
    print(aim("2 % at most", is_met=wasted <= _MOST_WASTED))
    print(f"        {rate:.2f} mails/s, {rate / bound:.3f} of {bound:.0f}/s", end=" ")
    print(aim("0.95", is_met=rate >= _LEAST_OF_BOUND * bound))
    print(f"        {seen.peak} connections at most; {books}", flush=True)
