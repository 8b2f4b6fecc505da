"""The one place where gevent patches the standard library, before anything else is imported.

`geomail` and `python -m geomail` both begin here. `--version` and `--help` need no network, so they
answer without gevent, in a few hundredths of a second.
"""

import sys

if not {"--help", "-h", "--version"}.intersection(sys.argv[1:]):
    from gevent import monkey

    monkey.patch_all()


def main() -> int:
    """Run the command line of this process and return its exit status."""
    from geomail.cli import main as obey

    return obey(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
