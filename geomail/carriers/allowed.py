"""What tasks are allowed to do, as `geomail check` shows it: where requests may go, and what may be
called.

Nothing is asked or called for it; the modules of tasks are imported, as they are for a worker.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from geomail.config import Settings


def looks(settings: Settings) -> Iterator[tuple[str, Callable[[], Sequence[str]]]]:
    """Return what to show, each with who tells the lines; that may raise ConfigError."""
    if settings.url_hosts:
        yield "requests", partial(_where, settings)
    if settings.has_calls:
        from geomail.carriers.calls import may_be_called

        yield "calls", partial(may_be_called, settings)


def _where(settings: Settings) -> list[str]:
    lines = [f"hosts: {', '.join(settings.url_hosts)}"]
    if settings.url_networks:
        lines.append(f"networks that are not public: {', '.join(map(str, settings.url_networks))}")
    signed = "signed" if settings.callback_secret else "unsigned: set callback_secret"
    return [*lines, f"callbacks: {signed}"]
