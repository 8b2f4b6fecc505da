"""Every setting of geomail, once: type, default, unit, help, flag; and where its value comes from.

The fields of `Settings` are the one truth. From them derive the names in geomail.toml, the
variables GEOMAIL_<NAME>, what a flag means, and the table in the README. A flag goes over a
variable, that over the file (`--config`, else ./geomail.toml, else /etc/geomail/geomail.toml), that
over the default. What can't be used raises ConfigError: one line that names the place and what is
allowed there, for an unknown name the nearest one. What relays and routes are, geomail.relays
knows.

A password never stands in a message, nor in the repr of anything. Nothing here opens a connection.
"""

import dataclasses
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomail import relays, spelling
from geomail.errors import ConfigError
from geomail.relays import Member, Relay, Routing, parse_relay_url
from geomail.values import (
    helo_name,
    mail_address,
    name_servers,
    one_of,
    seconds,
    switch,
    text,
    whole,
)

__all__ = ["SETTINGS", "Member", "Relay", "Settings", "load", "parse_relay_url", "settings_table"]

PLACES = (Path("geomail.toml"), Path("/etc/geomail/geomail.toml"))
_PREFIX = "GEOMAIL_"
CHILD_VARIABLE = "GEOMAIL_PROCESS"
"""What a parent of several workers says to each: its number, and the parent's pid."""
# the file's place, what scripts/ read, and what a parent tells its children
_ALSO_OURS = ("GEOMAIL_CONFIG", "GEOMAIL_VENV", CHILD_VARIABLE)


def _queues(value: object) -> tuple[tuple[str, int], ...]:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        raise ValueError("NAME or NAME=WEIGHT, or a list of them")
    found = dict(_queue(name) for name in names)
    if len(found) < len(names):
        raise ValueError("a list in which each queue stands once")
    return tuple(found.items())


def _queue(value: object) -> tuple[str, int]:
    name, is_weighted, weight = str(value).rpartition("=")
    if not is_weighted:
        name, weight = str(value), "1"
    if not isinstance(value, str) or not name.strip() or not name.isprintable():
        raise ValueError("NAME or NAME=WEIGHT, or a list of them")
    if not weight.isascii() or not weight.isdigit() or not 1 <= int(weight) <= 1000:
        raise ValueError("NAME or NAME=WEIGHT with a weight from 1 to 1000")
    return name, int(weight)


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
        return _PREFIX + self.name.upper()


def _setting(
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


def default_data_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Return the data folder of a system service for root, else the user's own."""
    if os.geteuid() == 0:
        return "/var/lib/geomail"
    home = environ.get("HOME") or str(Path.home())
    return f"{environ.get('XDG_STATE_HOME') or home + '/.local/state'}/geomail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process, checked."""

    concurrency: int = _setting(
        20, whole(1, 10_000), "connections at a time, over all hosts", flag="--concurrency N"
    )
    processes: int = _setting(
        1, whole(1, 256), "worker processes, kept alive by a parent", flag="--processes N"
    )
    queues: tuple[tuple[str, int], ...] = _setting(
        (("queue:email", 1),),
        _queues,
        "Redis lists to take jobs from, each NAME or NAME=WEIGHT",
        flag="--queue NAME",
        name="queue",
    )
    relays: dict[str, Relay] = dataclasses.field(default_factory=dict)
    routing: Routing = dataclasses.field(default_factory=Routing)
    sender: str | None = _setting(
        None, mail_address, "From of mails that name none", flag="--from ADDR", name="from"
    )
    retries: int = _setting(20, whole(0, 1000), "tries after the first", flag="--retries N")
    retry_base_s: float = _setting(60, seconds(), "wait before the first retry", unit="s")
    retry_cap_s: float = _setting(14_400, seconds(), "longest wait before a retry", unit="s")
    max_age_s: float = _setting(
        432_000, seconds(), "age at which mail for a silent host is dead", unit="s"
    )
    unknown: str = _setting(
        "retry", one_of("retry", "hold"), "what to do with mail that was sent and not answered"
    )
    unknown_retries: int = _setting(
        1, whole(0, 1000), "tries after an unanswered one (with unknown = retry)"
    )
    burst: bool = _setting(False, switch, "leave when the queue is empty", flag="--burst")
    max_messages: int = _setting(
        0,
        whole(0),
        "leave after so many mails (one of several is replaced first); 0 = never",
        flag="--max-messages N",
    )
    grace_s: float = _setting(
        30, seconds(0), "time to finish what is on the wire", unit="s", flag="--grace SECONDS"
    )
    pidfile: str | None = _setting(
        None, text, "file that holds the pid while geomail runs", flag="--pidfile FILE"
    )
    delivery_log: str | None = _setting(
        None, text, "file that gets one JSON line an outcome", flag="--delivery-log FILE"
    )
    redirect_to: str | None = _setting(
        None, mail_address, "send every mail to this address instead", flag="--redirect-to ADDR"
    )
    verbose: bool = _setting(False, switch, "log more", flag="--verbose")
    redis: str | None = _setting(
        None,
        text,
        "URL of Redis; without one, an embedded one on 127.0.0.1",
        flag="--redis URL",
        is_secret=True,
    )
    data: str = _setting(
        default_data_dir,
        text,
        "folder for what geomail keeps (the embedded Redis, the journal)",
        flag="--data DIR",
    )
    journal: bool = _setting(
        True, switch, "final answers go to disk too, so that a kill sends hardly a mail twice"
    )
    lease_s: float = _setting(
        30, seconds(0.5), "time after which a silent worker's jobs go to others", unit="s"
    )
    beat_s: float = _setting(5, seconds(0.05), "time between signs of life", unit="s")
    helo: str | None = _setting(None, helo_name, "our name in EHLO; the machine's without one")
    nameservers: tuple[tuple[str, int], ...] = _setting(
        (),
        name_servers,
        "with the relay `mx`: name servers to ask, instead of those in /etc/resolv.conf",
        name="nameserver",
    )
    connect_s: float = _setting(30, seconds(), "deadline: connection and TLS", unit="s")
    greeting_s: float = _setting(300, seconds(), "deadline: greeting", unit="s")
    command_s: float = _setting(
        300, seconds(), "deadline: EHLO, STARTTLS, each step of the login", unit="s"
    )
    mail_s: float = _setting(300, seconds(), "deadline: answer to MAIL", unit="s")
    rcpt_s: float = _setting(300, seconds(), "deadline: answer to RCPT", unit="s")
    data_s: float = _setting(120, seconds(), "deadline: answer to DATA", unit="s")
    block_s: float = _setting(180, seconds(), "deadline: each block written", unit="s")
    final_s: float = _setting(
        600, seconds(), "deadline: final answer; a short one makes duplicates", unit="s"
    )
    quit_s: float = _setting(5, seconds(), "deadline: answer to QUIT", unit="s")
    idle_s: float = _setting(30, seconds(0), "how long an idle connection is kept", unit="s")
    backoff_base_s: float = _setting(
        1, seconds(), "first pause after trouble with a host; doubles", unit="s"
    )
    backoff_cap_s: float = _setting(
        300, seconds(), "longest pause after trouble with a host", unit="s"
    )
    dedupe_h: float = _setting(24, seconds(), "how long a dedupe_key keeps others out", unit="h")
    dead_days: float = _setting(
        30, seconds(0, 3650, "days"), "dead letters older than this go; 0 = never", unit="d"
    )
    max_recipients: int = _setting(100, whole(1, 1000), "recipients in one transaction")
    take_mb: int = _setting(2, whole(1, 512), "most to take from Redis at once", unit="MB")
    memory_mb: int = _setting(
        256, whole(16, 1_000_000), "most to hold of jobs at a time", unit="MB"
    )
    warnings: tuple[str, ...] = ()
    process: int = 0  # which one of several workers this is, and who started it
    parent: int = 0
    _source: "_Source | None" = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def is_for_parent(self) -> bool:
        """True for the process that is to start several workers."""
        return self.processes > 1 and not self.process

    def again(self) -> "Settings":
        """Return the settings as they are now, the file read once more (SIGHUP); Redis stays.

        Raises ConfigError; settings that were not loaded are returned as they are.
        """
        if self._source is None:
            return self
        return dataclasses.replace(self._source.load(), redis=self.redis)


def _known() -> Iterator[Setting]:
    for field in dataclasses.fields(Settings):
        if field.metadata:
            known = dict(field.metadata)
            known["name"] = known["name"] or field.name
            yield Setting(field=field.name, default=field.default, **known)


SETTINGS = tuple(_known())
_BY_NAME = {setting.name: setting for setting in SETTINGS}


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
    """Raise ConfigError that says what to do, unless there is a relay and each can be used.

    Each login is whole, and the files that relays name are there and usable.
    """
    if not settings.relays:
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


def settings_table() -> str:
    """Return the table of all settings in Markdown, for the README."""
    rows = ["| setting | default | flag | |", "|---|---|---|---|"]
    for setting in SETTINGS:
        flag = f"`{setting.flag}`" if setting.flag else ""
        rows.append(f"| `{setting.name}` | {default_text(setting)} | {flag} | {setting.help} |")
    return "\n".join(rows) + "\n"


def default_text(setting: Setting) -> str:
    """Return what stands for the default of `setting` in tables and help."""
    if setting.name == "data":
        return "/var/lib/geomail for root, else $XDG_STATE_HOME/geomail"
    if setting.name == "queue":
        return "queue:email"
    if setting.default is None or setting.default == ():
        return ""
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"{setting.default} {setting.unit}".strip()


def _value(setting: Setting, origin: str, value: object) -> object:
    try:
        return setting.read(value)
    except ValueError as error:
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        shown = "" if setting.is_secret else f", not {one!r}"
        raise ConfigError(f"{origin} must be {error}{shown}") from None


def _read(place: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(place.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {place}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{place} is not TOML: nested too deep") from None
    except ValueError as error:  # not UTF-8, not TOML, or a number of thousands of digits
        raise ConfigError(f"{place} is not TOML: {error}") from None


def _refuse_unknown(table: Mapping[str, object], place: str) -> None:
    for name in table:
        if name not in _BY_NAME and name not in ("relay", "route"):
            hint = spelling.hint(name, [*_BY_NAME, "relay", "route"])
            if any(name == key.name for key in relays.KEYS):
                hint = ": it belongs into [relay.NAME]"
            raise ConfigError(f"unknown setting {name!r} in {place}{hint}")


def _check_variables(environ: Mapping[str, str], warnings: list[str]) -> None:
    # A far-off name is no error: Kubernetes gives every pod GEOMAIL_SERVICE_HOST and its like.
    known = [setting.variable for setting in SETTINGS] + [*_ALSO_OURS, *relays.VARIABLES]
    endings = [name.removeprefix(_PREFIX) for name in known]
    for name in environ:
        if not name.startswith(_PREFIX) or name in known or relays.is_password_variable(name):
            continue
        if meant := spelling.nearest(name.removeprefix(_PREFIX), endings, likeness=0.8):
            raise ConfigError(f"unknown variable {name}: did you mean {_PREFIX}{meant}?")
        warnings.append(f"the variable {name} means nothing here")


def _place(environ: Mapping[str, str]) -> tuple[int, int]:
    number, _, parent = (environ.get(CHILD_VARIABLE) or "0/0").partition("/")
    if not number.isdigit() or not parent.isdigit():
        raise ConfigError(
            f"{CHILD_VARIABLE} is what geomail tells its workers: did you mean {_PREFIX}PROCESSES?"
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
