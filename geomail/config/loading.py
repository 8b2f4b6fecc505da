"""Where the values of settings come from: flags, variables, the file, defaults."""

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomail import relays, spelling
from geomail.config.commands import read_commands
from geomail.config.setting import PREFIX, Setting
from geomail.config.settings import BY_NAME, SETTINGS, Settings, default_data_dir
from geomail.errors import ConfigError

PLACES = (Path("geomail.toml"), Path("/etc/geomail/geomail.toml"))
CHILD_VARIABLE = "GEOMAIL_PROCESS"
"""What a parent of several workers says to each: its number, and the parent's pid."""
_TABLES = ("relay", "route", "task")
# the file's place, what scripts/ read, and what a parent tells its children
_ALSO_OURS = ("GEOMAIL_CONFIG", "GEOMAIL_VENV", CHILD_VARIABLE)


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], *, places: Sequence[Path] = PLACES
) -> Settings:
    """Return the settings that `flags` (as docopt gives them), variables and file make together.

    A flag that is None, False or [] was not given. Raises ConfigError.
    """
    return _Source(flags=flags, environ=environ, places=places).load()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    flags: Mapping[str, object] = dataclasses.field(repr=False)
    environ: Mapping[str, str] = dataclasses.field(repr=False)
    places: Sequence[Path]

    def load(self) -> Settings:
        place = self._file()
        table = _read(place) if place else {}
        values = self._values(table, str(place))
        warnings: list[str] = []
        _check_variables(self.environ, warnings)
        reader = relays.Reader(environ=self.environ, place=str(place), warnings=warnings)
        values["process"], values["parent"] = _place(self.environ)
        values["relays"] = reader.read(table.get("relay", {}), _listed(self.flags.get("--relay")))
        values["routing"] = relays.read_routing(
            table.get("route", []), relays=values["relays"], place=str(place)
        )
        values["commands"] = read_commands(table.get("task", {}), place=str(place))
        return _checked(Settings(**values, warnings=tuple(warnings), _source=self))

    def _file(self) -> Path | None:
        named = self.flags.get("--config") or self.environ.get("GEOMAIL_CONFIG")
        if named:
            return Path(str(named))
        return next((place for place in self.places if place.exists()), None)

    def _values(self, table: Mapping[str, object], place: str) -> dict[str, Any]:
        _refuse_unknown(table, place)
        values: dict[str, Any] = {"data": default_data_dir(self.environ)}
        for setting in SETTINGS:
            for origin, value in self._given(setting, table, place):
                values[setting.field] = _value(setting, origin, value)
                break
        return values

    def _given(
        self, setting: Setting, table: Mapping[str, object], place: str
    ) -> Iterator[tuple[str, object]]:
        flag = self.flags.get(setting.flag)
        if flag is not None and flag is not False and flag != []:
            yield setting.flag, flag
        if self.environ.get(setting.variable):
            yield setting.variable, self.environ[setting.variable]
        if setting.name in table:
            yield f"{setting.name} in {place}", table[setting.name]


def require_relays(settings: Settings) -> None:
    """Raise ConfigError that says what to do, unless there is a relay, or tasks are to be done.

    Each login is whole, and the files that relays name are there and usable.
    """
    if not settings.relays and not settings.has_tasks:
        raise ConfigError(
            "no relay to send to: pass --relay smtp://HOST:25 (or smtps://USER@HOST with"
            " GEOMAIL_RELAY_PASSWORD set), or set GEOMAIL_RELAY, or [relay.default] in geomail.toml"
        )
    for relay in settings.relays.values():
        for member in relay.members:
            if member.user and member.password is None and relay.token_file is None:
                raise ConfigError(
                    f"relay {relay.name}: no password for the login at {member.host}:"
                    f" set {relays.password_variable(relay.name)}"
                )
        relays.check_files(relay)


def _value(setting: Setting, origin: str, value: object) -> object:
    try:
        return setting.read(value)
    except ValueError as error:
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        shown = "" if setting.is_secret else f", not {one!r}"
        raise ConfigError(f"{origin} must be {error}{shown}") from None


def _read(place: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(place.read_text("utf-8-sig"))  # Windows' editors put a mark in front
    except OSError as error:
        raise ConfigError(f"can't read {place}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{place} is not TOML: nested too deep") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{place} is not UTF-8 text: save it as such") from None
    except ValueError as error:  # not TOML, or a number of thousands of digits
        raise ConfigError(f"{place} is not TOML: {error}") from None


def _refuse_unknown(table: Mapping[str, object], place: str) -> None:
    for name in table:
        if name not in BY_NAME and name not in _TABLES:
            hint = spelling.hint(name, [*BY_NAME, *_TABLES])
            if any(name == key.name for key in relays.KEYS):
                hint = ": it belongs into [relay.NAME]"
            raise ConfigError(f"unknown setting {name!r} in {place}{hint}")


def _check_variables(environ: Mapping[str, str], warnings: list[str]) -> None:
    # A far-off name is no error: Kubernetes gives every pod GEOMAIL_SERVICE_HOST and its like.
    known = [setting.variable for setting in SETTINGS] + [*_ALSO_OURS, *relays.VARIABLES]
    endings = [name.removeprefix(PREFIX) for name in known]
    for name in environ:
        if not name.startswith(PREFIX) or name in known or relays.is_password_variable(name):
            continue
        if meant := spelling.nearest(name.removeprefix(PREFIX), endings, likeness=0.8):
            raise ConfigError(f"unknown variable {name}: did you mean {PREFIX}{meant}?")
        warnings.append(f"the variable {name} means nothing here")


def _place(environ: Mapping[str, str]) -> tuple[int, int]:
    number, _, parent = (environ.get(CHILD_VARIABLE) or "0/0").partition("/")
    if not number.isdigit() or not parent.isdigit():
        raise ConfigError(
            f"{CHILD_VARIABLE} is what geomail tells its workers: did you mean {PREFIX}PROCESSES?"
        )
    return int(number), int(parent)


def _checked(settings: Settings) -> Settings:
    if settings.beat_s * 2 > settings.lease_s:
        raise ConfigError(
            f"lease_s ({settings.lease_s:g}) must be at least twice beat_s ({settings.beat_s:g})"
        )
    for base, cap in (("retry_base_s", "retry_cap_s"), ("backoff_base_s", "backoff_cap_s")):
        if getattr(settings, base) > getattr(settings, cap):
            raise ConfigError(f"{base} must not be greater than {cap}")
    return settings


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []
