"""What an SMTP server announces, demands and allows: the settings of a Server.

The other half of announcing is here too: a parameter of MAIL that was not announced is refused with
555, one with a value that can't be with 501 (RFC 5321 4.1.1.11).
"""

from collections.abc import Callable
from dataclasses import dataclass

from geomail.smtp import answers
from geomail.smtp.answers import Answer
from geomail.smtp.paths import Parameters

Check = Callable[[str], Answer | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of a Server, shared by its conversations.

    `greeting` replaces the 220. `auth` tells whether (user, password) is right; login is offered
    under TLS only, unless `auth_in_clear`. `check_sender` and `check_recipient` return the reply
    that refuses an address, or None; a 421 closes the connection. `max_size` is in bytes of content
    as its author wrote it.
    """

    hostname: str = "localhost"
    greeting: Answer | None = None
    extended: bool = True
    pipelining: bool = True
    eight_bit: bool = True
    smtputf8: bool = True
    enhanced_codes: bool = True
    starttls: bool = False
    auth: Callable[[str, str], bool] | None = None
    auth_in_clear: bool = False
    require_tls: bool = False
    require_auth: bool = False
    max_recipients: int = 1000
    max_size: int = 64 * 1024 * 1024
    check_sender: Check | None = None
    check_recipient: Check | None = None

    def extensions(self, *, is_encrypted: bool) -> list[str]:
        """Return the lines of the EHLO reply after the first."""
        offers = {
            "PIPELINING": self.pipelining,
            f"SIZE {self.max_size}": True,
            "8BITMIME": self.eight_bit,
            "SMTPUTF8": self.smtputf8,
            "ENHANCEDSTATUSCODES": self.enhanced_codes,
            "STARTTLS": self.starttls and not is_encrypted,
            "AUTH PLAIN LOGIN": self.auth and (is_encrypted or self.auth_in_clear),
        }
        return [line for line, is_offered in offers.items() if is_offered]

    def refuse_parameters(self, parameters: Parameters) -> Answer | None:
        """Return the reply that refuses these parameters of MAIL, or None."""
        for keyword, value in parameters:
            check = _PARAMETERS.get(keyword)
            refusal = check(self, value) if check else answers.NOT_ANNOUNCED
            if refusal:
                return refusal
        return None


def _refuse_size(policy: Policy, value: bytes) -> Answer | None:
    if not value.isdigit() or len(value) > 20:
        return answers.BAD_PARAMETER
    return answers.TOO_LARGE if int(value) > policy.max_size else None


def _refuse_body(policy: Policy, value: bytes) -> Answer | None:
    if not policy.eight_bit:
        return answers.NOT_ANNOUNCED
    return None if value.upper() in (b"7BIT", b"8BITMIME") else answers.BAD_PARAMETER


def _refuse_smtputf8(policy: Policy, value: bytes) -> Answer | None:
    if not policy.smtputf8:
        return answers.NOT_ANNOUNCED
    return answers.BAD_PARAMETER if value else None


def _refuse_auth(policy: Policy, value: bytes) -> Answer | None:
    if not policy.auth:
        return answers.NOT_ANNOUNCED
    return None if value else answers.BAD_PARAMETER


_PARAMETERS = {
    b"SIZE": _refuse_size,
    b"BODY": _refuse_body,
    b"SMTPUTF8": _refuse_smtputf8,
    b"AUTH": _refuse_auth,
}
