"""Logging in (RFC 4954): the mechanisms, each a function from challenges to responses.

A mechanism is a generator of responses: it is sent each decoded challenge and yields what to
answer, first the initial response or None where the server speaks first. It knows neither base64
nor lines. A challenge beyond its last response is a ProtocolError, so no server can ask for ever.

PLAIN is RFC 4616; LOGIN has no RFC, and asks for the name and the password in two challenges.
"""

from collections.abc import Callable, Generator

import msgspec

from geomail.errors import ProtocolError

Exchange = Generator[bytes | None, bytes, None]


class Login(msgspec.Struct, frozen=True):
    """A user and a password, which no repr ever shows."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Return the user alone."""
        return f"Login({self.user!r})"


def plain(login: Login) -> Exchange:
    """Yield the one response of PLAIN (RFC 4616): authzid, authcid and password."""
    if "\0" in login.user + login.password:
        raise ProtocolError("AUTH PLAIN: a NUL in the user or the password")
    yield b"\0" + login.user.encode() + b"\0" + login.password.encode()
    raise ProtocolError("AUTH PLAIN: the server asks for a second response")


def login(login: Login) -> Exchange:
    """Yield the name and the password for the two prompts of LOGIN."""
    yield None
    yield login.user.encode()
    yield login.password.encode()
    raise ProtocolError("AUTH LOGIN: the server asks for a third response")


MECHANISMS: dict[str, Callable[[Login], Exchange]] = {"PLAIN": plain, "LOGIN": login}


def choose(offered: frozenset[str]) -> list[str]:
    """Return the mechanisms of `offered` that we speak, the one to try first in front."""
    return [name for name in MECHANISMS if name in offered]
