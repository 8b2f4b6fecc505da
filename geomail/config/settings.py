"""All settings: one field each, with its default, reader, unit, help and flag."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from geomail.config.commands import Command
from geomail.config.setting import Setting, setting
from geomail.relays import Relay, Routing
from geomail.values import (
    helo_name,
    host_patterns,
    listen_address,
    mail_address,
    modules,
    name_servers,
    networks,
    one_of,
    seconds,
    switch,
    text,
    webhook_secret,
    whole,
)


class Source(Protocol):
    """Where settings came from: flags, variables and a file, to be read again."""

    def load(self) -> "Settings":
        """Return the settings as they are now."""


def queues(value: object) -> tuple[tuple[str, int], ...]:
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


def default_data_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Return the data folder of a system service for root, else the user's own."""
    if os.geteuid() == 0:
        return "/var/lib/geomail"
    home = environ.get("HOME") or str(Path.home())
    return f"{environ.get('XDG_STATE_HOME') or home + '/.local/state'}/geomail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process, checked."""

    concurrency: int = setting(
        20, whole(1, 10_000), "connections at a time, over all hosts", flag="--concurrency N"
    )
    processes: int = setting(
        1, whole(1, 256), "worker processes, kept alive by a parent", flag="--processes N"
    )
    queues: tuple[tuple[str, int], ...] = setting(
        (("queue:email", 1),),
        queues,
        "Redis lists to take jobs from, each NAME or NAME=WEIGHT",
        flag="--queue NAME",
        name="queue",
    )
    relays: dict[str, Relay] = dataclasses.field(default_factory=dict)
    routing: Routing = dataclasses.field(default_factory=Routing)
    commands: dict[str, Command] = dataclasses.field(default_factory=dict)
    sender: str | None = setting(
        None, mail_address, "From of mails that name none", flag="--from ADDR", name="from"
    )
    retries: int = setting(20, whole(0, 1000), "tries after the first", flag="--retries N")
    retry_base_s: float = setting(60, seconds(), "wait before the first retry", unit="s")
    retry_cap_s: float = setting(14_400, seconds(), "longest wait before a retry", unit="s")
    max_age_s: float = setting(
        432_000, seconds(), "age at which mail for a silent host is dead", unit="s"
    )
    unknown: str = setting(
        "retry", one_of("retry", "hold"), "what to do with mail that was sent and not answered"
    )
    unknown_retries: int = setting(
        1, whole(0, 1000), "tries after an unanswered one (with unknown = retry)"
    )
    burst: bool = setting(False, switch, "leave when the queue is empty", flag="--burst")
    max_messages: int = setting(
        0,
        whole(0),
        "leave after so many mails (one of several is replaced first); 0 = never",
        flag="--max-messages N",
    )
    grace_s: float = setting(
        30, seconds(0), "time to finish what is on the wire", unit="s", flag="--grace SECONDS"
    )
    pidfile: str | None = setting(
        None, text, "file that holds the pid while geomail runs", flag="--pidfile FILE"
    )
    delivery_log: str | None = setting(
        None, text, "file that gets one JSON line an outcome", flag="--delivery-log FILE"
    )
    redirect_to: str | None = setting(
        None, mail_address, "send every mail to this address instead", flag="--redirect-to ADDR"
    )
    verbose: bool = setting(False, switch, "log more", flag="--verbose")
    redis: str | None = setting(
        None,
        text,
        "URL of Redis; without one, an embedded one on 127.0.0.1",
        flag="--redis URL",
        is_secret=True,
    )
    data: str = setting(
        default_data_dir,
        text,
        "folder for what geomail keeps (the embedded Redis, the journal)",
        flag="--data DIR",
    )
    journal: bool = setting(
        True, switch, "final answers go to disk too, so that a kill sends hardly a mail twice"
    )
    lease_s: float = setting(
        30, seconds(0.5), "time after which a silent worker's jobs go to others", unit="s"
    )
    beat_s: float = setting(5, seconds(0.05), "time between signs of life", unit="s")
    helo: str | None = setting(None, helo_name, "our name in EHLO; the machine's without one")
    nameservers: tuple[tuple[str, int], ...] = setting(
        (),
        name_servers,
        "name servers that the relay `mx` and URL tasks ask, instead of the system's",
        name="nameserver",
    )
    listen_tcp: tuple[str, int] | None = setting(
        None, listen_address, "door for JSON documents by TCP, as 127.0.0.1:9501", flag="--tcp ADDR"
    )
    listen_http: tuple[str, int] | None = setting(
        None, listen_address, "door for HTTP requests, as 127.0.0.1:8025", flag="--http ADDR"
    )
    listen_smtp: tuple[str, int] | None = setting(
        None, listen_address, "door for mail by SMTP, as 127.0.0.1:2587", flag="--smtp ADDR"
    )
    listen_smtps: tuple[str, int] | None = setting(
        None,
        listen_address,
        "the same with TLS from the first byte on (needs door_cert), as 0.0.0.0:465",
        flag="--smtps ADDR",
    )
    door_token: str | None = setting(
        None, text, "secret that clients of the TCP and HTTP doors must show", is_secret=True
    )
    door_logins: str | None = setting(
        None, text, "file with lines of USER:PASSWORD that the SMTP doors demand"
    )
    door_cert: str | None = setting(
        None,
        text,
        "PEM file with certificate and key: the doors speak TLS (`listen_smtp`: STARTTLS)",
    )
    door_connections: int = setting(1000, whole(1, 100_000), "connections to each door at a time")
    door_rate: int = setting(
        0, whole(0), "jobs a second that one address may bring; 0 = any number"
    )
    door_max_mb: int = setting(32, whole(1, 32), "largest job that a door takes", unit="MB")
    door_idle_s: float = setting(
        60, seconds(), "time after which a silent client of a door is left", unit="s"
    )
    high_water: int = setting(
        1_000_000, whole(0), "jobs waiting at which producers are told to slow down; 0 = never"
    )
    url_hosts: tuple[str, ...] = setting(
        (),
        host_patterns,
        "hosts that URL tasks and callbacks may go to (*.example.org, * = any public); none: off",
    )
    url_networks: tuple[str, ...] = setting(
        (), networks, "networks they may go to though they are not public, as 10.0.0.0/8"
    )
    url_concurrency: int = setting(100, whole(1, 10_000), "URL tasks at a time, over all hosts")
    url_s: float = setting(30, seconds(), "deadline: one try of a URL task", unit="s")
    url_connect_s: float = setting(5, seconds(), "deadline: connection and TLS of it", unit="s")
    url_max_kb: int = setting(
        1024, whole(1, 1_000_000), "most to read of an answer to it", unit="kB"
    )
    url_redirects: int = setting(5, whole(0, 20), "redirects that it follows")
    callback_secret: str | None = setting(
        None,
        webhook_secret,
        "key that callbacks are signed with: whsec_ and base64, or any text",
        is_secret=True,
    )
    tasks: tuple[str, ...] = setting(
        (), modules, "Python modules with the tasks that may be called"
    )
    default_class: str | None = setting(None, text, "class of calls that name none")
    task_processes: int = setting(4, whole(1, 1000), "calls at a time, each in a process")
    task_jobs: int = setting(1, whole(1), "calls after which such a process is replaced")
    task_s: float = setting(60, seconds(), "deadline: one call", unit="s")
    connect_s: float = setting(30, seconds(), "deadline: connection and TLS", unit="s")
    greeting_s: float = setting(300, seconds(), "deadline: greeting", unit="s")
    command_s: float = setting(
        300, seconds(), "deadline: EHLO, STARTTLS, each step of the login", unit="s"
    )
    mail_s: float = setting(300, seconds(), "deadline: answer to MAIL", unit="s")
    rcpt_s: float = setting(300, seconds(), "deadline: answer to RCPT", unit="s")
    data_s: float = setting(120, seconds(), "deadline: answer to DATA", unit="s")
    block_s: float = setting(180, seconds(), "deadline: each block written", unit="s")
    final_s: float = setting(
        600, seconds(), "deadline: final answer; a short one makes duplicates", unit="s"
    )
    quit_s: float = setting(5, seconds(), "deadline: answer to QUIT", unit="s")
    idle_s: float = setting(30, seconds(0), "how long an idle connection is kept", unit="s")
    backoff_base_s: float = setting(
        1, seconds(), "first pause after trouble with a host; doubles", unit="s"
    )
    backoff_cap_s: float = setting(
        300, seconds(), "longest pause after trouble with a host", unit="s"
    )
    dedupe_h: float = setting(24, seconds(), "how long a dedupe_key keeps others out", unit="h")
    dead_days: float = setting(
        30, seconds(0, 3650, "days"), "dead letters older than this go; 0 = never", unit="d"
    )
    max_recipients: int = setting(100, whole(1, 1000), "recipients in one transaction")
    take_mb: int = setting(2, whole(1, 512), "most to take from Redis at once", unit="MB")
    memory_mb: int = setting(256, whole(16, 1_000_000), "most to hold of jobs at a time", unit="MB")
    warnings: tuple[str, ...] = ()
    process: int = 0  # which one of several workers this is, and who started it
    parent: int = 0
    _source: "Source | None" = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def is_for_parent(self) -> bool:
        """True for the process that is to start several workers."""
        return self.processes > 1 and not self.process

    @property
    def has_calls(self) -> bool:
        """True when there is something that may be called."""
        return bool(self.tasks or self.commands)

    @property
    def has_tasks(self) -> bool:
        """True when there are URL tasks or calls that may be done."""
        return bool(self.url_hosts) or self.has_calls

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
BY_NAME = {setting.name: setting for setting in SETTINGS}
