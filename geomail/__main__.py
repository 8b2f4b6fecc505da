"""The one place where gevent patches the standard library, before anything else is imported.

`geomail` and `python -m geomail` both begin here. `--version` and `--help` need no network, so they
answer without gevent, in a few hundredths of a second. The parent of several workers has no use for
it either: whether this process is one, its settings say. What reads them imports no socket, thread
or signal, so the patches of all others still come before anything that they change.

Ctrl-C ends a command from here on, in one line, in the middle of an import too: an exception would
be a traceback there. It ends by the signal itself, which a shell calls status 130, so that a loop
in a script ends as well. Who has something to tidy up takes the signal himself.
"""

import _signal  # type: ignore[import-not-found]  # the C module, which nobody patches
import os
import sys
from collections.abc import Sequence


def _leave(number: int, _frame: object) -> None:
    try:
        os.write(2, b"geomail: interrupted\n")
    finally:
        _signal.signal(number, _signal.SIG_DFL)
        _signal.raise_signal(number)


# Not where it is ignored: a shell says so to what it runs in the background.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _leave)
for _name in ("stdin", "stdout", "stderr"):
    if getattr(sys, _name) is None:  # closed: else the next file or socket would get its number
        setattr(sys, _name, open(os.devnull, "r+"))  # noqa: SIM115, PTH123 - for ever


def _is_parent(argv: Sequence[str]) -> bool:
    if "run" not in argv:
        return False
    from geomail import config, usage
    from geomail.errors import ConfigError

    try:
        given = usage.read(argv)
        return bool(given["run"]) and config.load(given, os.environ).is_for_parent
    except ConfigError:  # the command itself will say it
        return False


if not {"--help", "-h", "--version"}.intersection(sys.argv[1:]) and not _is_parent(sys.argv[1:]):
    from gevent import monkey

    monkey.patch_all()


def main() -> int:
    """Run the command line of this process and return its exit status."""
    from geomail.cli import main as obey

    return obey(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
