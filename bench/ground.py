"""What every bench stands on: geomail and what it needs, or one line that says how to have it.

Imported first, and for that only. What a peer needs is no part of it (peers/).
"""

from importlib.util import find_spec

_NEEDED = ("geomail", "gevent", "redis")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise SystemExit(
        f"not installed here: {', '.join(_missing)}. Run it as `scripts/bench NAME`, which makes "
        "an environment, or first `pip install -e '.[embedded,test]'`"
    )
