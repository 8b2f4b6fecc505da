"""The TCP door: JSON documents one behind the other, as Swoole's clients send them.

    {"from_email":"a@x","to_email":"b@y","title":"…","content":"…"}{"url":"http://…"}…

Whatever has ended with what one read brought is pushed together; then each document gets a line, in
order: `{"id": "…"}`, or `{"error": "…"}` (with `retry_after_s` where it may be sent again). Where
more waits than the high water, lines carry `"pressure": "high"`: the door goes on taking.

A client that has hung up gets no answer, and all its documents count. Since nobody would hear of a
refusal, they are pushed as they are, so that a bad one becomes a dead letter with its reason; and
while Redis is away they are kept (intake/unheard.py). With `door_token` the first document is
`{"token": "…"}`; it gets no line when it is right.

When nobody can know where the next document begins (garbage, one too large, one too slow), the
client gets an error, and the connection ends. Not promised: that a client which hangs up without
waiting knows that its bytes came at all.
"""

import math
import secrets
import socket
import time
from ssl import SSLContext, SSLWantReadError

import gevent
import msgspec

from geomail import log, metrics
from geomail.config import Settings
from geomail.errors import PayloadError
from geomail.intake import limits
from geomail.intake.framing import Framing
from geomail.intake.gate import Gate, Refused
from geomail.intake.guest import Guest
from geomail.intake.reception import Reception
from geomail.intake.seldom import Seldom

_READ_BYTES = 64 * 1024
_MOST_AT_ONCE = 500
_LEAST_BYTES_S = 10_000  # a document that comes more slowly is given up
_ROOM_S = 5.0
_WRITE_S = 30.0
_WRONG_TOKEN_S = 1.0
_FULL = b'{"error": "too many connections: try again", "retry_after_s": 10}\n'

_NEEDS_TLS = b'{"error": "this door speaks TLS, from the first byte on"}\n'

_to_json = msgspec.json.Encoder().encode


class TcpDoor:
    """The door of `listen_tcp`."""

    def __init__(self, gate: Gate, settings: Settings, tls: SSLContext | None) -> None:
        self.gate = gate
        self.token = settings.door_token.encode() if settings.door_token else None
        self.idle_s = settings.door_idle_s
        self.most_bytes = limits.most_bytes(settings)
        self.say_refused = Seldom(log.info, "refused")
        self.say_wrong = Seldom(log.warning, "wrong_token")
        self.reception = Reception(
            self._converse,
            most=settings.door_connections,
            farewell=_FULL,
            tls=tls,
            in_clear=_NEEDS_TLS,
        )

    def start(self, listener: socket.socket) -> None:
        """Let clients in."""
        self.reception.start(listener)

    def stop(self, grace_s: float) -> None:
        """Let nobody in, and answer what has come."""
        self.reception.stop(grace_s)

    def _converse(self, guest: Guest) -> None:
        conversation = _Conversation(self, guest)
        try:
            conversation.run()
        finally:
            conversation.share.hold(0)


class _Ended(Exception):
    """There is nothing more to expect of this client; the text, and `more`, are for it."""

    def __init__(self, why: str, **more: object) -> None:
        super().__init__(why)
        self.more = more


class _Conversation:
    """One connection."""

    def __init__(self, door: TcpDoor, guest: Guest) -> None:
        self.share = door.gate.room.share()
        self._door = door
        self._gate = door.gate
        self._guest = guest
        self._sock = guest.sock
        self._host = guest.host
        self._framing = Framing(most_bytes=door.most_bytes)
        self._is_trusted = door.token is None
        self._has_hung_up = False
        self._began = 0.0  # the document that has not ended

    def run(self) -> None:
        """Take documents until the client has no more."""
        try:
            while not self._has_hung_up:
                self._take(self._read())
                gevent.sleep(0)  # a fast client must not keep the others waiting
        except _Ended as end:
            self._door.say_refused(door="tcp", host=self._host, why=str(end))
            self._answer([_error(str(end), **end.more)])
            self._guest.see_out()

    # ---- reading

    def _read(self) -> list[bytes]:
        """Wait for more, and return the documents that it ends."""
        try:
            data = self._guest.read(_READ_BYTES, self._patience_s(), is_begun=bool(self._began))
        except TimeoutError:
            raise _Ended(self._why_late()) from None
        documents = self._feed(data)
        if documents and not self._has_hung_up:
            documents += self._look_for_more()
        self._hold(sum(map(len, documents)))
        return documents

    def _hold(self, whole: int) -> None:
        """Hold what has come; what is `whole` will soon be gone, room or not."""
        has_room = self.share.hold(self._framing.pending + whole, patience_s=_ROOM_S)
        if not has_room and not whole:
            raise _Ended("too much is on its way in from all clients: try again later")

    def _feed(self, data: bytes) -> list[bytes]:
        self._has_hung_up = not data
        documents = self._framing.feed(data)
        if not self._framing.pending:
            self._began = 0.0
        elif documents or not self._began:
            self._began = time.monotonic()
        return documents

    def _look_for_more(self) -> list[bytes]:
        """Read once more, what is there already: often that the client has hung up."""
        self._sock.settimeout(0.0)
        try:
            return self._feed(self._sock.recv(_READ_BYTES))
        except (BlockingIOError, SSLWantReadError):
            return []
        except ConnectionError:
            self._has_hung_up = True
            return []

    def _patience_s(self) -> float:
        if not self._began:
            return self._door.idle_s
        allowed_s = self._door.idle_s + self._framing.pending / _LEAST_BYTES_S
        return max(0.001, self._began + allowed_s - time.monotonic())

    def _why_late(self) -> str:
        return "a document came too slowly" if self._began else "nothing came for too long"

    # ---- taking

    def _take(self, documents: list[bytes]) -> None:
        if documents and not self._is_trusted:
            self._look_at_token(documents.pop(0))
        for start in range(0, len(documents), _MOST_AT_ONCE):
            self._push(documents[start : start + _MOST_AT_ONCE])
            gevent.sleep(0)  # also where all of them are refused
        self._hold(0)
        if self._framing.fault is not None:
            raise _Ended(self._framing.fault)
        if self._has_hung_up and self._framing.pending:
            raise _Ended("the last document has no end")

    def _look_at_token(self, document: bytes) -> None:
        guesses, now = self._gate.guesses, time.monotonic()
        wait_s = guesses.wait_s(self._host, now)
        if wait_s:
            why = "too many wrong tokens from this address: try again"
            raise _Ended(why, retry_after_s=math.ceil(wait_s))
        expected = self._door.token or b""
        try:
            given = msgspec.json.decode(document, type=dict[str, object]).get("token")
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            given = None
        shown = given.encode() if isinstance(given, str) else b""
        if not secrets.compare_digest(shown, expected):
            guesses.was_wrong(self._host, now, shown)
            self._door.say_wrong(door="tcp", host=self._host)
            self._door.reception.leaving.wait(_WRONG_TOKEN_S)  # so that trying takes long
            raise _Ended('the first document must be {"token": "…"}, with the token of this door')
        self._is_trusted = self._guest.is_known = True
        guesses.was_right(self._host, now)

    def _push(self, documents: list[bytes]) -> None:
        delay_s = self._gate.rates.spend(self._host, len(documents), time.monotonic())
        if delay_s:
            self._door.reception.leaving.wait(delay_s)
        if self._has_hung_up:
            self._gate.unheard.take(documents)
            return
        reasons = [self._reason_against(document) for document in documents]
        good = [each for each, why in zip(documents, reasons, strict=True) if why is None]
        try:
            ids = iter(self._gate.submit(good))
        except Refused as error:
            refusal = _error(str(error), retry_after_s=error.retry_after_s)
            lines = [_error(why) if why else refusal for why in reasons]
        else:
            if good:
                self._guest.is_known = True
            more = {"pressure": "high"} if self._gate.pressure == "high" else {}
            lines = [_error(why) if why else _to_json({"id": next(ids)} | more) for why in reasons]
        self._answer(lines)

    def _reason_against(self, document: bytes) -> str | None:
        try:
            self._gate.check(document)
        except PayloadError as error:
            metrics.count("refused_payloads")
            return str(error)
        return None

    def _answer(self, lines: list[bytes]) -> None:
        self._sock.settimeout(_WRITE_S)
        try:
            self._sock.sendall(b"\n".join([*lines, b""]))
        except OSError:  # it has hung up meanwhile: what it sent counts
            self._has_hung_up = True


def _error(why: str, **more: object) -> bytes:
    return _to_json({"error": why} | more)
