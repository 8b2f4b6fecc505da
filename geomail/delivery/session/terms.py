"""Terms: what all sessions with one host share: policy, deadlines, trust, the login.

They are made of settings at the start and at each reload, and hold no connection. What may change
meanwhile is a token that lies in a file: it is read again when a session begins and the file is
another one than the last time (its time or size), so whoever renews it tells nobody.
"""

import secrets
import socket as sockets
from functools import lru_cache

from geomail.config import Member, Relay, Settings
from geomail.delivery.session.connect import Directory, shown
from geomail.delivery.session.trust import Stamp, Trust, stamp
from geomail.relays import Pipeline, read_token
from geomail.smtp.auth import Login
from geomail.smtp.events import Awaited, Policy

_HINT_S = 5.0
_HINT = "port 465 speaks TLS from the first byte: try smtps://"


class Terms:
    """What all sessions with one relay host share."""

    __slots__ = (
        "_token",
        "_token_stamp",
        "block_s",
        "connect_s",
        "directory",
        "helo",
        "limits_s",
        "member",
        "relay",
        "trust",
    )

    def __init__(
        self,
        member: Member,
        relay: Relay,
        settings: Settings,
        *,
        directory: Directory | None = None,
    ) -> None:
        """`directory`: who knows the host's addresses; None: the system's resolver."""
        self.directory = directory
        self.member = member
        self.relay = relay
        self.helo = own_name(relay, settings)
        self.connect_s = settings.connect_s
        self.block_s = settings.block_s
        self.limits_s = _limits_s(settings)
        self.trust = Trust(self.server_name, relay, is_verified=relay.verifies(member))
        self._token = ""
        self._token_stamp: Stamp | None = None
        if self.hint is not None:
            # A server that waits for TLS says nothing at all.
            self.limits_s[Awaited.GREETING] = min(_HINT_S, settings.greeting_s)

    @property
    def where(self) -> str:
        """Return host and port, for errors."""
        return shown(self.member.host, self.member.port)

    @property
    def server_name(self) -> str:
        """Return the name that a certificate has to hold: never with the dot of the DNS's root."""
        return self.member.host.removesuffix(".")

    @property
    def is_verified(self) -> bool:
        """True where the host has to prove its name; not with bare smtp://, or verify = false."""
        return self.trust.is_verified

    @property
    def may_fall_back(self) -> bool:
        """True where a failed handshake may be followed by a new connection in clear."""
        return self.relay.tls_of(self.member) == "may"

    @property
    def hint(self) -> str | None:
        """Return what to say when this host does not greet; None where nothing is suspicious."""
        return _HINT if self.member.scheme == "smtp" and self.member.port == 465 else None

    def policy(self, *, in_clear: bool, pipeline: Pipeline, chunking: str = "off") -> Policy:
        """Return what the conversation has to insist on; `in_clear`: STARTTLS has just failed.

        Raises ConfigError when the token can't be read.
        """
        tls = "may" if self.may_fall_back else "must"
        login = self._login()
        return Policy(
            self.helo,
            "never" if in_clear else tls,
            login=login,
            pipeline=pipeline,
            chunking=chunking,
            in_flight=self.relay.in_flight,
            nonce="" if login is None else secrets.token_urlsafe(24),
            auth_in_clear=self.relay.auth_in_clear,
        )

    def _login(self) -> Login | None:
        member = self.member
        if member.user is None:
            return None
        if self.relay.token_file is None:
            return Login(member.user, member.password or "")
        return Login(member.user, "", self._fresh_token(self.relay.token_file))

    def _fresh_token(self, path: str) -> str:
        # Looked at before it is read: what changes in between is read again the next time.
        now = stamp(path)
        if now is None or now != self._token_stamp:
            self._token = read_token(self.relay)
            self._token_stamp = now
        return self._token


def _limits_s(settings: Settings) -> dict[Awaited, float]:
    command_s = settings.command_s
    return {
        Awaited.GREETING: settings.greeting_s,
        Awaited.EHLO: command_s,
        Awaited.HELO: command_s,
        Awaited.STARTTLS: command_s,
        Awaited.AUTH: command_s,
        Awaited.PROOF: command_s,
        Awaited.MAIL: settings.mail_s,
        Awaited.RCPT: settings.rcpt_s,
        Awaited.DATA: settings.data_s,
        Awaited.CONTENT: settings.final_s,
        Awaited.BDAT: settings.final_s,
        Awaited.DOT: settings.data_s,
        Awaited.RSET: settings.mail_s,
        Awaited.QUIT: settings.quit_s,
    }


def own_name(relay: Relay, settings: Settings) -> str:
    """Return the name we go by with the hosts of `relay`."""
    return relay.helo or settings.helo or _own_name()


@lru_cache(maxsize=1)
def _own_name() -> str:
    """Return an FQDN, or an address literal where the machine has no full name (4.1.3)."""
    name = sockets.gethostname()
    return name if "." in name.strip(".") else "[127.0.0.1]"
