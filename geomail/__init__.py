"""geomail takes mail jobs from a Redis list, delivers them by SMTP, very fast, and loses none.

The public names live here and come from their rooms when they are first asked for: importing
geomail imports nothing else, so that a producer which only wants an exception's name never pays
for gevent.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_ROOM_OF = {
    "Client": "geomail.client",
    "ConfigError": "geomail.errors",
    "GeomailError": "geomail.errors",
    "NotAllSent": "geomail.errors",
    "GiveUp": "geomail.tasks",
    "PayloadError": "geomail.errors",
    "RedisAway": "geomail.errors",
    "RedisUnusable": "geomail.errors",
    "attachment": "geomail.client",
    "task": "geomail.tasks",
}

if TYPE_CHECKING:
    from geomail.client import Client as Client
    from geomail.client import attachment as attachment
    from geomail.errors import ConfigError as ConfigError
    from geomail.errors import GeomailError as GeomailError
    from geomail.errors import NotAllSent as NotAllSent
    from geomail.errors import PayloadError as PayloadError
    from geomail.errors import RedisAway as RedisAway
    from geomail.errors import RedisUnusable as RedisUnusable
    from geomail.tasks import GiveUp as GiveUp
    from geomail.tasks import task as task
else:

    def __getattr__(name):
        if name not in _ROOM_OF:
            raise AttributeError(f"module 'geomail' has no attribute {name!r}")
        return getattr(import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF})
