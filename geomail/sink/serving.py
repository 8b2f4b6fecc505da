"""The sink as a command: listen until a signal, say what has come.

A terminal, or someone who asks for it, sees a line for each mail; else there is a count once a
second while it grows. What a mail says of itself is shown without control characters.
"""

import re
import signal
import sys
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import partial
from typing import Any, TextIO

import gevent
import gevent.event

from geomail.errors import ConfigError
from geomail.sink.options import read_options
from geomail.sink.sink import Sink

_SUBJECT = re.compile(rb"^subject:[ \t]*([^\r]*(?:\r\n[ \t][^\r]*)*)", re.IGNORECASE | re.MULTILINE)


def serve(
    listen: str,
    *,
    verbose: bool = False,
    record: str | None = None,
    given: Mapping[str, Any] | None = None,
    out: TextIO | None = None,
) -> int:
    """Run a sink on `listen` (HOST:PORT, or PORT) until SIGINT or SIGTERM; return how many it took.

    `given`: the other options of the command, by their flags (geomail.sink.options).

    The address comes first, then a line for each mail when `out` is a terminal or `verbose`, else
    the count once a second while it grows. Raises ConfigError when an option can't be, or the
    address is in use.
    """
    out = out or sys.stdout
    options = read_options(given or {})
    shows_mails = verbose or out.isatty()
    ended = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, ended.set)
    on_mail = partial(_show_mail, out) if shows_mails else None
    with Sink(read_address(listen), on_mail=on_mail, record=record, **options) as sink:
        host, port = sink.address
        print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", file=out, flush=True)
        shown = 0
        while not ended.wait(1.0):
            if sink.count != shown and not shows_mails:
                shown = sink.count
                print(_mails(shown), file=out, flush=True)
    print(f"took {_mails(sink.count)}", file=out, flush=True)
    return sink.count


def read_address(listen: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT` (on 127.0.0.1)."""
    host, _, port = listen.strip().rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{listen!r} is no address to listen on: pass HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _mails(count: int) -> str:
    return f"{count} mail{'' if count == 1 else 's'}"


def _show_mail(out: TextIO, mail_from: str, recipients: tuple[str, ...], content: bytes) -> None:
    others = f" and {len(recipients) - 1} more" if len(recipients) > 1 else ""
    subject = _printable(_subject(content))
    line = f"{mail_from or '<>'} -> {recipients[0]}{others}, {len(content)} bytes: {subject}"
    print(line, file=out, flush=True)


def _subject(content: bytes) -> str:
    match = _SUBJECT.search(content, 0, content.find(b"\r\n\r\n") + 2)
    raw = match[1].decode(errors="replace") if match else ""
    try:
        return str(make_header(decode_header(raw)))
    except (HeaderParseError, ValueError, LookupError):
        return raw


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "?" for each in line)[:100]
