"""Hosts that are slow, full, dead or limited, and what they do to others.

    python bench/hosts.py [--part NAME]... [--quick] [and what the parts take, see below]

PARTS
Without --part all of them are run, one after the other, in about MINUTES minutes. --quick makes
each a matter of seconds, to see that it works: those figures are no figures.

The hosts are many_hosts.py, one process that shares its core with Redis; what they count is what
counts. In each trial every mail has its own number, and its books are closed: lost is what neither
arrived nor lies in Redis any more, twice is what arrived again.
"""

import argparse
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import stand
from parts import dead, five, many, rate, sick, urgent


class _Part(NamedTuple):
    run: Callable[[argparse.Namespace], None]
    about: str
    minutes: float


_PARTS = {
    "five": _Part(five.run, five.__doc__, 7),
    "dead": _Part(dead.run, dead.__doc__, 32),
    "urgent": _Part(urgent.run, urgent.__doc__, 2),
    "many": _Part(many.run, many.__doc__, 1),
    "rate": _Part(rate.run, rate.__doc__, 1.5),
    "sick": _Part(sick.run, sick.__doc__, 3),
}
_QUICK = {
    "runs": 1,
    "mails": 30,
    "warm": 1.0,
    "timed": 2.0,
    "bulk": 20_000,
    "connections": 1000,
    "seconds": 5.0,
    "hosts": 50,
}


def main() -> None:
    """Run the parts that were asked for."""
    args = _arguments()
    stand.introduce(**vars(args))
    for name in args.part or _PARTS:
        _PARTS[name].run(args)
        print(flush=True)


def _arguments() -> argparse.Namespace:
    parser = stand.parser(_description())
    parser.add_argument("--part", action="append", choices=tuple(_PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a mail's text")
    parser.add_argument("--runs", type=int, default=3, help="dead, urgent, sick: by turns")
    parser.add_argument("--mails", type=int, default=2000, help="five")
    parser.add_argument("--warm", type=float, default=5.0, help="dead, sick: s before it's timed")
    parser.add_argument("--timed", type=float, default=10.0, help="dead, many, sick: s")
    parser.add_argument("--limit", action="append", choices=dead.LIMITS, help="dead, sick")
    parser.add_argument("--bulk", type=int, default=100_000, help="urgent: mails in front")
    parser.add_argument("--connections", type=int, default=10_000, help="many")
    parser.add_argument("--seconds", type=float, default=60.0, help="rate")
    parser.add_argument("--hosts", type=int, default=500, help="sick")
    parser.add_argument("--through", choices=sick.WAYS, default=sick.WAYS[0], help="sick")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(_QUICK)
    return args


def _description() -> str:
    told = []
    for name, part in _PARTS.items():
        head, _, text = part.about.partition("\n\n")
        told.append(f"    {name:<8}{head}  About {part.minutes:g} min.\n")
        told.append(textwrap.indent(text.strip(), " " * 12) + "\n")
    minutes = sum(part.minutes for part in _PARTS.values())
    assert __doc__ is not None
    return __doc__.replace("PARTS\n", "\n".join(told)).replace("MINUTES", f"{minutes:g}")


if __name__ == "__main__":
    main()
