"""Who may log in to a server, and how each mechanism of AUTH finds that out.

A mechanism is a generator of challenges: it yields what is asked ("" lets the client begin), is
sent each decoded response, and returns the user, or None when that isn't proved. It knows neither
base64 nor reply codes; geomail.smtp.login does.

PLAIN is RFC 4616, SCRAM-SHA-256 RFC 5802 and 7677 (without channel binding), CRAM-MD5 RFC 2195,
OAUTHBEARER RFC 7628; LOGIN and XOAUTH2 have none. Passwords and tokens are known as they are: what
proves a password without sending it has to know it. Chance comes from outside: `nonce` is called
for each challenge, `salt` stays the same, so that a client may remember the salted password.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from geomail.smtp.saslprep import prepared

ASK_USER = b"Username:"
ITERATIONS = 4096  # RFC 7677 4: at least
_ASK_PASSWORD = b"Password:"
_CLIENT_FIRST = re.compile(r"([ny],(?:a=([^,\0]+))?,)(n=([^,\0]+),r=([!-+\--~]+)(?:,[^\0]*)?)")
_NO_TOKEN = b'{"status":"invalid_token","schemes":"bearer"}'

Steps = Generator[bytes, bytes, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The secrets of each user; None: no mechanism that needs such a secret is offered.

    Without `nonce` (printable text without a comma, new at each call) there is neither SCRAM nor
    CRAM-MD5, whose challenges must not be foreseen.
    """

    passwords: Mapping[str, str] | None = field(default=None, repr=False)
    tokens: Mapping[str, str] | None = field(default=None, repr=False)
    nonce: Callable[[], str] | None = None
    salt: bytes = b"geomail"

    def mechanisms(self) -> list[str]:
        """Return the names of the mechanisms that these accounts allow."""
        names = ["PLAIN", "LOGIN"] if self.passwords is not None else []
        if names and self.nonce:
            names += ["SCRAM-SHA-256", "CRAM-MD5"]
        return names + (["OAUTHBEARER", "XOAUTH2"] if self.tokens is not None else [])

    def password_of(self, user: str) -> str:
        """Return the password, "" (which is never right) for a user that is not known."""
        return (self.passwords or {}).get(user, "")

    def challenge(self) -> str:
        """Return what nobody could foresee."""
        return self.nonce() if self.nonce else ""


def _is_right(known: str, given: str) -> bool:
    return bool(known) and hmac.compare_digest(known.encode(), given.encode())


def plain(accounts: Accounts) -> Steps:
    """Ask for authority, user and password at once; the authority can only be the user."""
    response = yield b""
    authority, user, password = [*response.decode().split("\0"), "", ""][:3]
    is_known = authority in ("", user) and _is_right(accounts.password_of(user), password)
    return user if is_known else None


def login(accounts: Accounts) -> Steps:
    """Ask for the user, then for the password."""
    user = (yield ASK_USER).decode()
    password = (yield _ASK_PASSWORD).decode()
    return user if _is_right(accounts.password_of(user), password) else None


def cram_md5(accounts: Accounts) -> Steps:
    """Ask for the keyed digest of a challenge."""
    challenge = f"<{accounts.challenge()}@geomail>".encode()
    user, _, digest = (yield challenge).decode().rpartition(" ")
    password = accounts.password_of(user)
    expected = hmac.digest(password.encode(), challenge, "md5").hex()
    return user if password and hmac.compare_digest(expected.encode(), digest.encode()) else None


def scram_sha_256(accounts: Accounts) -> Steps:
    """Let both sides prove that they know the password, which neither of them says."""
    match = _CLIENT_FIRST.fullmatch((yield b"").decode())
    if not match:
        return None
    header, authority, first, name, nonce = match.groups()
    user = _saslname(name)
    if authority and _saslname(authority) != user:
        return None
    nonce += accounts.challenge()
    salt = hashlib.sha256(accounts.salt + user.encode()).digest()[:16]
    asked = f"r={nonce},s={_base64(salt)},i={ITERATIONS}"
    said, _, proof = (yield asked.encode()).decode().rpartition(",p=")
    if said != f"c={_base64(header.encode())},r={nonce}":
        return None
    password = accounts.password_of(user)
    expected, signature = _scram_proofs(password, salt, f"{first},{asked},{said}".encode())
    if not (password and hmac.compare_digest(expected.encode(), proof.encode())):
        return None
    yield f"v={signature}".encode()
    return user


def _scram_proofs(password: str, salt: bytes, message: bytes) -> tuple[str, str]:
    """Return the client's proof and the server's signature (RFC 5802 3), in base64.

    What is computed for a user who isn't known takes as long. Raises ValueError for a password that
    SASLprep refuses.
    """
    known = prepared(password or "nobody's").encode()
    salted = hashlib.pbkdf2_hmac("sha256", known, salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    client_signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return _base64(proof), _base64(hmac.digest(server_key, message, "sha256"))


def oauthbearer(accounts: Accounts) -> Steps:
    """Ask for a bearer token behind a header that says whose it is (RFC 7628 3.1)."""
    header, *fields = (yield b"").decode().split("\x01")
    match = re.fullmatch(r"[ny],a=([^,]+),", header)
    user = _saslname(match[1]) if match else ""
    return (yield from _bearer(accounts, user, fields))


def xoauth2(accounts: Accounts) -> Steps:
    """Ask for user and bearer token."""
    fields = (yield b"").decode().split("\x01")
    return (yield from _bearer(accounts, _value("user", fields), fields))


def _bearer(accounts: Accounts, user: str, fields: list[str]) -> Steps:
    scheme, _, token = _value("auth", fields).partition(" ")
    known = (accounts.tokens or {}).get(user, "")
    if scheme.lower() == "bearer" and fields[-2:] == ["", ""] and _is_right(known, token):
        return user
    yield _NO_TOKEN
    return None


def _value(key: str, fields: list[str]) -> str:
    return next((field.partition("=")[2] for field in fields if field.startswith(f"{key}=")), "")


def _saslname(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


MECHANISMS: Mapping[str, Callable[[Accounts], Steps]] = {
    "PLAIN": plain,
    "LOGIN": login,
    "SCRAM-SHA-256": scram_sha_256,
    "CRAM-MD5": cram_md5,
    "OAUTHBEARER": oauthbearer,
    "XOAUTH2": xoauth2,
}
