"""How a client makes itself known to a server: EHLO, STARTTLS and AUTH, and what follows from them.

What is known of the client decides where its conversation rests between two transactions: before
EHLO, in clear where TLS is demanded, a stranger where a login is, or ready for mail. TLS begins
everything anew (RFC 3207 4.2), a login is for the whole connection, EHLO ends a transaction.

Nothing that was sent behind STARTTLS in clear is ever run. Transactions are geomail.smtp.server's.
"""

from abc import ABC, abstractmethod

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp import answers
from geomail.smtp.answers import Answer
from geomail.smtp.dialogue import LINE_LIMIT, Dialogue
from geomail.smtp.login import Exchange
from geomail.smtp.phases import Phase
from geomail.smtp.policy import Policy


class TlsWanted(msgspec.Struct, frozen=True):
    """The client was told to begin the handshake: write the output, do it, call `tls_started`."""


class Introduction(Dialogue, ABC):
    """What is known of the client: `helo` (`is_extended`: by EHLO), `login`, `is_encrypted`.

    `failed_logins` says how often it gave a wrong password.
    """

    def __init__(self, policy: Policy, *, is_encrypted: bool = False) -> None:
        super().__init__(enhanced_codes=policy.enhanced_codes)
        self.helo = ""
        self.is_extended = False
        self.login: str | None = None
        self.failed_logins = 0
        self.is_encrypted = is_encrypted
        self._policy = policy
        self._exchange: Exchange | None = None
        self._greet()

    def tls_started(self) -> None:
        """Begin anew over TLS: nothing that was said before counts (RFC 3207 4.2)."""
        self._expect(Phase.TLS, "tls_started")
        self.phase = Phase.NEW
        self.is_encrypted = True
        self.helo = ""
        self.login = None

    def _expect(self, phase: Phase, call: str) -> None:
        if self.phase is not phase:
            raise ProtocolError(f"{call}() is for phase {phase.name}, not {self.phase.name}")

    @abstractmethod
    def _forget_mail(self) -> None:
        """Drop what a transaction has brought so far."""

    @abstractmethod
    def _tls_wanted(self) -> None:
        """Let the owner of the socket begin the handshake."""

    def _greet(self) -> None:
        protocol = "ESMTP" if self._policy.extended else "SMTP"
        usual = Answer(220, "", f"{self._policy.hostname} {protocol} geomail")
        greeting = self._policy.greeting or usual
        if greeting.code != 220:
            self.phase = Phase.REFUSED
        self._say(greeting)

    def _resting_phase(self) -> Phase:
        """Return the phase between two transactions."""
        if not self.helo:
            return Phase.NEW
        if self._policy.require_tls and not self.is_encrypted:
            return Phase.CLEAR
        if self._policy.require_auth and self.login is None:
            return Phase.STRANGER
        return Phase.READY

    def _ehlo(self, argument: bytes) -> None:
        if not self._policy.extended:
            self._say(answers.NOT_IMPLEMENTED)
        elif self._hello(argument):
            self.is_extended = True
            extensions = self._policy.extensions(is_encrypted=self.is_encrypted)
            lines = [self._policy.hostname, *extensions]
            self._say(Answer(250, "", "\n".join(lines)))

    def _helo(self, argument: bytes) -> None:
        if self._hello(argument):
            self.is_extended = False
            self._say(Answer(250, "", self._policy.hostname))

    def _hello(self, argument: bytes) -> bool:
        name = argument.strip()
        if not name or not name.isascii() or not name.decode().isprintable():
            self._say(answers.HELLO_SYNTAX)
            return False
        self.helo = name.decode()
        self._forget_mail()
        self.phase = self._resting_phase()
        return True

    def _starttls(self, argument: bytes) -> None:
        if self.is_encrypted:
            self._say(answers.ENCRYPTED_ALREADY)
        elif not self._policy.starttls:
            self._say(answers.NOT_IMPLEMENTED)
        elif argument:
            self._say(answers.NO_ARGUMENT)
        elif self._rest():
            self.close(answers.TOO_EARLY)
        else:
            self._forget_mail()
            self._say(answers.START_TLS)
            self._tls_wanted()
            self.phase = Phase.TLS

    def _read_in_clear(self) -> bool:
        if self._rest():
            self.close(answers.TOO_EARLY)
        return False

    def _auth(self, argument: bytes) -> None:
        name, _, initial = argument.partition(b" ")
        mechanism = self._policy.mechanism(name, is_encrypted=self.is_encrypted)
        if not self._policy.accounts:
            self._say(answers.NOT_IMPLEMENTED)
        elif self.login is not None:
            self._say(answers.LOGGED_IN_ALREADY)
        elif not mechanism:
            self._say(self._why_not(name))
        else:
            self._exchange = Exchange(mechanism, self._policy.accounts)
            self._proceed(self._exchange, self._exchange.begin(initial))

    def _why_not(self, name: bytes) -> Answer:
        would_do = not self.is_encrypted and self._policy.mechanism(name, is_encrypted=True)
        return answers.LOGIN_NEEDS_TLS if would_do else answers.UNKNOWN_MECHANISM

    def _read_login(self) -> bool:
        line = self._line()
        if line is None or not self._exchange:
            return False
        is_long = len(line) > LINE_LIMIT
        self._proceed(self._exchange, answers.TOO_LONG if is_long else self._exchange.respond(line))
        return True

    def _proceed(self, exchange: Exchange, answer: Answer) -> None:
        if answer.code == 334:
            self.phase = Phase.LOGIN
        else:
            self.login = exchange.user
            self.phase = self._resting_phase()
            self._exchange = None
        self._say(answer)
        if answer is answers.BAD_LOGIN:
            self.failed_logins += 1
            if self.failed_logins >= self._policy.max_logins:
                self.close(answers.TOO_MANY_LOGINS)
