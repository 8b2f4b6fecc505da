"""SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), without channel binding.

Neither side says the password, and each proves that it knows it (the server: what follows from it).
    client  n,,n=USER,r=NONCE
    server  r=NONCE+ITS OWN,s=SALT,i=ITERATIONS
    client  c=biws,r=BOTH,p=PROOF
    server  v=SIGNATURE                                 (in SMTP a challenge, answered by nothing)

Promised: a server whose nonce doesn't begin with ours, or whose signature is not that of this
password, is never believed; and none can buy more time than MOST_ITERATIONS cost (0.2 s), which is
paid once for a password and salt. The nonce is an argument: whoever owns the connection makes one
for each, and never the same twice.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Generator
from functools import lru_cache

from geomail.errors import ProtocolError
from geomail.smtp.saslprep import prepared

FEWEST_ITERATIONS, MOST_ITERATIONS = 4096, 600_000  # RFC 7677 section 4; OWASP's advice of 2023
_HEADER = b"n,,"  # no channel binding, and nobody else to act as
_NONCE = re.compile(r"[!-+\--~]+")
_SERVER_FIRST = re.compile(
    rb"r=([!-+\--~]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,[^\0]+)?"
)
_SERVER_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+={0,2})(?:,[^\0]+)?")
_SERVER_ERROR = re.compile(rb"e=([a-z0-9-]{1,60})(?:,[^\0]+)?")


def scram_sha_256(user: str, password: str, nonce: str) -> Generator[bytes, bytes, None]:
    """Yield the three responses; raise ProtocolError where the server can't be believed."""
    if not _NONCE.fullmatch(nonce):
        raise ProtocolError("there is no nonce to begin with")
    bare = f"n={saslname(_prepared('user', user))},r={nonce}".encode()
    secret = _prepared("password", password)
    challenge = yield _HEADER + bare
    both, salt, iterations = _read_first(challenge, nonce.encode())
    without_proof = b"c=" + base64.b64encode(_HEADER) + b",r=" + both
    message = b",".join((bare, challenge, without_proof))
    salted = salted_password(secret, salt, iterations)
    answer = yield without_proof + b",p=" + base64.b64encode(client_proof(salted, message))
    _verify(answer, server_signature(salted, message))
    yield b""


def saslname(name: str) -> str:
    """Return a name as it stands in a list of attributes (RFC 5802 section 5.1)."""
    return name.replace("=", "=3D").replace(",", "=2C")


@lru_cache(maxsize=16)
def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Return Hi(password, salt, i) of RFC 5802, which many connections to one host need."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


def client_proof(salted: bytes, message: bytes) -> bytes:
    """Return what shows that the client knows the password."""
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    return bytes(a ^ b for a, b in zip(key, signature, strict=True))


def server_signature(salted: bytes, message: bytes) -> bytes:
    """Return what shows that the server knows what follows from the password."""
    return hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")


def _prepared(what: str, text: str) -> str:
    try:
        return prepared(text)
    except ValueError as error:
        raise ProtocolError(f"the {what} {error}") from None


def _read_first(challenge: bytes, nonce: bytes) -> tuple[bytes, bytes, int]:
    match = _SERVER_FIRST.fullmatch(challenge)
    if match is None:
        raise ProtocolError("the server's first message is not r=…,s=…,i=…")
    both, salt, iterations = match[1], _decoded(match[2]), int(match[3])
    if not both.startswith(nonce) or both == nonce:
        raise ProtocolError("the server's nonce does not continue ours")
    if not FEWEST_ITERATIONS <= iterations <= MOST_ITERATIONS:
        raise ProtocolError(
            f"the server wants {iterations} iterations, and"
            f" {FEWEST_ITERATIONS} to {MOST_ITERATIONS} are allowed"
        )
    return both, salt, iterations


def _verify(answer: bytes, signature: bytes) -> None:
    if error := _SERVER_ERROR.fullmatch(answer):
        raise ProtocolError(f"the server says {error[1].decode()}")
    match = _SERVER_FINAL.fullmatch(answer)
    if match is None or not hmac.compare_digest(_decoded(match[1]), signature):
        raise ProtocolError("the server did not prove that it knows the password: is it the one?")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ProtocolError("the server's message is not base64 where it has to be") from None
