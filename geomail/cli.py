"""The command line: what was typed becomes settings and one call, and its result an exit status.

geomail.usage says what can be typed. One short function a command; each imports what it needs when
it is called, so that `--help` costs no network stack. An error is one line on standard error that
says what to do; 0 is done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomail import __version__, log, pidfile, spelling, usage
from geomail.config import Settings, load, require_relays
from geomail.errors import ConfigError, GeomailError, PayloadError, RedisAway, RedisUnusable
from geomail.pidfile import PidFile
from geomail.relays import routes_shown

if TYPE_CHECKING:
    from geomail.queue import Link, Queue

Given = Mapping[str, Any]

_CHECK_S = 15.0  # a person waits for the answer
_ANSWERS_S = 10.0  # and gives up
_STARTS_S = 5.0  # a run that was begun a moment ago has started its Redis by then
_LOOK_AGAIN_S = 0.05
_MARGIN_S = 5.0
_MOST = 10_000_000
_INTERRUPTED = 130  # as a shell has it: 128 and the signal's number


def main(argv: Sequence[str]) -> int:
    """Do what `argv` says and return the exit status."""
    try:
        status = _obey(argv)
    except (ConfigError, PayloadError, RedisUnusable) as error:
        status = _complain(error, 2)
    except GeomailError as error:
        status = _complain(error, 1)
    except BrokenPipeError:
        status = 1
    except KeyboardInterrupt:
        status = _complain("interrupted", _INTERRUPTED)
    _end_output()
    return status


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read our output has seen enough
        raise
    except OSError as error:
        raise GeomailError(f"can't write the output: {error.strerror}") from None


def _end_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # said already; the interpreter would flush once more, and say it its way
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _obey(argv: Sequence[str]) -> int:
    if {"--help", "-h"}.intersection(argv):
        command = usage.command_of(argv)
        _say((usage.page_of(command) if command else usage.page()).rstrip())
        return 0
    if "--version" in argv:
        _say(f"geomail {__version__}")
        return 0
    given = usage.read(argv)
    is_name = given["hold"] or given["resume"]  # there --relay names one, and is no setting
    settings = load({**given, "--relay": []} if is_name else given, os.environ)
    log.to_stderr(verbose=settings.verbose)
    for warning in () if settings.process else settings.warnings:
        _complain(f"warning: {warning}", 0)
    if given["run"] and settings.is_for_parent:
        return _run_several(argv, settings)
    return next(do for command, do in _COMMANDS.items() if given[command])(given, settings)


def _complain(what: object, status: int) -> int:
    with suppress(OSError):  # nobody reads it
        print(f"geomail: {what}", file=sys.stderr)
    return status


def _run(_given: Given, settings: Settings) -> int:
    _require_relays(settings)
    if settings.process and os.getppid() != settings.parent:
        raise GeomailError("the parent of this worker has gone")
    if settings.max_messages and not settings.process and not settings.burst:
        _complain("warning: max_messages ends a lone worker for good; of 2 each is replaced", 0)
    from geomail import worker
    from geomail.intake import listening
    from geomail.queue import embedded

    path = None if settings.process else settings.pidfile
    with pidfile.held(path), listening.opened(settings) as listeners:
        url = settings.redis or embedded.ensure(settings.data)
        return worker.run(replace(settings, redis=url), listeners)


def _listen(_given: Given, settings: Settings) -> int:
    from geomail.intake import listening, serving
    from geomail.queue import embedded

    with pidfile.held(settings.pidfile), listening.opened(settings) as listeners:
        listening.require(listeners)
        url = settings.redis or embedded.ensure(settings.data)
        return serving.serve(replace(settings, redis=url), listeners)


def _run_several(argv: Sequence[str], settings: Settings) -> int:
    _require_relays(settings)
    from geomail import supervisor
    from geomail.intake import listening

    with pidfile.held(settings.pidfile), listening.opened(settings) as listeners:
        return supervisor.run(settings, argv, listeners)


def _require_relays(settings: Settings) -> None:
    require_relays(settings)
    if "default" not in settings.relays and not settings.process:
        rest = "mail that no [[route]] is for" if settings.routing else "mail that names no relay"
        _complain(f"warning: no relay is named default: {rest} will be dead", 0)


def _send(given: Given, settings: Settings) -> int:
    from geomail import draft

    label = f"send-{secrets.token_hex(6)}"
    payload = draft.payload_of(given, label)
    queue = _queue(settings, patience_s=_STARTS_S)
    try:
        queue.push([payload])
    except RedisAway as error:
        raise RedisAway(f"{error}; later, `geomail why {label}` tells whether it came in") from None
    _say(f"{label} is on {queue.name}")
    return 0


def _status(given: Given, settings: Settings) -> int:
    from geomail import board, report
    from geomail.queue import Queue

    link = _link(settings)
    queues = [Queue(link, name) for name, _ in settings.queues]
    counts = {queue.name: queue.counts() for queue in queues}
    reasons = {queue.name: queue.dead_reasons() for queue in queues}
    seen = board.look(link, counts)
    if given["--json"]:
        _say(report.status_as_json(counts, reasons, board.troubles_as_json(seen)))
    else:
        _say(report.status(counts, reasons, board.troubles(seen)))
    return 0


def _hosts(given: Given, settings: Settings) -> int:
    from geomail import board

    seen = board.look(_link(settings), (name for name, _ in settings.queues))
    _say(board.as_json(seen) if given["--json"] else board.for_terminal(seen))
    return 0


def _why(given: Given, settings: Settings) -> int:
    from geomail import trace

    _say(trace.why(_link(settings), settings, given["ID"][0]))
    return 0


def _hold(given: Given, settings: Settings) -> int:
    on = bool(given["hold"])
    if given["--relay"]:
        [name] = given["--relay"]
        if on:
            _check_relay(name, settings)
        news = [queue.hold("relay", name, on=on) for queue in _queues(settings)]
        what = f"relay {name}"
    else:
        queue = _queue(settings)
        news = [queue.hold("queue", queue.name, on=on)]
        what = f"queue {queue.name}"
    when = f" (workers obey within {settings.beat_s:g} s)" if any(news) else " already"
    _say(f"{what} {'is held' if on else 'goes on'}{when}")
    return 0


def _check_relay(name: str, settings: Settings) -> None:
    known = [*settings.relays, *(("url", "call") if settings.has_tasks else ())]
    if settings.relays and name not in known:
        hint = spelling.hint(name, known) or f"; known: {', '.join(known)}"
        raise ConfigError(f"no relay is named {name!r}{hint}")


def _check(_given: Given, settings: Settings) -> int:
    from geomail import report

    if settings.relays:
        require_relays(settings)
    failed = 0
    for name, look in _looks(settings):
        _say(name)  # before the answer: a host that is silent takes its time
        try:
            said = look()
        except (GeomailError, ConnectionError) as error:
            failed += 1
            advice = report.advice(name.rpartition(" ")[2], str(error))
            said = [f"FAILED: {error}", *([advice] if advice else [])]
        for line in map(report.shown, said):
            _say(f"  {line}")
    return 1 if failed else 0


def _looks(settings: Settings) -> Iterator[tuple[str, Callable[[], Sequence[str]]]]:
    from geomail.delivery.session.announce import announce, name_servers
    from geomail.intake import listening

    yield "Redis", partial(_look_at_redis, settings)
    hasty = replace(
        settings,
        connect_s=min(settings.connect_s, _CHECK_S),
        greeting_s=min(settings.greeting_s, _CHECK_S),
        command_s=min(settings.command_s, _CHECK_S),
    )
    for relay in settings.relays.values():
        for member in relay.members:
            if member.scheme == "mx":
                yield f"relay {relay.name}: mx", partial(name_servers, settings)
                continue
            name = f"relay {relay.name}: {member.scheme}://{member.host}:{member.port}"
            yield name, partial(announce, member, relay, hasty)
    if not settings.relays:
        hint = "only tasks are done" if settings.has_tasks else "pass --relay URL"
        yield "relays", lambda: [f"none: {hint}"]
    if settings.routing:
        yield "routes", partial(routes_shown, settings.routing, settings.relays)
    if listening.wanted(settings):
        from geomail.intake.plates import plates

        yield from plates(settings)
    if settings.has_tasks:
        from geomail.carriers.allowed import looks

        yield from looks(settings)


def _look_at_redis(settings: Settings) -> list[str]:
    from geomail.queue import embedded

    if settings.redis is None and not embedded.listens():
        binary = embedded.find_binary()
        return [f"nobody listens on {embedded.HOST}:{embedded.PORT}: run will start {binary}"]
    queues = _queues(settings, warns=True)
    return [f"{queue.name}: {queue.counts().waiting} waiting" for queue in queues]


def _dead(given: Given, settings: Settings) -> int:
    if given["list"]:
        return _list_dead(given, settings)
    queue = _queue(settings)
    return _show_dead(queue, given["ID"][0]) if given["show"] else _move_dead(queue, given)


def _list_dead(given: Given, settings: Settings) -> int:
    from geomail import report

    limit = _number(given, "--limit")
    letters = _queue(settings).dead_list(limit, given["--reason"])
    as_json = given["--json"]
    _say(report.dead_letters_as_json(letters) if as_json else report.dead_letters(letters))
    return 0


def _show_dead(queue: "Queue", job_id: str) -> int:
    from geomail import report

    letter = queue.dead_show(job_id)
    if letter is None:
        raise GeomailError(f"no dead letter has the id {job_id!r} (see geomail dead list)")
    _say(report.dead_letter(letter))
    return 0


def _move_dead(queue: "Queue", given: Given) -> int:
    ids = list(dict.fromkeys(given["ID"]))
    move, done = (queue.dead_retry, "put back") if given["retry"] else (queue.dead_drop, "dropped")
    moved = move(ids, reason=given["--reason"], every=given["--all"])
    _say(f"{moved} {done}")
    if moved < len(ids):
        raise GeomailError(f"{len(ids) - moved} of these ids are not dead letters")
    return 0


def _stop(given: Given, settings: Settings) -> int:
    if settings.pidfile is None and not given["--redis-server"]:
        raise ConfigError(
            "stop what? pass --pidfile FILE, the one that run was given, or --redis-server"
        )
    if settings.pidfile is not None:
        _stop_run(PidFile(Path(settings.pidfile)), settings.grace_s + _MARGIN_S)
    if given["--redis-server"]:
        from geomail.queue import embedded

        was_there = embedded.stop(settings.data)
        _say("Redis has ended" if was_there else f"no Redis of ours runs in {settings.data}")
    return 0


def _stop_run(held: PidFile, patience_s: float) -> None:
    pid = held.owner()
    if pid is None:
        _say(f"geomail does not run: nobody holds {held.path}")
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise GeomailError(f"may not stop process {pid}: it is another user's") from None
    except ProcessLookupError:
        pass
    deadline = time.monotonic() + patience_s
    while held.owner() == pid:
        if time.monotonic() > deadline:
            raise GeomailError(f"process {pid} still drains; a second stop makes it leave at once")
        time.sleep(_LOOK_AGAIN_S)
    _say("geomail has ended")


def _sink(given: Given, settings: Settings) -> int:
    from geomail.sink import serve

    serve(given["--listen"], verbose=settings.verbose, record=given["--record"], given=given)
    return 0


def _demo(given: Given, _settings: Settings) -> int:
    count = _number(given, "--count")
    from geomail.demo import run

    return run(count=count)


def _number(given: Given, flag: str) -> int:
    text = str(given[flag])
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise ConfigError(f"{flag} must be a whole number from 1 to {_MOST}, not {text!r}")
    return int(text)


def _queue(settings: Settings, *, patience_s: float = 0.0) -> "Queue":
    if len(settings.queues) > 1:
        names = ", ".join(name for name, _ in settings.queues)
        raise ConfigError(f"there are several queues ({names}): pass --queue NAME")
    return _queues(settings, patience_s=patience_s)[0]


def _queues(settings: Settings, *, patience_s: float = 0.0, warns: bool = False) -> list["Queue"]:
    from geomail.queue import Queue

    link = _link(settings, patience_s=patience_s, warns=warns)
    return [Queue(link, name) for name, _ in settings.queues]


def _link(settings: Settings, *, patience_s: float = 0.0, warns: bool = False) -> "Link":
    from geomail.queue import Link, embedded

    url = settings.redis or embedded.URL
    link = Link(url, patience_s=_ANSWERS_S)
    _await_redis(url, link.address, 0.0 if settings.redis else patience_s)
    link.probe(warns=warns)
    return link


def _await_redis(url: str, address: str, patience_s: float) -> None:
    from geomail.queue import embedded

    deadline = time.monotonic() + patience_s
    while not embedded.is_reachable(url):
        if time.monotonic() > deadline:
            advice = "start geomail run, or pass --redis"
            if url != embedded.URL:
                advice = "start it, or mend --redis, or leave that out for geomail's own"
            raise GeomailError(f"no Redis answers at {address}: {advice}")
        time.sleep(_LOOK_AGAIN_S)


_COMMANDS: Mapping[str, Callable[[Given, Settings], int]] = {
    "run": _run,
    "listen": _listen,
    "send": _send,
    "status": _status,
    "hosts": _hosts,
    "why": _why,
    "check": _check,
    "dead": _dead,
    "hold": _hold,
    "resume": _hold,
    "stop": _stop,
    "sink": _sink,
    "demo": _demo,
}
