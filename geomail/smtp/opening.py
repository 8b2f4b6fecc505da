"""The dialogue before the first message: greeting, EHLO or HELO, STARTTLS, AUTH, a proof.

A table of steps and one door: `take()` is told which reply came to what, and returns the next step,
a value that the client acts on. Nothing is written or ended here.

    Say               write a line, and await the replies to it
    HandshakeWanted   STARTTLS was agreed on; `tls_started()` goes on, and has forgotten all that
                      was announced in clear (RFC 3207 section 4.2)
    Ready             letters may begin; `capabilities` is what this very TLS state announced
    Lost              the connection is of no use, and why

What the policy demands is never given up: without TLS where it must be, or without the login, there
is no Ready. EHLO is not said again behind the login, for some hosts then forget the login. Whether
a reply was awaited at all, the client knows: it counts. RFC 5321, 3207, 4954.

One login is tried, once: another mechanism only where the host doesn't speak the one before, or
takes no initial response with it. A password goes in clear where the policy says so, a token never,
and what a host repeats of either is taken out of what is said of it (`discreet`).

The proof (`chunking = "prove"`) is about BDAT (RFC 3030). A chunk is sent together with its
envelope; a host that refuses the envelope and does not swallow the chunk would run the mail as
commands. So where no transaction is open, one chunk is sent for it to refuse, and RSET: who answers
twice, no and yes, has swallowed it, and who answers three times has tried to run it.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp import auth, extensions
from geomail.smtp.events import Awaited, Cause, HandshakeWanted, Lost, Policy, Ready
from geomail.smtp.reply import ENOUGH, Reply

COMMAND_LIMIT = 512
# 5.5.4: the host takes no such argument; 5.7.4: it doesn't do what was asked (RFC 3463).
_OTHER_MECHANISM = ("5.5.4", "5.7.4")
# What hosts say with 535, 534 (RFC 4954 section 6: too weak) or 50z about the mechanism alone.
_UNSPOKEN = re.compile(
    r"\b(?:mechanism|auth(?:entication)? type|auth method)\b.*"
    r"\b(?:invalid|un(?:known|supported|recogni[sz]ed|implemented|available)|too weak"
    r"|not (?:supported|recogni[sz]ed|implemented|available|enabled|allowed))\b"
    r"|\b(?:invalid|no|un(?:known|supported|recogni[sz]ed|implemented|available))\b.{0,30}"
    r"\b(?:mechanism|auth(?:entication)? type|auth method)\b",
    re.IGNORECASE,
)
_MOST_OF_A_TEXT = 300
_PROOF = b"BDAT 7 LAST\r\nXYZZY\r\nRSET\r\n"


class Say(msgspec.Struct, frozen=True):
    """A step: write `line` (b"": what was written has more replies) and await a reply."""

    awaited: Awaited
    line: bytes


Step = Say | HandshakeWanted | Ready | Lost


class Opening:
    """One connection's opening; `under_tls` is true where TLS came before the first byte."""

    def __init__(self, policy: Policy, *, under_tls: bool) -> None:
        self.policy = policy
        self.under_tls = under_tls
        self.is_logged_in = False
        self.greeting: Reply | None = None
        self.capabilities: dict[str, str] = {}
        self.proved: bool | None = None
        self._proof: list[Reply] = []
        self._mechanisms: list[str] = []
        self._exchange: auth.Exchange | None = None
        self._response: bytes | None = None  # an initial response too long for the AUTH line
        self._is_under_way = False  # a challenge has come
        self._reason = ""  # why a token was refused

    @property
    def mechanism(self) -> str | None:
        """By what the login was accepted; None where there was none."""
        return self._exchange.mechanism if self._exchange and self.is_logged_in else None

    @property
    def chunks(self) -> bool:
        """True where messages go by BDAT."""
        return self._may_chunk() and (self.policy.chunking == "on" or self.proved is True)

    def take(self, awaited: Awaited, reply: Reply) -> Step:
        """Return the step that follows from the reply to what was awaited."""
        return self._steps[awaited](self, reply)

    def tls_started(self) -> Step:
        """Go on behind the handshake, as if nothing had been said before."""
        self.under_tls = True
        return self._hello()

    def discreet(self, lost: Lost) -> Lost:
        """Return `lost` without what the server repeats of the login, its text at most 2 KB."""
        exchange, reply, text = self._exchange, lost.reply, lost.text
        if exchange is not None:
            text = exchange.redacted(text)
            if reply is not None:
                lines = tuple(map(exchange.redacted, reply.lines))
                reply = msgspec.structs.replace(reply, lines=lines)
        return msgspec.structs.replace(lost, text=text[:ENOUGH], reply=reply)

    # ---- greeting, EHLO, HELO

    def _on_greeting(self, reply: Reply) -> Step:
        self.greeting = reply
        return self._hello() if reply.code == 220 else _refused(Awaited.GREETING, reply)

    def _hello(self) -> Step:
        self.capabilities = {}
        helo = self.policy.helo
        if not (helo and helo.isascii()) or extensions.SUSPECT.search(helo) is not None:
            text = f"our name can't be {helo!r}: set helo"
            return Lost(Cause.OUT_OF_STEP, Awaited.EHLO, text)
        return _say(Awaited.EHLO, f"EHLO {helo}\r\n")

    def _on_ehlo(self, reply: Reply) -> Step:
        if reply.is_positive:
            self.capabilities = extensions.announced(reply)
            return self._secure()
        if reply.is_permanent and not self._must_have_ehlo():
            return _say(Awaited.HELO, f"HELO {self.policy.helo}\r\n")
        return _refused(Awaited.EHLO, reply)

    def _must_have_ehlo(self) -> bool:
        wants_tls = self.policy.tls == "must" and not self.under_tls
        return wants_tls or self.policy.login is not None

    def _on_helo(self, reply: Reply) -> Step:
        return self._secure() if reply.is_positive else _refused(Awaited.HELO, reply)

    # ---- STARTTLS

    def _secure(self) -> Step:
        if self.under_tls or self.policy.tls == "never":
            return self._authenticate()
        if "STARTTLS" in self.capabilities:
            return _say(Awaited.STARTTLS, "STARTTLS\r\n")
        if self.policy.tls == "must":
            text = "TLS is required, and STARTTLS is not offered"
            return Lost(Cause.TLS, Awaited.EHLO, text)
        return self._authenticate()

    def _on_starttls(self, reply: Reply) -> Step:
        if reply.code == 220:
            return HandshakeWanted()
        if self.policy.tls == "must":
            return _refused(Awaited.STARTTLS, reply, Cause.TLS)
        return self._authenticate()

    # ---- AUTH

    def _authenticate(self) -> Step:
        login = self.policy.login
        if login is None:
            return self._prove()
        if not self.under_tls and (login.token is not None or not self.policy.auth_in_clear):
            secret = "password" if login.token is None else "token"
            return _no_login(f"no {secret} is sent without TLS")
        offered = frozenset(self.capabilities.get("AUTH", "").upper().split())
        # Without a nonce of its own a connection can't do SCRAM.
        usable = offered if self.policy.nonce else offered - {"SCRAM-SHA-256"}
        self._mechanisms = auth.choose(usable, login, in_clear=not self.under_tls)
        if not self._mechanisms:
            known = ", ".join(sorted(offered)) or "none"
            return _no_login(f"no AUTH mechanism in common: {known}")
        return self._try_mechanism(login)

    def _try_mechanism(self, login: auth.Login) -> Step:
        name = self._mechanisms.pop(0)
        self._exchange = exchange = auth.Exchange(name, login, self.policy.nonce)
        self._reason = ""
        self._is_under_way = False
        try:
            self._response = exchange.first()
        except ProtocolError as error:
            return _no_login(str(error))
        line = f"AUTH {name}".encode()
        if self._response is not None:
            encoded = base64.b64encode(self._response) or b"="
            if len(line) + len(encoded) + 3 <= COMMAND_LIMIT:
                line += b" " + encoded
                self._response = None
        return _say(Awaited.AUTH, line + b"\r\n")

    def _on_auth(self, reply: Reply) -> Step:
        exchange, login = self._exchange, self.policy.login
        if exchange is None or login is None:
            return _refused(Awaited.AUTH, reply, Cause.LOGIN)
        if reply.code == 334:
            return self._respond(exchange, reply)
        if not reply.is_positive:
            if self._mechanisms and self._is_about_the_mechanism(reply):
                return self._try_mechanism(login)
            reason = f" ({self._reason})" if self._reason else ""
            return Lost(Cause.LOGIN, Awaited.AUTH, f"{reply}{reason}", reply)
        try:
            exchange.succeeded()
        except ProtocolError as error:
            return _no_login(str(error))
        self.is_logged_in = True
        return self._prove()

    def _respond(self, exchange: auth.Exchange, reply: Reply) -> Step:
        self._is_under_way = True
        response, self._response = self._response, None
        try:
            if response is None:
                challenge = _challenge(reply)
                self._reason = exchange.reason(challenge)
                response = exchange.respond(challenge)
        except ProtocolError as error:
            return _no_login(str(error))
        return _say(Awaited.AUTH, base64.b64encode(response) + b"\r\n")

    def _is_about_the_mechanism(self, reply: Reply) -> bool:
        """Tell a mechanism that the host doesn't speak from a login that it doesn't accept."""
        if reply.code == 504:
            return True
        if not reply.is_permanent or self._is_under_way:
            return False
        is_said = _UNSPOKEN.search(str(reply)[:_MOST_OF_A_TEXT]) is not None
        return is_said or reply.enhanced in _OTHER_MECHANISM

    # ---- the proof of chunking

    def _prove(self) -> Step:
        if self.policy.chunking == "prove" and self._may_chunk():
            return _say(Awaited.PROOF, _PROOF)
        return Ready()

    def _may_chunk(self) -> bool:
        is_announced = {"CHUNKING", "PIPELINING"} <= self.capabilities.keys()
        return is_announced and self.policy.pipeline == "overlap" and self.policy.chunking != "off"

    def _on_proof(self, reply: Reply) -> Step:
        proof = self._proof
        proof.append(reply)
        if reply.is_intermediate or (len(proof) == 3 and not reply.is_positive):
            text = f"unexpected reply: {reply}"
            return Lost(Cause.OUT_OF_STEP, Awaited.PROOF, text, reply)
        if len(proof) == 1 or (len(proof) == 2 and not reply.is_positive):
            return _say(Awaited.PROOF, b"")
        self.proved = len(proof) == 2 and not proof[0].is_positive
        return Ready()

    # Of the class, not of each opening: bound methods would make a cycle of it.
    _steps: ClassVar[Mapping[Awaited, Callable[["Opening", Reply], Step]]] = {
        Awaited.GREETING: _on_greeting,
        Awaited.EHLO: _on_ehlo,
        Awaited.HELO: _on_helo,
        Awaited.STARTTLS: _on_starttls,
        Awaited.AUTH: _on_auth,
        Awaited.PROOF: _on_proof,
    }


def _say(awaited: Awaited, line: str | bytes) -> Say:
    return Say(awaited, line.encode() if isinstance(line, str) else line)


def _refused(phase: Awaited, reply: Reply, cause: Cause = Cause.REFUSED) -> Lost:
    return Lost(cause, phase, str(reply), reply)


def _no_login(text: str) -> Lost:
    return Lost(Cause.LOGIN, Awaited.AUTH, text)


def _challenge(reply: Reply) -> bytes:
    text = reply.lines[0].strip()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()  # LOGIN's prompts are sometimes sent in clear
