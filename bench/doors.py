"""What the doors take: jobs a second into Redis, from one process that does nothing else.

    python bench/doors.py [--part NAME]... [--quick] [--count N] [--runs 3]

PARTS
The door has a core for itself; its clients, Redis (append-only) and this script share another, so
the clients' own work is part of what is timed, and a rate is the least that the door does. Timed is
from the first byte of a job to the last answer. Counted afterwards is what lies in Redis: more or
less than was acknowledged is an error.
"""

import argparse
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import stand
from parts import door_http, door_smtp, door_tcp


class _Part(NamedTuple):
    run: Callable[[argparse.Namespace], None]
    about: str


_PARTS = {
    "tcp": _Part(door_tcp.run, str(door_tcp.__doc__)),
    "http": _Part(door_http.run, str(door_http.__doc__)),
    "smtp": _Part(door_smtp.run, str(door_smtp.__doc__)),
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
    parser.add_argument("--quick", action="store_true", help="seconds, and no figures")
    parser.add_argument("--count", type=int, default=50_000, help="jobs in each run")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is said")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a mail's text")
    args = parser.parse_args()
    if args.quick:
        args.count, args.runs = 2_000, 1
    return args


def _description() -> str:
    told = []
    for name, part in _PARTS.items():
        head, _, text = part.about.partition("\n\n")
        told.append(f"    {name:<8}{head}\n")
        told.append(textwrap.indent(text.strip(), " " * 12) + "\n")
    return str(__doc__).replace("PARTS\n", "\n".join(told))


if __name__ == "__main__":
    main()
