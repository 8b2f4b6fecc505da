"""The server's half of AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN, an exchange of base64 lines.

MECHANISMS says which questions a mechanism asks; a response follows each (for PLAIN: user and
password at once). An Exchange ends with any reply but 334. It keeps the password only as long as
the check takes, and nothing of it is shown by repr.
"""

import base64
import binascii
from collections.abc import Callable

from geomail.smtp.answers import (
    ASK_PASSWORD,
    ASK_USER,
    BAD_BASE64,
    BAD_LOGIN,
    LOGGED_IN,
    LOGIN_CANCELLED,
    RESPOND,
    Answer,
)

MECHANISMS = {b"PLAIN": (RESPOND,), b"LOGIN": (ASK_USER, ASK_PASSWORD)}


class Exchange:
    """One login by `mechanism`; `check` tells whether (user, password) is right."""

    __slots__ = ("_check", "_questions", "_responses", "user")

    def __init__(self, mechanism: bytes, check: Callable[[str, str], bool]) -> None:
        self._questions = MECHANISMS[mechanism]
        self._check = check
        self._responses: list[str] = []
        self.user: str | None = None

    def begin(self, initial: bytes) -> Answer:
        """Return the first reply; `initial` is what came with AUTH ("=" is empty)."""
        if not initial:
            return self._questions[0]
        return self.respond(b"" if initial == b"=" else initial)

    def respond(self, line: bytes) -> Answer:
        """Take the next line; return 334, or the last reply. After a 235, `user` is who it is."""
        if line == b"*":
            return LOGIN_CANCELLED
        try:
            text = base64.b64decode(line, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return BAD_BASE64
        self._responses.append(text)
        if len(self._responses) < len(self._questions):
            return self._questions[len(self._responses)]
        return self._judge()

    def _judge(self) -> Answer:
        user, password = self._credentials()
        self._responses.clear()
        if not (user and password and self._check(user, password)):
            return BAD_LOGIN
        self.user = user
        return LOGGED_IN

    def _credentials(self) -> tuple[str, str]:
        if len(self._responses) == 2:
            return self._responses[0], self._responses[1]
        authority, user, password = [*self._responses[0].split("\0"), "", ""][:3]
        return (user if authority in ("", user) else "", password)
