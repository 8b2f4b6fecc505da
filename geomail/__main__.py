"""The one place where gevent patches the standard library, before anything else is imported.

`geomail` and `python -m geomail` both begin here. `--version` and `--help` need no network, so they
answer without gevent, in a few hundredths of a second. The parent of several workers has no use for
it either: whether this process is one, its settings say. What reads them imports no socket, thread
or signal, so the patches of all others still come before anything that they change.
"""

import os
import sys
from collections.abc import Sequence


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

    from gevent.hub import Hub

    Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)  # the command says it, in one line


def main() -> int:
    """Run the command line of this process and return its exit status."""
    from geomail.cli import main as obey

    return obey(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
