"""What an SMTP server announces, demands and allows: the settings of a Server.

The other half of announcing is here too: a parameter of MAIL or RCPT that was not announced is
refused with 555, one with a value that can't be, or given twice, with 501 (RFC 5321 4.1.1.11).
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from geomail.smtp import answers
from geomail.smtp.accounts import MECHANISMS, Accounts
from geomail.smtp.answers import Answer
from geomail.smtp.parameters import FORMS
from geomail.smtp.paths import Parameters

Check = Callable[[str], Answer | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of a Server, shared by its conversations.

    `greeting` replaces the 220. `accounts` may log in, under TLS only unless `auth_in_clear`;
    `mechanisms` announces these instead of all that the accounts allow, and `in_clear` these where
    there is no TLS. `check_sender` and `check_recipient` return the reply that refuses an address,
    or None; a 421 closes the connection. `max_size` is in bytes of content as its author wrote it;
    `max_mails` is per connection; `limits` announces what max_recipients and max_mails say (RFC
    9422). A connection ends with a 421 when it has brought `max_commands` in a row without a mail,
    `max_unknown` verbs that nobody knows, or `max_logins` that failed.

    `bare_newlines` takes content with a CR or LF alone when it comes by BDAT. Without
    `swallows_chunks` the octets of a refused chunk are run as commands: a fault of real servers,
    for trying a client.
    """

    hostname: str = "localhost"
    greeting: Answer | None = None
    extended: bool = True
    pipelining: bool = True
    chunking: bool = True
    eight_bit: bool = True
    smtputf8: bool = True
    dsn: bool = True
    size: bool = True
    limits: bool = False
    enhanced_codes: bool = True
    starttls: bool = False
    accounts: Accounts | None = None
    mechanisms: str = ""
    in_clear: str = ""
    auth_in_clear: bool = False
    require_tls: bool = False
    require_auth: bool = False
    max_recipients: int = 1000
    max_mails: int | None = None
    max_commands: int = sys.maxsize
    max_unknown: int = sys.maxsize
    max_logins: int = sys.maxsize
    max_size: int = 64 * 1024 * 1024
    bare_newlines: bool = False
    swallows_chunks: bool = True
    check_sender: Check | None = None
    check_recipient: Check | None = None

    def extensions(self, *, is_encrypted: bool) -> list[str]:
        """Return the lines of the EHLO reply after the first."""
        mechanisms = self._announced_mechanisms(is_encrypted=is_encrypted)
        offers = {
            "PIPELINING": self.pipelining,
            "CHUNKING": self.chunking,
            f"SIZE {self.max_size}": self.size,
            "8BITMIME": self.eight_bit,
            "SMTPUTF8": self.smtputf8,
            "DSN": self.dsn,
            f"LIMITS {self._written_limits()}": self.limits,
            "ENHANCEDSTATUSCODES": self.enhanced_codes,
            "STARTTLS": self.starttls and not is_encrypted,
            f"AUTH {mechanisms}": mechanisms,
        }
        return [line for line, is_offered in offers.items() if is_offered]

    def mechanism(self, name: bytes, *, is_encrypted: bool) -> str | None:
        """Return the mechanism of this name, None when it isn't offered."""
        wanted = name.upper().decode(errors="replace")
        offered = self._announced_mechanisms(is_encrypted=is_encrypted).split()
        able = self.accounts.mechanisms() if self.accounts else []
        return wanted if wanted in offered and wanted in able and wanted in MECHANISMS else None

    def refuse_mail(self, parameters: Parameters) -> Answer | None:
        """Return the reply that refuses these parameters of MAIL, or None."""
        return self._refuse(parameters, _OF_MAIL)

    def refuse_rcpt(self, parameters: Parameters) -> Answer | None:
        """Return the reply that refuses these parameters of RCPT, or None."""
        return self._refuse(parameters, _OF_RCPT)

    def _refuse(
        self, parameters: Parameters, checks: "Mapping[bytes, _ParameterCheck]"
    ) -> Answer | None:
        for keyword, value in parameters:
            check = checks.get(keyword)
            refusal = check(self, value) if check else answers.NOT_ANNOUNCED
            if refusal:
                return refusal
        if len(parameters) > 1 and len(dict(parameters)) < len(parameters):
            return answers.BAD_PARAMETER
        return None

    def _announced_mechanisms(self, *, is_encrypted: bool) -> str:
        if not self.accounts or not (is_encrypted or self.auth_in_clear):
            return ""
        chosen = self.mechanisms if is_encrypted else self.in_clear or self.mechanisms
        return chosen or " ".join(self.accounts.mechanisms())

    def _written_limits(self) -> str:
        mails = f"MAILMAX={self.max_mails} " if self.max_mails else ""
        return f"{mails}RCPTMAX={self.max_recipients}"


_ParameterCheck = Callable[[Policy, bytes], Answer | None]


def _refuse_size(policy: Policy, value: bytes) -> Answer | None:
    if not policy.size:
        return answers.NOT_ANNOUNCED
    if not value.isdigit() or len(value) > 20:
        return answers.BAD_PARAMETER
    return answers.TOO_LARGE if int(value) > policy.max_size else None


def _announced_by(setting: str, keyword: bytes) -> _ParameterCheck:
    is_well_formed = FORMS[keyword]

    def refuse(policy: Policy, value: bytes) -> Answer | None:
        if not getattr(policy, setting):
            return answers.NOT_ANNOUNCED
        return None if is_well_formed(value) else answers.BAD_PARAMETER

    return refuse


_OF_MAIL = {
    b"SIZE": _refuse_size,
    b"BODY": _announced_by("eight_bit", b"BODY"),
    b"SMTPUTF8": _announced_by("smtputf8", b"SMTPUTF8"),
    b"AUTH": _announced_by("accounts", b"AUTH"),
    b"RET": _announced_by("dsn", b"RET"),
    b"ENVID": _announced_by("dsn", b"ENVID"),
}
_OF_RCPT = {
    b"NOTIFY": _announced_by("dsn", b"NOTIFY"),
    b"ORCPT": _announced_by("dsn", b"ORCPT"),
}
