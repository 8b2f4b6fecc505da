"""What is known about one setting, declared next to its field in `Settings`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "GEOMAIL_"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting, next to its field in Settings."""

    name: str  # in geomail.toml, and GEOMAIL_<NAME>
    field: str  # in Settings
    default: object
    unit: str
    help: str
    flag: str  # empty: has none
    metavar: str
    read: Callable[[object], object]
    is_secret: bool

    @property
    def variable(self) -> str:
        """Return the name of its environment variable."""
        return PREFIX + self.name.upper()


def setting(
    default: Any,
    read: Callable[[object], object],
    help: str,  # noqa: A002 the word that everybody expects here
    *,
    unit: str = "",
    flag: str = "",
    name: str | None = None,
    is_secret: bool = False,
) -> Any:
    known = {"read": read, "help": help, "unit": unit, "name": name, "is_secret": is_secret}
    known["flag"], _, known["metavar"] = flag.partition(" ")
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=known)
    return dataclasses.field(default=default, metadata=known, repr=not is_secret)
