"""Who may send: a file with lines of USER:PASSWORD, and what is made of it for a server.

A password may contain a colon, a user can't; empty lines mean nothing. Passwords stand there as
they are, because the mechanisms that never send one (SCRAM-SHA-256, CRAM-MD5) need it: so a file
that others can read is warned of.
"""

import secrets
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from geomail import log
from geomail.errors import ConfigError
from geomail.smtp.accounts import Accounts

USUAL = "PLAIN LOGIN SCRAM-SHA-256"
WITHOUT_SENDING_IT = "SCRAM-SHA-256 CRAM-MD5"


def read_logins(path: str) -> dict[str, str]:
    """Return password by user. Raises ConfigError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"can't read logins from {path}: {why}") from None
    pairs = [line.partition(":") for line in lines if line.strip()]
    if not pairs or not all(user and secret for user, _, secret in pairs):
        raise ConfigError(f"{path} must have lines of USER:PASSWORD (or USER:TOKEN)")
    return {user: secret for user, _, secret in pairs}


def warn_of_readers(path: str) -> None:
    """Say so when other users of this machine can read the file."""
    if Path(path).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("logins_are_readable", path=path, hint=f"others can read it: chmod 600 {path}")


def accounts_of(
    passwords: Mapping[str, str] | None, tokens: Mapping[str, str] | None = None
) -> Accounts:
    """Return the accounts of a server, with challenges that nobody can foresee."""
    nonce = partial(secrets.token_urlsafe, 18)
    salt = secrets.token_bytes(16)
    return Accounts(passwords=passwords, tokens=tokens, nonce=nonce, salt=salt)
