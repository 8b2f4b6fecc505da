"""The server's half of AUTH (RFC 4954): a mechanism's challenges and responses as base64 lines.

An Exchange ends with any reply but 334. It keeps a secret only as long as the mechanism runs, and
nothing of it is shown by repr. What is asked, and who is let in, is geomail.smtp.accounts'.
"""

import base64

from geomail.smtp.accounts import ASK_USER, MECHANISMS, Accounts
from geomail.smtp.answers import (
    BAD_BASE64,
    BAD_LOGIN,
    LOGGED_IN,
    LOGIN_CANCELLED,
    NO_INITIAL_RESPONSE,
    Answer,
)


class Exchange:
    """One login to one of `accounts` by the mechanism of this name."""

    __slots__ = ("_first", "_steps", "user")

    def __init__(self, mechanism: str, accounts: Accounts) -> None:
        self._steps = MECHANISMS[mechanism](accounts)
        self._first = next(self._steps)
        self.user: str | None = None

    def begin(self, initial: bytes) -> Answer:
        """Return the first reply; `initial` is what came with AUTH ("=" is empty)."""
        if not initial:
            return _asking(self._first)
        # RFC 4954 4 wants 501 where the server begins; but for LOGIN everyone sends the user.
        if self._first not in (b"", ASK_USER):
            return NO_INITIAL_RESPONSE
        return self.respond(b"" if initial == b"=" else initial)

    def respond(self, line: bytes) -> Answer:
        """Take the next line; return 334, or the last reply. After a 235, `user` is who it is."""
        if line == b"*":
            return LOGIN_CANCELLED
        try:
            return _asking(self._steps.send(base64.b64decode(line, validate=True)))
        except ValueError:  # of base64, of UTF-8, of SASLprep
            return BAD_BASE64
        except StopIteration as ended:
            self.user = ended.value
            return LOGGED_IN if self.user else BAD_LOGIN


def _asking(challenge: bytes) -> Answer:
    return Answer(334, "", base64.b64encode(challenge).decode())
