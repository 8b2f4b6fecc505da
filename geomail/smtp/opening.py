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

The proof (`chunking = "prove"`) is about BDAT (RFC 3030). A chunk is sent together with its
envelope; a host that refuses the envelope and does not swallow the chunk would run the mail as
commands. So where no transaction is open, one chunk is sent for it to refuse, and RSET: who answers
twice, no and yes, has swallowed it, and who answers three times has tried to run it.
"""

import base64
import binascii
from collections.abc import Callable

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp import auth, extensions
from geomail.smtp.events import Awaited, Cause, HandshakeWanted, Lost, Policy, Ready
from geomail.smtp.reply import Reply

COMMAND_LIMIT = 512
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
        self._exchange: Exchange | None = None
        self._response: bytes | None = None  # an initial response too long for the AUTH line
        self._steps: dict[Awaited, Callable[[Reply], Step]] = {
            Awaited.GREETING: self._on_greeting,
            Awaited.EHLO: self._on_ehlo,
            Awaited.HELO: self._on_helo,
            Awaited.STARTTLS: self._on_starttls,
            Awaited.AUTH: self._on_auth,
            Awaited.PROOF: self._on_proof,
        }

    @property
    def chunks(self) -> bool:
        """True where messages go by BDAT."""
        return self._may_chunk() and (self.policy.chunking == "on" or self.proved is True)

    def take(self, awaited: Awaited, reply: Reply) -> Step:
        """Return the step that follows from the reply to what was awaited."""
        return self._steps[awaited](reply)

    def tls_started(self) -> Step:
        """Go on behind the handshake, as if nothing had been said before."""
        self.under_tls = True
        return self._hello()

    # ---- greeting, EHLO, HELO

    def _on_greeting(self, reply: Reply) -> Step:
        self.greeting = reply
        return self._hello() if reply.code == 220 else _refused(Awaited.GREETING, reply)

    def _hello(self) -> Step:
        self.capabilities = {}
        helo = self.policy.helo
        if not helo.isascii() or extensions.SUSPECT.search(helo) is not None:
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
        offered = frozenset(self.capabilities.get("AUTH", "").upper().split())
        self._mechanisms = auth.choose(offered)
        if not self.under_tls:
            return _no_login("no password is sent without TLS")
        if not self._mechanisms:
            known = ", ".join(sorted(offered)) or "none"
            return _no_login(f"no AUTH mechanism in common: {known}")
        return self._try_mechanism(login)

    def _try_mechanism(self, login: auth.Login) -> Step:
        name = self._mechanisms.pop(0)
        self._exchange = Exchange(name, login)
        try:
            self._response = self._exchange.first()
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
        if reply.code == 334:
            return self._respond(reply)
        if reply.code == 504 and self._mechanisms and self.policy.login is not None:
            return self._try_mechanism(self.policy.login)
        if not reply.is_positive:
            return _refused(Awaited.AUTH, reply, Cause.LOGIN)
        try:
            if self._exchange is not None:
                self._exchange.succeeded()
        except ProtocolError as error:
            return _no_login(str(error), reply)
        self.is_logged_in = True
        return self._prove()

    def _respond(self, reply: Reply) -> Step:
        response, self._response = self._response, None
        try:
            if response is None and self._exchange is not None:
                response = self._exchange.respond(_challenge(reply))
        except ProtocolError as error:
            return _no_login(str(error), reply)
        return _say(Awaited.AUTH, base64.b64encode(response or b"") + b"\r\n")

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


class Exchange:
    """One mechanism on its way, as the AUTH step drives it."""

    def __init__(self, mechanism: str, login: auth.Login) -> None:
        self._responses = auth.MECHANISMS[mechanism](login)

    def first(self) -> bytes | None:
        """Return the initial response, or None where the server speaks first."""
        return next(self._responses)

    def respond(self, challenge: bytes) -> bytes:
        """Return the response to a challenge; raise ProtocolError where there is none."""
        return self._responses.send(challenge) or b""

    def succeeded(self) -> None:
        """Raise ProtocolError where the server's yes has come too early to be believed."""


def _say(awaited: Awaited, line: str | bytes) -> Say:
    return Say(awaited, line.encode() if isinstance(line, str) else line)


def _refused(phase: Awaited, reply: Reply, cause: Cause = Cause.REFUSED) -> Lost:
    return Lost(cause, phase, str(reply), reply)


def _no_login(text: str, reply: Reply | None = None) -> Lost:
    return Lost(Cause.LOGIN, Awaited.AUTH, text, reply)


def _challenge(reply: Reply) -> bytes:
    try:
        return base64.b64decode(reply.lines[0], validate=True)
    except (binascii.Error, ValueError):
        return reply.lines[0].encode()  # LOGIN's prompts are sometimes sent in clear
