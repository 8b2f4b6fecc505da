"""The HTTP door: POST /v1/messages, and what became of one.

    POST /v1/messages       application/json: one job → 202 {"id"}
                            application/x-ndjson: a job a line → 200, a line for each, as they come
    GET  /v1/messages/ID    its state
    GET  /healthz           200 while Redis answers, else 503; no token needed
    GET  /v1/openapi.json   all of this, for programs; no token needed

What a request lacks is said before its body is read: a wrong path or method, no token, a type that
is no JSON, a body that is too large, too many jobs waiting. JSON alone is taken, and nothing from a
web page (Origin) without a token, so that no page which a browser on this machine looks at can send
mail through a door that only this machine reaches.

Wrong tokens are counted by address (geomail.intake.guesses): then comes a 429 for a while.

Own loop, not gevent.pywsgi: measured beside each other with one job decoded a request, 39,000
requests a second against 10,000. And pywsgi takes folded lines, int("+1_0") for a length, the first
of two lengths, and no body for a coding it does not know; has no deadline for a slow client; reads
to its end a body that was refused; and can't give the first lines' answers while the last ones
come.
"""

import hmac
import socket
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from importlib import resources
from ssl import SSLContext
from urllib.parse import unquote

import msgspec

from geomail import log, metrics
from geomail.config import Settings
from geomail.errors import PayloadError
from geomail.intake import limits, messages
from geomail.intake.bodies import BodyError
from geomail.intake.gate import Gate
from geomail.intake.guest import Guest
from geomail.intake.heads import TLS_CAME, Fault, Head
from geomail.intake.messages import PUSH_JOBS, Answer, Many, fault
from geomail.intake.reception import Reception
from geomail.intake.seldom import Seldom
from geomail.intake.visit import Stream, TooSlowError, Visit

_FULL_BODY = b'{"error":"door_connections are there already: come again in a second"}\n'
_TLS_BODY = b'{"error":"this door speaks TLS: https://, not http://"}\n'
_ONE = "application/json"
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_MESSAGES = "/v1/messages"
_READING = "GET, HEAD"
_ROOM_S = 5.0
_SMALL = 16 * 1024  # needs no room of its own


class HttpDoor:
    """Serves HTTP on one listening socket."""

    def __init__(self, gate: Gate, settings: Settings, tls: SSLContext | None) -> None:
        self._gate = gate
        self._token = settings.door_token.encode() if settings.door_token else None
        self._say_wrong = Seldom(log.warning, "wrong_token")
        self._idle_s = settings.door_idle_s
        self._room_s = min(_ROOM_S, self._idle_s)
        self._most_bytes = limits.most_bytes(settings)
        self._rate = settings.door_rate
        self._reception = Reception(
            self._converse,
            most=settings.door_connections,
            farewell=_refusal(503, _FULL_BODY, b"Retry-After: 1\r\n"),
            tls=tls,
            in_clear=_refusal(400, _TLS_BODY),
        )

    def start(self, listener: socket.socket) -> None:
        """Accept connections until `stop`."""
        self._reception.start(listener)

    def stop(self, grace_s: float) -> None:
        """Accept no more, answer what is in hand, and leave."""
        self._reception.stop(grace_s)

    @property
    def guests(self) -> int:
        """How many connections there are."""
        return self._reception.guests

    def _converse(self, guest: Guest) -> None:
        share = self._gate.room.share()
        visit = Visit(guest, share, self._idle_s)
        try:
            while self._turn(visit):
                share.hold(0)
        finally:
            share.hold(0)

    def _turn(self, visit: Visit) -> bool:
        """Serve one request; return whether there may be another."""
        head = visit.next_head()
        if head is None:
            return False
        if isinstance(head, Fault):
            if head is TLS_CAME:
                self._reception.note_tls(visit.host)
            return self._say(visit, fault(head.status, head.why), None, keeps=False)
        try:
            return self._serve(visit, head, head.keeps)
        except (BodyError, TooSlowError) as error:
            status = 408 if isinstance(error, TooSlowError) else 400
            return self._say(visit, fault(status, str(error)), head, keeps=False)

    def _serve(self, visit: Visit, head: Head, keeps: bool) -> bool:
        answer = self._read_only(head, visit)
        if answer is None:
            answer = self._objection(head, visit)
            if answer is None:
                return self._take(visit, head, keeps)
        return self._say(visit, answer, head, keeps=visit.skip_body(head) and keeps)

    def _say(self, visit: Visit, answer: Answer, head: Head | None, *, keeps: bool) -> bool:
        """Send an answer; where it is the last one, see to it that it is read. Return whether there
        may be another.
        """
        keeps = keeps and not self._reception.is_leaving
        metrics.count(f"http_{answer.status}")
        if answer.status >= 400:
            log.debug("http_refused", host=visit.host, status=answer.status, said=answer.body)
        visit.answer(answer, head, keeps=keeps)
        if not keeps:
            visit.leave()
        return keeps

    # ---- what is asked

    def _read_only(self, head: Head, visit: Visit) -> Answer | None:
        """Answer what needs no body and changes nothing; None for what brings messages."""
        look = self._look_for(head.path)
        if look is None:
            if head.path.removesuffix("/") != _MESSAGES:
                return fault(404, f"no such path: {_MESSAGES} is where messages go")
            if head.method != "POST":
                return fault(405, f"POST to {_MESSAGES}", ("Allow", "POST"))
            return None
        if head.method not in ("GET", "HEAD"):
            return fault(405, f"GET {head.path}", ("Allow", _READING))
        return look(head, visit)

    def _look_for(self, path: str) -> Callable[[Head, Visit], Answer] | None:
        if path.startswith(_MESSAGES + "/") and len(path) > len(_MESSAGES) + 1:
            return self._tell
        return {"/healthz": self._health, "/v1/openapi.json": _description}.get(path)

    def _tell(self, head: Head, visit: Visit) -> Answer:
        stranger = self._stranger(head, visit)
        job_id = unquote(head.path.removeprefix(_MESSAGES + "/"))
        return stranger or messages.tell_of(self._gate, job_id)

    def _health(self, _head: Head, _visit: Visit) -> Answer:
        gate = self._gate
        redis = "away" if gate.is_away else "ok"
        state = {"redis": redis, "pressure": gate.pressure, "waiting": gate.depth}
        return Answer(503 if gate.is_away else 200, state, (("Cache-Control", "no-store"),))

    def _stranger(self, head: Head, visit: Visit) -> Answer | None:
        """Return what is said to somebody without the token; None for whom we know."""
        said = head.fields.get("authorization", "")
        if self._token is None:
            if "origin" in head.fields:
                return fault(403, "a web page needs the token: set door_token")
            return None
        guesses, now = self._gate.guesses, time.monotonic()
        wait_s = guesses.wait_s(visit.host, now) if said else 0.0
        if wait_s:
            return messages.later(429, "too many wrong tokens from this address", wait_s)
        scheme, _, shown = said.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            shown.strip().encode("latin-1"), self._token
        ):
            visit.guest.is_known = True
            guesses.was_right(visit.host, now)  # each time: a kept connection may last for weeks
            return None
        if said:
            guesses.was_wrong(visit.host, now, said.encode("latin-1"))
            self._say_wrong(door="http", host=visit.host)
        why = "the token of this door expected: `Authorization: Bearer TOKEN`"
        return fault(401, why, ("WWW-Authenticate", "Bearer"))

    # ---- taking messages

    def _objection(self, head: Head, visit: Visit) -> Answer | None:
        """Return what is against a POST as far as its head tells; None when its body is wanted."""
        stranger = self._stranger(head, visit)
        if stranger is not None:
            return stranger
        kind = _type_of(head)
        if kind not in (_ONE, *_LINES):
            return fault(415, f"Content-Type: {_ONE}, or {_LINES[0]} for many, expected")
        if head.fields.get("content-encoding", "identity").lower() != "identity":
            why = "Content-Encoding: send it as it is, not compressed"
            return fault(415, why, ("Accept-Encoding", "identity"))
        if kind == _ONE and (head.length or 0) > self._most_bytes:
            return self._too_large()
        return messages.too_many(self._gate, visit.host)

    def _too_large(self) -> Answer:
        return fault(413, f"at most {self._most_bytes:,} bytes are taken (door_max_mb)")

    def _take(self, visit: Visit, head: Head, keeps: bool) -> bool:
        key = head.fields.get("idempotency-key")
        try:
            key = None if key is None else messages.read_key(key)
        except PayloadError as error:
            answer = fault(400, str(error))
        else:
            if _type_of(head) != _ONE:
                return self._take_many(visit, head, key, keeps)
            payload = self._whole_body(visit, head)
            if isinstance(payload, bytes):
                self._gate.rates.spend(visit.host, 1, time.monotonic())
                answer = messages.take_one(self._gate, payload, key)
                if answer.status == 202:
                    visit.guest.is_known = True
                return self._say(visit, answer, head, keeps=keeps)
            answer = payload
        return self._say(visit, answer, head, keeps=False)

    def _whole_body(self, visit: Visit, head: Head) -> bytes | Answer:
        whole: bytes | bytearray = b""
        for piece in visit.body(head):
            size = len(whole) + len(piece)
            if size > self._most_bytes:
                return self._too_large()
            if size > _SMALL and not visit.share.hold(size, patience_s=self._room_s):
                return messages.later(503, messages.CROWDED, 1)
            if whole:
                # Not a list of pieces: one of two bytes takes forty.
                whole = bytearray(whole) if isinstance(whole, bytes) else whole
                whole += piece
            else:
                whole = piece
        return bytes(whole)

    def _take_many(self, visit: Visit, head: Head, key: str | None, keeps: bool) -> bool:
        keeps = keeps and not self._reception.is_leaving
        stream = Stream(visit, head, _LINES[0].encode(), keeps=keeps)
        many = self._many(visit, key)
        try:
            for piece in visit.body(head):
                stream.write_all(many.feed(piece))
            stream.write_all(many.end())
        except (BodyError, TooSlowError) as error:
            stream.write_all(many.feed(b""))
            if not stream.has_begun:
                raise
            stream.write(messages.broken_off(str(error)))
            visit.leave()  # without an end: the client sees that something is missing
            return False
        if not stream.has_begun:
            none = fault(400, "a job a line expected, none came")
            return self._say(visit, none, head, keeps=keeps)
        metrics.count("http_200")
        stream.end()
        if not stream.keeps:
            visit.leave()
        return stream.keeps

    def _many(self, visit: Visit, key: str | None) -> Many:
        def pay(jobs: int) -> None:
            visit.guest.is_known = True
            delay_s = self._gate.rates.spend(visit.host, jobs, time.monotonic())
            if delay_s:
                self._reception.leaving.wait(delay_s)

        return Many(
            self._gate,
            key,
            visit.share,
            most_bytes=self._most_bytes,
            most_jobs=self._rate or PUSH_JOBS,
            room_s=self._room_s,
            pay=pay,
        )


def _refusal(status: int, body: bytes, more: bytes = b"") -> bytes:
    """Return what is said to who is not let in."""
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%b"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (status, HTTPStatus(status).phrase.encode(), more, len(body), body)
    )


def _type_of(head: Head) -> str:
    return head.fields.get("content-type", "").partition(";")[0].strip().lower()


@cache
def _description_read() -> msgspec.Raw:
    return msgspec.Raw(resources.files("geomail.intake").joinpath("openapi.json").read_bytes())


def _description(_head: Head, _visit: Visit) -> Answer:
    return Answer(200, _description_read())
