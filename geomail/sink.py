"""A local SMTP server for trying things out: accepts, refuses, stalls on command, keeps nothing.

What is to go wrong is written into an address, so one sink serves every test, and a producer can be
tried against trouble without any set-up. The local part says it, before an optional `+number`:

    recipient or sender     at RCPT or at MAIL
    reply+CODE@…            is answered CODE (421 closes the connection)
    greylist+N@…            is answered 451 the first N times (1), then accepted
    slow+S@…                is answered S seconds late (1)
    recipient               at the final dot, with the content already taken (but for data)
    data+CODE@…             is answered CODE, and the mail is not taken
    stall+S@…               is answered S seconds late (30)
    drip+S@…                is answered a byte each S seconds (1)
    hangup@…                the connection is cut without an answer
    never@…                 nothing is answered, the connection stays
    junk@…                  something is answered that is no reply
    twice@…                 is answered twice

CODE is 4xx or 5xx (550), seconds may have a fraction. All else is for the Policy (geomail.smtp) and
the options of Sink. A mail is *taken* when all of its content has come and nothing refuses it. That
is before it is answered, and on_mail has returned then: whatever the client makes of our silence, a
mail that it may have delivered is counted.

Not promised: deadlines (a client may take its time), storage, or being safe on a public address.
One greenlet a connection, one write for everything that one read has brought.
"""

import hmac
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import partial
from ssl import SSLContext
from typing import Self, TextIO

import gevent
import gevent.event
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from geomail import log
from geomail.errors import ConfigError
from geomail.smtp.answers import OK, Answer
from geomail.smtp.policy import Policy
from geomail.smtp.server import Event, Mail, Server

OnMail = Callable[[str, tuple[str, ...], bytes], object]

_BLOCK = 65536
_FAULT = re.compile(
    r"(reply|greylist|slow|data|stall|drip|hangup|never|junk|twice)(?:\+([0-9.]+))?@"
)
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_SUBJECT = re.compile(rb"^subject:[ \t]*([^\r]*(?:\r\n[ \t][^\r]*)*)", re.IGNORECASE | re.MULTILINE)
_FULL = Answer(421, "4.7.0", "Too many connections")
_USED_UP = Answer(421, "4.7.0", "Enough mails on this connection")
_GREYLISTED = Answer(451, "4.7.1", "Greylisted, try again later")


class Sink:
    """An SMTP server on `listen` that takes mails until `stop`.

    `on_mail(mail_from, recipients, content)` is called for each mail taken. `policy` says what is
    announced and demanded; `tls` offers STARTTLS, or with `implicit_tls` begins with it; `logins`
    (user: password) offers AUTH. `max_connections`: further ones get a 421. `delay_s` comes before
    every write. After `mails_per_connection` mails the connection ends, silently or with a 421 when
    it `says_421`. `record`: a file that gets a line for each mail, `<unix time> <Message-ID>
    <first recipient>`, at most 0.2 s later.
    """

    def __init__(
        self,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        on_mail: OnMail | None = None,
        policy: Policy | None = None,
        tls: SSLContext | None = None,
        implicit_tls: bool = False,
        logins: Mapping[str, str] | None = None,
        max_connections: int | None = None,
        delay_s: float = 0.0,
        mails_per_connection: int | None = None,
        says_421: bool = False,
        record: str | None = None,
    ) -> None:
        self.count = 0
        self.connections = 0
        self.connections_ever = 0
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.max_connections = max_connections
        self.delay_s = delay_s
        self.mails_per_connection = mails_per_connection
        self.says_421 = says_421
        self.policy = self._armed(policy or Policy(), logins)
        self._on_mail = on_mail
        self._record = _Record(record) if record else None
        self._tries: Counter[str] = Counter()
        self._server: StreamServer | None = None
        self.address = listen

    def start(self) -> Self:
        """Listen; `address` holds the real port then. Raises ConfigError when that can't be."""
        listener = _listener(self.address)
        self.address = listener.getsockname()[:2]
        self._server = StreamServer(listener, self._converse, spawn=Pool())
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the door and all connections, write what is to be recorded."""
        if self._server:
            self._server.stop(timeout=0)
        if self._record:
            self._record.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def take(self, mail: Mail) -> None:
        """Count a mail, hand it to on_mail, note it in the record."""
        self.count += 1
        if self._on_mail:
            self._on_mail(mail.mail_from, mail.recipients, mail.content)
        if self._record:
            self._record.add(mail)

    def _armed(self, policy: Policy, logins: Mapping[str, str] | None) -> Policy:
        return replace(
            policy,
            starttls=policy.starttls or (self.tls is not None and not self.implicit_tls),
            auth=_checker(logins) if logins is not None else policy.auth,
            check_sender=policy.check_sender or self._refusal,
            check_recipient=policy.check_recipient or self._refusal,
        )

    def _refusal(self, address: str) -> Answer | None:
        """Return what the address itself asks to be answered with at MAIL or RCPT."""
        match = _FAULT.match(address)
        if not match:
            return None
        fault, number = match[1], _number(match[2])
        if fault == "reply":
            return _requested(number)
        if fault == "slow":
            gevent.sleep(number or 1)
        if fault == "greylist":
            self._tries[address] += 1
            return _GREYLISTED if self._tries[address] <= (number or 1) else None
        return None

    def _converse(self, sock: socket.socket, _peer: object) -> None:
        self.connections += 1
        self.connections_ever += 1
        conversation = _Conversation(self, sock)
        try:
            conversation.run()
        except OSError as error:
            log.debug("sink_lost", error=error)
        finally:
            self.connections -= 1
            conversation.close()


class _Conversation:
    """One connection: bytes between the socket and its Server, and the faults at the final dot."""

    __slots__ = ("_mails", "_server", "_sink", "_sock")

    def __init__(self, sink: Sink, sock: socket.socket) -> None:
        self._sink = sink
        self._sock = sock
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._mails = 0
        self._server = Server(sink.policy, is_encrypted=sink.implicit_tls)

    def run(self) -> None:
        """Serve the client until one of the two has had enough."""
        sink, server = self._sink, self._server
        if sink.implicit_tls:
            self._start_tls()
        if sink.max_connections is not None and sink.connections > sink.max_connections:
            server.output()
            server.close(_FULL)
        self._write()
        recv = self._sock.recv
        while not server.is_closed and (data := recv(_BLOCK)):
            events = server.receive(data)
            while events:
                events = self._deal_with(events[-1])
                recv = self._sock.recv
            self._write()

    def close(self) -> None:
        """Close the socket, which TLS may have replaced."""
        self._sock.close()

    def _start_tls(self) -> None:
        if self._sink.tls:
            self._sock = self._sink.tls.wrap_socket(self._sock, server_side=True)

    def _write(self) -> None:
        if output := self._server.output():
            if self._sink.delay_s:
                gevent.sleep(self._sink.delay_s)
            self._sock.sendall(output)

    def _deal_with(self, event: Event) -> list[Event]:
        if not isinstance(event, Mail):
            self._write()
            self._start_tls()
            self._server.tls_started()
            return []
        for recipient in event.recipients:
            match = _FAULT.match(recipient)
            if match and match[1] in _AT_THE_DOT:
                return self._misbehave(event, match[1], _number(match[2]))
        self._sink.take(event)
        return self._accept()

    def _accept(self, answer: Answer = OK) -> list[Event]:
        self._mails += 1
        if self._mails != self._sink.mails_per_connection:
            return self._server.answer(answer)
        # What was pipelined behind this mail is not looked at any more.
        self._server.close(answer)
        if self._sink.says_421:
            self._server.close(_USED_UP)
        return []

    def _misbehave(self, mail: Mail, fault: str, number: float) -> list[Event]:
        if fault != "data":
            self._sink.take(mail)
        self._write()
        return _AT_THE_DOT[fault](self, number)

    def _refuse(self, code: float) -> list[Event]:
        return self._server.answer(_requested(code))

    def _stall(self, seconds: float) -> list[Event]:
        gevent.sleep(seconds or 30)
        return self._accept()

    def _drip(self, seconds: float) -> list[Event]:
        events = self._accept()
        for byte in self._server.output():
            gevent.sleep(seconds or 1)
            self._sock.sendall(bytes([byte]))
        return events

    def _hang_up(self, _number: float) -> list[Event]:
        self._server.close()
        return []

    def _keep_silent(self, _number: float) -> list[Event]:
        while self._sock.recv(_BLOCK):
            pass
        return self._hang_up(0)

    def _talk_nonsense(self, _number: float) -> list[Event]:
        self._sock.sendall(b"Hello, this is no reply.\r\n")
        return self._keep_silent(0)

    def _repeat(self, _number: float) -> list[Event]:
        self._sock.sendall(OK.wire)
        return self._accept()


_AT_THE_DOT: Mapping[str, Callable[[_Conversation, float], list[Event]]] = {
    "data": _Conversation._refuse,
    "stall": _Conversation._stall,
    "drip": _Conversation._drip,
    "hangup": _Conversation._hang_up,
    "never": _Conversation._keep_silent,
    "junk": _Conversation._talk_nonsense,
    "twice": _Conversation._repeat,
}


def _listener(address: tuple[str, int]) -> socket.socket:
    host, port = address
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from None
    return listener


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _requested(number: float) -> Answer:
    code = int(number) if 400 <= number < 600 else 550
    return Answer(code, f"{code // 100}.0.0", "As the address asks for")


def _checker(logins: Mapping[str, str]) -> Callable[[str, str], bool]:
    def is_right(user: str, password: str) -> bool:
        return hmac.compare_digest(logins.get(user, "").encode(), password.encode())

    return is_right


class _Record:
    """A file that gets a line for each mail, in blocks: after 1,000 lines or 0.2 s."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"can't record to {path}: {error.strerror}") from None
        self._lines: list[str] = []

    def add(self, mail: Mail) -> None:
        """Note one mail with the time of now."""
        if not self._lines:
            gevent.spawn_later(0.2, self._flush)
        match = _MESSAGE_ID.search(mail.content)
        message_id = match[1].decode(errors="backslashreplace") if match else "-"
        self._lines.append(f"{time.time():.6f} {message_id} {mail.recipients[0]}\n")
        if len(self._lines) >= 1000:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        os.close(self._file)

    def _flush(self) -> None:
        if self._lines:
            block = "".join(self._lines).encode()
            self._lines.clear()
            os.write(self._file, block)


def serve(
    listen: str, *, verbose: bool = False, record: str | None = None, out: TextIO | None = None
) -> int:
    """Run a sink on `listen` (HOST:PORT, or PORT) until SIGINT or SIGTERM; return how many it took.

    The address comes first, then a line for each mail when `out` is a terminal or `verbose`, else
    the count once a second while it grows. Raises ConfigError when `listen` is no address or is in
    use.
    """
    out = out or sys.stdout
    shows_mails = verbose or out.isatty()
    ended = gevent.event.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, ended.set)
    on_mail = partial(_show_mail, out) if shows_mails else None
    with Sink(read_address(listen), on_mail=on_mail, record=record) as sink:
        host, port = sink.address
        print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", file=out, flush=True)
        shown = 0
        while not ended.wait(1.0):
            if sink.count != shown and not shows_mails:
                shown = sink.count
                print(f"{shown} mails", file=out, flush=True)
    print(f"took {sink.count} mails", file=out, flush=True)
    return sink.count


def read_address(listen: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT` (on 127.0.0.1)."""
    host, _, port = listen.strip().rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"{listen!r} is no address to listen on: pass HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


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
