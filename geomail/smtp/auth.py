"""Logging in (RFC 4954): the mechanisms, each a function from challenges to responses.

A mechanism is a generator of responses: it is sent each decoded challenge and yields what to
answer, first the initial response or None where the server speaks first. It knows neither base64
nor lines. An Exchange drives one, and promises: a challenge beyond the last response is a
ProtocolError, so that no server can ask for ever; a yes is believed only when the mechanism is
where a yes belongs (SCRAM: the server has proved itself); and what a server says may be shown to
people, for what was said to it in confidence is taken out.

    SCRAM-SHA-256   RFC 5802, RFC 7677: see geomail.smtp.scram
    PLAIN, LOGIN    RFC 4616; LOGIN has no RFC, and asks for the name and the password
    CRAM-MD5        RFC 2195
    OAUTHBEARER     RFC 7628, and XOAUTH2, which came before it and has no RFC: a token; a refused
                    one gets a challenge with the reason, which is answered, and then the 535

Chance comes from outside (`nonce`). Secrets are in no repr and no error.
"""

import base64
import hmac
import re
from collections.abc import Callable, Generator
from typing import NamedTuple

import msgspec

from geomail.errors import ProtocolError
from geomail.smtp.saslprep import prepared
from geomail.smtp.scram import saslname, scram_sha_256

Responses = Generator[bytes | None, bytes, None]

_MOST_OF_A_REASON = 120
_SHORTEST_SECRET = 4
_TOKEN = re.compile(r"[!-~]+")
_WORD = re.compile(r"[A-Za-z0-9+/=._~-]{8,}")


class Login(msgspec.Struct, frozen=True):
    """A user with a password or an OAuth 2 bearer token, which no repr ever shows."""

    user: str
    password: str = ""
    token: str | None = None

    def __repr__(self) -> str:
        """Return the user alone."""
        return f"Login({self.user!r})"


class Mechanism(NamedTuple):
    """How to respond, and after how many challenges, at least and at most, a yes is believed."""

    responses: Callable[[Login, str], Responses]
    fewest: int = 0
    most: int = 3


class Exchange:
    """One login by one mechanism, as the client drives it; `nonce` is for SCRAM."""

    __slots__ = ("_answered", "_login", "_responses", "_said", "mechanism")

    def __init__(self, mechanism: str, login: Login, nonce: str = "") -> None:
        self.mechanism = mechanism
        self._login = login
        self._responses = MECHANISMS[mechanism].responses(login, nonce)
        self._answered = 0
        self._said = [login.password, login.token or ""]

    def first(self) -> bytes | None:
        """Return the initial response, or None where the server speaks first.

        Raises ProtocolError when this login can't be put into the mechanism's words.
        """
        _check(self._login, self.mechanism)
        return self._noted(lambda: next(self._responses))

    def respond(self, challenge: bytes) -> bytes:
        """Return the response to a challenge; raise ProtocolError where there is none."""
        self._answered += 1
        return self._noted(lambda: self._responses.send(challenge)) or b""

    def succeeded(self) -> None:
        """Raise ProtocolError when the server's yes has come where it can't be believed."""
        known = MECHANISMS[self.mechanism]
        if self._answered < known.fewest:
            raise ProtocolError(
                f"AUTH {self.mechanism}: the server says yes and has not proved that it knows the"
                " password"
            )
        if self._answered > known.most:
            raise ProtocolError(f"AUTH {self.mechanism}: the server says no and then yes")

    def redacted(self, text: str) -> str:
        """Return `text` of the server without any secret of ours that it repeats."""
        for secret in self._said:
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "…")
        return _WORD.sub(lambda word: "…" if self._has_said(word[0]) else word[0], text)

    def reason(self, challenge: bytes) -> str:
        """Return why a token was refused, as the challenge says (RFC 7628 section 3.2.2), or ""."""
        if self._login.token is None or not challenge:
            return ""
        try:
            known = msgspec.json.decode(challenge, type=_Refusal)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        told = {"status": known.status, "scope": known.scope}
        said = ", ".join(f"{key} {value}" for key, value in told.items() if value)
        return self.redacted(_shown(said))

    def _noted(self, respond: Callable[[], bytes | None]) -> bytes | None:
        try:
            response = respond()
        except ProtocolError as error:
            raise ProtocolError(f"AUTH {self.mechanism}: {error}") from None
        except StopIteration:
            text = f"AUTH {self.mechanism}: the server asks for more than there is to say"
            raise ProtocolError(text) from None
        if response:
            self._said.append(base64.b64encode(response).decode())
        return response

    def _has_said(self, word: str) -> bool:
        return any(word in secret for secret in self._said)


class _Refusal(msgspec.Struct):
    status: str | int = ""
    scope: str | None = None


def choose(offered: frozenset[str], login: Login, *, in_clear: bool = False) -> list[str]:
    """Return the mechanisms of `offered` that suit `login`, the one to try first in front.

    `in_clear`: there is no TLS, so those come first that don't say the password, and a token stays
    here (RFC 6750 section 5.3).
    """
    names: tuple[str, ...] = _IN_CLEAR if in_clear else _WITH_PASSWORD
    if login.token is not None:
        names = () if in_clear else _WITH_TOKEN
    found = [name for name in names if name in offered]
    if found[:1] == ["SCRAM-SHA-256"] and len(found) > 1 and not _can_be_prepared(login):
        return found[1:]
    return found


def _plain(login: Login, _nonce: str) -> Responses:
    yield f"\0{login.user}\0{login.password}".encode()


def _login(login: Login, _nonce: str) -> Responses:
    yield None
    yield login.user.encode()
    yield login.password.encode()


def _cram_md5(login: Login, _nonce: str) -> Responses:
    challenge = yield None
    if not challenge:
        raise ProtocolError("the server's challenge is empty")
    try:
        digest = hmac.new(login.password.encode(), challenge, "md5").hexdigest()
    except ValueError:
        raise ProtocolError("this system forbids MD5") from None
    yield f"{login.user} {digest}".encode()


def _scram(login: Login, nonce: str) -> Responses:
    yield from scram_sha_256(login.user, login.password, nonce)


def _xoauth2(login: Login, _nonce: str) -> Responses:
    yield f"user={login.user}\x01auth=Bearer {login.token}\x01\x01".encode()
    yield b""


def _oauthbearer(login: Login, _nonce: str) -> Responses:
    yield f"n,a={saslname(login.user)},\x01auth=Bearer {login.token}\x01\x01".encode()
    yield b"\x01"


MECHANISMS = {
    "SCRAM-SHA-256": Mechanism(_scram, fewest=2),
    "PLAIN": Mechanism(_plain),
    "LOGIN": Mechanism(_login),
    "CRAM-MD5": Mechanism(_cram_md5),
    "OAUTHBEARER": Mechanism(_oauthbearer, most=0),
    "XOAUTH2": Mechanism(_xoauth2, most=0),
}
_WITH_PASSWORD = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5")
_IN_CLEAR = ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN")
_WITH_TOKEN = ("OAUTHBEARER", "XOAUTH2")


def _check(login: Login, mechanism: str) -> None:
    """Refuse what would end a field: NUL in PLAIN (RFC 4616 section 2), ^A with a token."""
    if not (_is_utf8(login.user) and _is_utf8(login.password)):
        raise ProtocolError(f"AUTH {mechanism}: the user or the password is not UTF-8")
    if "\0" in login.user + login.password:
        raise ProtocolError(f"AUTH {mechanism}: a NUL in the user or the password")
    if not login.user or any(char < " " or char == "\x7f" for char in login.user):
        raise ProtocolError(f"AUTH {mechanism}: the user is empty, or holds a control character")
    if login.token is not None and not _TOKEN.fullmatch(login.token):
        raise ProtocolError(f"AUTH {mechanism}: the token is empty, or not one word in ASCII")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # other bytes, from the environment
        return False
    return True


def _can_be_prepared(login: Login) -> bool:
    try:
        return bool(prepared(login.user) and prepared(login.password))
    except ValueError:
        return False


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_MOST_OF_A_REASON])
