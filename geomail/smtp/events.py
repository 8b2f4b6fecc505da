"""The words of an SMTP conversation: its phases, what is awaited, what happens, and why it ends.

Values only. The client speaks in them, and whoever judges an outcome or writes a log reads them.
"""

from enum import Enum
from typing import Protocol

import msgspec

from geomail.smtp.auth import Login
from geomail.smtp.reply import Reply


class Phase(Enum):
    """Where the dialogue stands; transactions begin only in READY."""

    OPENING = "opening"
    HANDSHAKE = "TLS handshake"
    READY = "ready"
    LEAVING = "leaving"
    LOST = "lost"


class Awaited(Enum):
    """What the next reply answers; also the name of the phase in which a connection was lost."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    PROOF = "proof of chunking"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "end of data"
    BDAT = "BDAT"
    DOT = "lone dot"
    RSET = "RSET"
    QUIT = "QUIT"

    # An Enum's own hash is a Python function: 0.15 us each time a reply is looked up.
    __hash__ = object.__hash__


class Cause(Enum):
    """Why a connection is of no more use."""

    REFUSED = "refused"
    CLOSED = "closed"
    TIMEOUT = "timed out"
    OUT_OF_STEP = "out of step"
    TLS = "TLS failure"
    LOGIN = "login failed"
    CONNECT = "can't connect"


class Policy(msgspec.Struct, frozen=True):
    """What a relay's owner has decided.

    `helo`: an FQDN or address literal (RFC 5321 section 4.1.4). `tls`: STARTTLS never, when
    offered, or required. `login`: None where no AUTH is wanted; `auth_in_clear`: it may go without
    TLS. `pipeline`: `off`, `message` (the envelope of one message as a group) or `overlap` (content
    and the next envelope in one write). `chunking`: `off`, `prove` (BDAT if the opening shows that
    the host swallows a chunk that it refuses) or `on` (it has shown that lately); BDAT is for hosts
    that announce it and PIPELINING, under `overlap` alone. `in_flight`: most unanswered messages
    with BDAT. `nonce`: random text of this connection, for SCRAM.
    """

    helo: str
    tls: str = "may"
    login: Login | None = None
    pipeline: str = "overlap"
    chunking: str = "off"
    in_flight: int = 8
    nonce: str = ""
    auth_in_clear: bool = False


class Letter(Protocol):
    """What is sent: the composer's Letter, or anything of that shape."""

    @property
    def mail_from(self) -> str: ...
    @property
    def recipients(self) -> tuple[str, ...]: ...
    @property
    def content(self) -> bytes: ...
    @property
    def eight_bit(self) -> bool: ...
    @property
    def smtputf8(self) -> bool: ...
    @property
    def dsn(self) -> tuple[str, ...] | None: ...
    @property
    def is_transparent(self) -> bool: ...


class Transaction(msgspec.Struct, eq=False):
    """One message on its way: the letter, the replies so far, and whose it is (`owner`)."""

    letter: Letter
    owner: object
    mail: Reply | None = None
    rcpt: list[Reply] = []
    accepted: int = 0  # recipients, where MAIL was, too
    data: Reply | None = None
    final: Reply | None = None
    content_end: int = 0

    @property
    def has_recipients(self) -> bool:
        """True when MAIL and at least one RCPT were accepted."""
        return self.accepted > 0


class Ready(msgspec.Struct, frozen=True):
    """Event: the dialogue is done, letters may begin."""


class HandshakeWanted(msgspec.Struct, frozen=True):
    """Event: wrap the socket in TLS now, then call `tls_started()`."""


class ContentWanted(msgspec.Struct, frozen=True):
    """Event: the server said 354; call `content()` or drop the connection."""

    transaction: Transaction


class Finished(msgspec.Struct, frozen=True):
    """Event: every reply that this transaction will ever get is in it."""

    transaction: Transaction


class Lost(msgspec.Struct, frozen=True):
    """Event: close the connection. What was awaited, why, and the reply or text that explains."""

    cause: Cause
    phase: Awaited | None
    text: str
    reply: Reply | None = None

    def __str__(self) -> str:
        """Return one line for logs: phase, cause, text."""
        phase = self.phase.value if self.phase else "connect"
        return f"{phase}: {self.cause.value}: {self.text}" if self.text else self.cause.value


Event = Ready | HandshakeWanted | ContentWanted | Finished | Lost
