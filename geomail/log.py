"""Log lines: `event key=value …`, on top of the standard library's logger named `geomail`.

One function a level; the event's name is a plain word, the fields follow in the order given, so
the job's id or the host comes first. Values with spaces, quotes or control characters are quoted
and escaped, so that no reply of a server can forge a line. Nothing is rendered below the level in
force.
"""

import json
import logging
import sys
import time

_logger = logging.getLogger("geomail")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+<>[],{}*%")


def debug(event: str, **fields: object) -> None:
    """Log what only somebody who looks for a fault wants to read."""
    _log(logging.DEBUG, event, fields)


def info(event: str, **fields: object) -> None:
    """Log a step of the normal life."""
    _log(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """Log what a person should look at some time."""
    _log(logging.WARNING, event, fields)


def error(event: str, **fields: object) -> None:
    """Log what a person should look at now."""
    _log(logging.ERROR, event, fields)


def to_stderr(*, verbose: bool) -> None:
    """Send log lines to standard error, from INFO up, or from DEBUG up when `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _logger.handlers[:] = [handler]
    _logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    _logger.propagate = False


def render(event: str, fields: dict[str, object]) -> str:
    """Return one line: the event's name, then `key=value` for each field that is not None."""
    parts = [event]
    parts += [f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None]
    return " ".join(parts)


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=True)


def _log(level: int, event: str, fields: dict[str, object]) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", render(event, fields))
