"""What can be typed: the text of `geomail --help` is the contract, and docopt reads it.

The options that are settings come from geomail.config, so they are described once. docopt guesses
what a mistyped flag might mean, and answers anything else with the whole page; both are kept from
the user: flags and commands are looked at first, exactly, and an error is one line.
"""

import re
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from docopt import DocoptExit, docopt

from geomail import spelling
from geomail.config import SETTINGS, default_text
from geomail.errors import ConfigError

_USAGE = """\
geomail delivers e-mail from a Redis list by SMTP, very fast, and loses none.

Usage:
  geomail run [--concurrency N] [--processes N] [--queue NAME]... [--relay URL]...
              [--from ADDR] [--retries N] [--burst] [--max-messages N] [--grace SECONDS]
              [--pidfile FILE] [--delivery-log FILE] [--redirect-to ADDR] [--tcp ADDR]
              [--http ADDR] [--smtp ADDR] [--smtps ADDR] [--verbose] [options]
  geomail listen [--tcp ADDR] [--http ADDR] [--smtp ADDR] [--smtps ADDR] [--queue NAME]
                 [--grace SECONDS] [--pidfile FILE] [--verbose] [options]
  geomail send (--to ADDR)... [--from ADDR] [--subject TEXT] [--text FILE] [--html FILE]
               [--attach FILE]... [--queue NAME] [options]
  geomail status [--json] [--queue NAME]... [options]
  geomail hosts [--json] [--queue NAME]... [options]
  geomail why ID [--queue NAME]... [options]
  geomail check [--relay URL]... [--queue NAME]... [options]
  geomail dead list [--reason TEXT] [--limit N] [--json] [--queue NAME] [options]
  geomail dead show ID [--queue NAME] [options]
  geomail dead (retry | drop) (ID... | --reason TEXT | --all) [--queue NAME] [options]
  geomail hold (--relay NAME | --queue NAME) [options]
  geomail resume (--relay NAME | --queue NAME) [options]
  geomail stop [--pidfile FILE] [--redis-server] [options]
  geomail sink [--listen ADDR] [--record FILE] [--verbose] [--delay SECONDS] [--fault NAME]
               [--without NAMES] [--limits LIMITS] [--cert FILE] [--implicit-tls]
               [--require-tls] [--logins FILE] [--require-auth] [options]
  geomail demo [--count N] [options]
  geomail --help | --version

  run     takes jobs from the queue and delivers them, until it is told to leave
  listen  opens doors for jobs (TCP, HTTP, SMTP) without delivering; run can open them too
  send    puts one mail on the queue
  status  tells how many jobs are where
  hosts   shows each host as all workers see it, those in trouble first
  why     tells where a mail is, and what holds it: by its id, or the id that its producer gave it
  check   connects to Redis and to each relay, logs in, sends nothing
  dead    shows dead letters, has them tried again, or drops them
  hold    keeps back what goes to a relay, or all of a queue, in every worker
  resume  lets it go on
  stop    tells a run to finish and leave
  sink    is a local SMTP server for trying things out
  demo    shows all of it at work, with a Redis and a sink of its own
"""

_SETTINGS_AS_OPTIONS = (
    ("Options for every command:", ("--redis", "--config", "--data")),
    (
        "Options of run:",
        (
            "--relay", "--queue", "--concurrency", "--processes", "--from", "--retries", "--burst",
            "--max-messages", "--grace", "--pidfile", "--delivery-log", "--redirect-to",
            "--verbose",
        ),
    ),
    ("Options of run and listen:", ("--tcp", "--http", "--smtp", "--smtps")),
)  # fmt: skip

_ALSO = {
    "--config": ("FILE", "geomail.toml; default ./geomail.toml, else /etc/geomail/geomail.toml"),
    "--relay": (
        "URL",
        (
            "where to send: smtp://HOST:25, smtp+starttls://USER@HOST:587,"
            " smtps://USER@HOST:465, or mx, straight to the recipients' hosts; repeat it for hosts"
            " to try in order; the password belongs in GEOMAIL_RELAY_PASSWORD"
        ),
    ),
}

_OTHERS = """\
Options of send:
  --to ADDR              recipient; repeat it for more
  --subject TEXT         subject
  --text FILE            file with the plain text, in UTF-8; - is standard input
  --html FILE            file with the HTML, in UTF-8
  --attach FILE          file to attach; repeat it for more

Options of status, hosts and dead:
  --json                 print JSON
  --reason TEXT          only dead letters whose reason contains TEXT
  --limit N              at most N dead letters [default: 50]
  --all                  all dead letters

Options of stop:
  --redis-server         end the embedded Redis too

Options of sink and demo:
  --listen ADDR          where the sink listens [default: 127.0.0.1:2525]
  --record FILE          file that gets a line for each mail taken
  --count N              mails in the demo [default: 10000]

Options of sink:
  --delay SECONDS        how long it waits before each answer, as 0.05
  --fault NAME           what happens to every mail, as stall+30, data+451 or twice (see below), or
                         chunks-unswallowed: octets of a refused BDAT are run as commands
  --without NAMES        what is not announced: PIPELINING, CHUNKING, SIZE, 8BITMIME, SMTPUTF8, DSN,
                         ENHANCEDSTATUSCODES, EHLO, or a login's mechanism, as SCRAM-SHA-256;
                         separated by commas
  --limits LIMITS        what is announced and demanded: MAILMAX=N,RCPTMAX=N or one of them
  --cert FILE            PEM file with certificate and key: offers STARTTLS
  --implicit-tls         begins with TLS
  --require-tls          takes no mail without TLS
  --logins FILE          file with lines of USER:PASSWORD (or token): offers AUTH
  --require-auth         takes no mail without a login

Other options:
  -h --help              print this
  --version              print the version
"""

_SINK_ADDRESSES = """\
What the sink does to mail is said by its address: reply+451@… is answered 451, data+550@… is
refused at the final dot, stall+30@… is answered 30 s late, hangup@… cuts the connection, rst+9@…
resets it after 9 octets of the content, never@… is not answered; also greylist+2@…, slow+2@…,
bdat+502@…, drip+2@…, junk@…, twice@…, skip@….

"""

_ELSEWHERE = """\
Each setting can also come from a variable (GEOMAIL_CONCURRENCY) or from geomail.toml.
Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
"""

COMMANDS = (
    "run", "listen", "send", "status", "hosts", "why", "check", "dead", "hold", "resume", "stop",
    "sink", "demo",
)  # fmt: skip
# There they are no settings: they name what is kept back.
_HELD = (("--relay", "a relay, by its name"), ("--queue", "a Redis list"))
_INDENT = 25


def page() -> str:
    """Return what `geomail --help` prints."""
    known = {setting.flag: setting for setting in SETTINGS if setting.flag}
    sections = []
    for title, flags in _SETTINGS_AS_OPTIONS:
        lines = [title]
        for flag in flags:
            if flag in _ALSO:
                lines += _option(flag, *_ALSO[flag])
            else:
                setting = known[flag]
                default = default_text(setting)
                told = f"; default {default}" if default not in ("", "false") else ""
                lines += _option(flag, setting.metavar, setting.help + told)
        sections.append("\n".join(lines) + "\n")
    return "\n".join([_USAGE, *sections, _OTHERS, _SINK_ADDRESSES + _ELSEWHERE])


def page_of(command: str) -> str:
    """Return what `geomail COMMAND --help` prints: its own part of the page."""
    calls, told = _USAGE.split("\n\n")[1:3]
    own = re.split(r"\n(?=  geomail )", calls)[1:]
    own = [call for call in own if call.split()[1] == command]
    says = next(line for line in told.splitlines() if line.split()[0] == command)
    return (
        f"geomail {' '.join(says.split())}\n\nUsage:\n"
        + "\n".join(own)
        + f"\n\nOptions:\n{_options_of(command)}\n"
        + {"sink": _SINK_ADDRESSES, "run": _ELSEWHERE}.get(command, "")
        + "All commands: geomail --help\n"
    )


def _options_of(command: str) -> str:
    told = dict(re.findall(r"^  (--[a-z-]+)((?:.*\n)(?: {3,}.*\n)*)", page(), re.MULTILINE))
    if command in ("hold", "resume"):
        told |= {
            flag: _option(flag, "NAME", text)[0][2 + len(flag) :] + "\n" for flag, text in _HELD
        }
    flags, common = _flags_of(command), _SETTINGS_AS_OPTIONS[0][1]
    mine = [flag for flag in told if flag in flags and flag not in common]
    return "".join(f"  {flag}{told[flag]}" for flag in [*mine, *common])


def command_of(argv: Sequence[str]) -> str | None:
    """Return which command is typed, None when there is none."""
    return next((word for word in argv if word in COMMANDS), None)


def read(argv: Sequence[str]) -> dict[str, Any]:
    """Return what docopt makes of `argv`. Raises ConfigError with one line that helps."""
    text = page()
    _check_words(argv, text)
    try:
        return dict(docopt(text, list(argv), False))
    except DocoptExit as error:
        said = str(error).split("\n", 1)[0]
        raise ConfigError(said if "requires argument" in said else _usage_of(argv)) from None


def _check_words(argv: Sequence[str], text: str) -> None:
    command = command_of(argv)
    flags = set(re.findall(r"--[a-z-]+", text)) | {"-h"}
    own = flags if command is None else _flags_of(command)
    for word in argv[: argv.index("--")] if "--" in argv else argv:
        flag = word.partition("=")[0]
        if not flag.startswith("--"):
            continue
        if flag not in flags:
            raise ConfigError(f"unknown option {flag}{spelling.hint(flag, own)}")
        if flag not in own:
            raise ConfigError(f"{command} has no option {flag} (see geomail --help)")
    if command is None:
        first = next((word for word in argv if not word.startswith("-")), None)
        expected = f"expected one of {', '.join(COMMANDS)} (see geomail --help)"
        if first is None:
            raise ConfigError(f"no command: {expected}")
        raise ConfigError(
            f"{first!r} is no command{spelling.hint(first, COMMANDS) or ': ' + expected}"
        )


def _flags_of(command: str) -> set[str]:
    common = _SETTINGS_AS_OPTIONS[0][1]
    return {*re.findall(r"--[a-z-]+", " ".join(_lines_of(command))), *common}


def _usage_of(argv: Sequence[str]) -> str:
    command = next(word for word in argv if word in COMMANDS)
    return f"that is not how {command} is called: {' or '.join(_lines_of(command))}"


def _lines_of(command: str) -> list[str]:
    usage = _USAGE.partition("Usage:\n")[2].partition("\n\n")[0]
    calls = [re.sub(r"\s+", " ", call) for call in usage.split("  geomail ")]
    return ["geomail " + call.strip() for call in calls if call.split(" ")[0] == command]


def _option(flag: str, metavar: str, told: str) -> list[str]:
    head = f"  {flag} {metavar}".rstrip()
    lines = wrap(told, 98 - _INDENT)
    if len(head) + 2 > _INDENT:
        return [head + "  " + lines[0], *(" " * _INDENT + line for line in lines[1:])]
    return [head.ljust(_INDENT) + lines[0], *(" " * _INDENT + line for line in lines[1:])]
