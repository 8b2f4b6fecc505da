"""Who may send: a file with lines of USER:PASSWORD, and what is made of it for a server.

A password may contain a colon, a user can't; empty lines mean nothing. Passwords stand there as
they are, because the mechanisms that never send one (SCRAM-SHA-256, CRAM-MD5) need it: so a file
that others can read is warned of. A change holds for connections to come; a file that has become
unreadable is complained of, once a change, and what it said before holds.
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
_EXPECTED = "must have lines of USER:PASSWORD (or USER:TOKEN)"


def read_logins(path: str) -> dict[str, str]:
    """Return password by user. Raises ConfigError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"can't read logins from {path}: {why}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        user, _, secret = line.partition(":")
        if user and secret:
            found[user] = secret
        elif line.strip():
            raise ConfigError(f"{path} {_EXPECTED}, and line {number} is none")
    if not found:
        raise ConfigError(f"{path} {_EXPECTED}, and has none")
    return found


def accounts_of(
    passwords: Mapping[str, str] | None, tokens: Mapping[str, str] | None = None
) -> Accounts:
    """Return the accounts of a server, with challenges that nobody can foresee."""
    nonce = partial(secrets.token_urlsafe, 18)
    salt = secrets.token_bytes(16)
    return Accounts(passwords=passwords, tokens=tokens, nonce=nonce, salt=salt)


class Logins:
    """The accounts of a file, as it is now."""

    def __init__(self, path: str) -> None:
        """Read it. Raises ConfigError."""
        self._path = path
        self._seen = self._state()
        self._accounts = accounts_of(read_logins(path))
        self._warn_of_readers()

    def accounts(self) -> Accounts:
        """Return who may log in, after a look whether the file has changed (2 us)."""
        seen = self._state()
        if seen != self._seen:
            self._seen = seen
            self._read_again()
        return self._accounts

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = Path(self._path).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_mode

    def _read_again(self) -> None:
        try:
            self._accounts = accounts_of(read_logins(self._path))
        except ConfigError as error:
            log.error("logins_unreadable", why=error, hint="the old ones stay in force")
        else:
            log.info("logins_read", path=self._path)
            self._warn_of_readers()

    def _warn_of_readers(self) -> None:
        if self._seen and self._seen[2] & (stat.S_IRGRP | stat.S_IROTH):
            hint = f"others can read it: chmod 600 {self._path}"
            log.warning("logins_are_readable", path=self._path, hint=hint)
