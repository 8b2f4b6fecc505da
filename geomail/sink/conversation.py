"""One connection of the sink: a conversation as any server leads it, and the faults of content.

A fault of content happens when all of it has come, by DATA at the final dot, by BDAT with the last
octet of the last chunk; only `rst` strikes before. What a recipient asks for comes before what is
asked of the whole sink. Deadlines there are none: a client may take its time, as the faults do.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from ssl import SSLContext
from typing import Protocol

import gevent
from gevent import socket

from geomail.intake.conversation import BLOCK, Conversation
from geomail.sink.faults import AT_RCPT, Fault, read_fault, requested
from geomail.smtp.answers import OK, TOO_MANY_MAILS, Answer
from geomail.smtp.phases import Phase
from geomail.smtp.policy import Policy
from geomail.smtp.server import Event, Mail, Server

_FULL = Answer(421, "4.7.0", "Too many connections")
_RESET = struct.pack("ii", 1, 0)  # linger, but for no time: the peer gets an RST
_NOTHING = Answer(250, "", "")
_NOTHING.wire = _NOTHING.bare = b""
_IN_CONTENT = frozenset([Phase.CONTENT, Phase.CHUNK, Phase.LAST_CHUNK, Phase.CHUNKED])


class Owner(Protocol):
    """What a conversation asks of its sink."""

    policy: Policy
    tls: SSLContext | None
    implicit_tls: bool
    delay_s: float
    mails_per_connection: int | None
    says_421: bool
    fault: Fault | None

    @property
    def is_full(self) -> bool:
        """Tell whether this connection is one too many."""

    def take(self, mail: Mail) -> None:
        """Count a mail, which is not answered yet."""

    def refusal(self, fault: Fault, address: str) -> Answer | None:
        """Return what is answered at MAIL or RCPT."""


class Misbehaving(Conversation):
    """What is said on one socket of the sink, from the greeting to the end."""

    __slots__ = ("_is_asked", "_mails", "_sink")

    def __init__(self, sink: Owner, sock: socket.socket) -> None:
        self._sink = sink
        self._mails = 0
        self._is_asked = sink.fault is not None
        policy = replace(
            sink.policy, check_sender=self._check_sender, check_recipient=self._check_recipient
        )
        super().__init__(sock, Server(policy, is_encrypted=sink.implicit_tls), sink.tls)

    def run(self) -> None:
        """Serve the client until one of the two has had enough. Raises OSError."""
        if self._sink.implicit_tls:
            self._start_tls()
        if self._sink.is_full:
            self._server.output()
            self._server.close(_FULL)
        super().run()

    def _hear(self, data: bytes) -> None:
        super()._hear(data)
        if self._is_asked and self._server.phase in _IN_CONTENT:
            self._reset_within_content()

    def _write(self) -> bool:
        if self._sink.delay_s and self._server.has_output:
            gevent.sleep(self._sink.delay_s)
        return super()._write()

    # MAIL and RCPT

    def _check_sender(self, address: str) -> Answer | None:
        if check := self._sink.policy.check_sender:
            return check(address)
        fault = read_fault(address)
        return self._sink.refusal(fault, address) if fault else None

    def _check_recipient(self, address: str) -> Answer | None:
        fault = read_fault(address) or self._sink.fault
        if fault and fault.name not in AT_RCPT:
            self._is_asked = True
        if check := self._sink.policy.check_recipient:
            return check(address)
        return self._sink.refusal(fault, address) if fault else None

    # Content

    def _take(self, mail: Mail) -> list[Event]:
        fault = self._fault(mail.recipients) if self._is_asked else None
        if fault:
            return self._misbehave(mail, fault)
        self._sink.take(mail)
        return self._accept()

    def _fault(self, recipients: tuple[str, ...]) -> Fault | None:
        """Return the first fault that is one of content; forget that there was one."""
        self._is_asked = self._sink.fault is not None
        faults = (read_fault(recipient) for recipient in recipients)
        found = [fault for fault in (*faults, self._sink.fault) if fault]
        return next((fault for fault in found if fault.name in _WITH_CONTENT), None)

    def _accept(self, answer: Answer = OK) -> list[Event]:
        self._mails += 1
        if self._mails != self._sink.mails_per_connection:
            return self._server.answer(answer)
        # What was pipelined behind this mail is not looked at any more.
        self._server.close(answer)
        if self._sink.says_421:
            self._server.close(TOO_MANY_MAILS)
        return []

    def _misbehave(self, mail: Mail, fault: Fault) -> list[Event]:
        is_refused = fault.name == "data" or (fault.name == "bdat" and mail.is_chunked)
        # By DATA a reset that comes too early has come before the final dot did.
        is_cut = fault.name == "rst" and mail.is_chunked and fault.number < len(mail.content)
        if not (is_refused or is_cut):
            self._sink.take(mail)
        self._write()
        if fault.name == "bdat" and not mail.is_chunked:
            return self._accept()
        return _WITH_CONTENT[fault.name](self, fault.number)

    def _refuse(self, code: float) -> list[Event]:
        return self._server.answer(requested(code))

    def _refuse_chunk(self, code: float) -> list[Event]:
        return self._server.answer(requested(code, 502))

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
        while self._sock.recv(BLOCK):
            pass
        return self._hang_up(0)

    def _talk_nonsense(self, _number: float) -> list[Event]:
        self._sock.sendall(b"Hello, this is no reply.\r\n")
        return self._keep_silent(0)

    def _repeat(self, _number: float) -> list[Event]:
        self._sock.sendall(OK.wire)
        return self._accept()

    def _leave_out(self, _number: float) -> list[Event]:
        return self._accept(_NOTHING)

    def _reset(self, _number: float) -> list[Event]:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return self._hang_up(0)

    def _reset_within_content(self) -> None:
        """Read on to where a recipient wants the reset, no octet further; by BDAT, if it can be."""
        fault = self._fault(tuple(self._server.recipients))
        self._is_asked = True
        if not fault or fault.name != "rst":
            return
        wanted = int(fault.number)
        while (left := wanted - self._server.octets) > 0:
            data = self._sock.recv(min(left, BLOCK))
            if not data:
                break
            super()._hear(data)
            if self._server.phase not in _IN_CONTENT:
                return
        self._reset(0)


_WITH_CONTENT: Mapping[str, Callable[[Misbehaving, float], list[Event]]] = {
    "data": Misbehaving._refuse,
    "bdat": Misbehaving._refuse_chunk,
    "stall": Misbehaving._stall,
    "drip": Misbehaving._drip,
    "hangup": Misbehaving._hang_up,
    "never": Misbehaving._keep_silent,
    "junk": Misbehaving._talk_nonsense,
    "twice": Misbehaving._repeat,
    "skip": Misbehaving._leave_out,
    "rst": Misbehaving._reset,
}
