"""What a server announces behind EHLO, and what follows from it for a letter (RFC 5321 4.1.1.1).

Keywords are case-insensitive and unknown ones are kept: nobody is refused for what he announces.
"""

import re
from functools import lru_cache

from geomail.smtp.events import Letter
from geomail.smtp.reply import Reply

SUSPECT = re.compile('[\x00-\x20\x7f<>"\\\\\ud800-\udfff]')
_QUOTED = re.compile(
    r'"(?:[^\x00-\x1f\x7f"\\\ud800-\udfff]|\\[\x20-\x7e])*"@[^\x00-\x20\x7f<>"\\\ud800-\udfff]+'
)
_PARAMETERS = re.compile(r"(?:[A-Z]+=[!-;?-~]+(?: [A-Z]+=[!-;?-~]+)*)?")


def announced(reply: Reply) -> dict[str, str]:
    """Return the keywords of a reply to EHLO, in capitals, each with its parameters."""
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, rest = line.strip().partition(" ")
        keyword = keyword.upper()
        if keyword.startswith("AUTH="):  # older than RFC 4954, and still announced
            keyword, rest = "AUTH", f"{keyword[5:]} {rest}".rstrip()
        known = found.get(keyword)
        found[keyword] = f"{known} {rest}" if known else rest
    return found


def limits(capabilities: dict[str, str]) -> tuple[int, int]:
    """Return MAILMAX and RCPTMAX of a LIMITS keyword (RFC 9422); 0 where there is none."""
    pairs = capabilities.get("LIMITS", "").upper().split()
    named = dict(pair.partition("=")[::2] for pair in pairs)
    found = [named.get(name, "") for name in ("MAILMAX", "RCPTMAX")]
    mails, recipients = (int(number) if number.isdecimal() else 0 for number in found)
    return mails, recipients


def refusal(letter: Letter, capabilities: dict[str, str]) -> Reply | None:
    """Return the reply that `letter` would earn where only this is announced, or None.

    RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 5321 section 4.1.2 (addresses),
    RFC 3461 (DSN: what is not announced is left out, so it is no reason).
    """
    most = _octets(capabilities.get("SIZE", ""))
    if 0 < most < len(letter.content):
        return _refuse("5.3.4", f"{len(letter.content)} octets, and the host takes {most}")
    if letter.eight_bit and "8BITMIME" not in capabilities:
        return _refuse("5.6.3", "8-bit content, and the host does not announce 8BITMIME")
    if letter.smtputf8 and "SMTPUTF8" not in capabilities:
        return _refuse("5.6.7", "a non-ASCII address, and the host does not announce SMTPUTF8")
    return _unsafe(letter)


@lru_cache(maxsize=64)
def _octets(size: str) -> int:
    """Return the limit that SIZE announces with these parameters; 0: none."""
    return int(size) if size.isdecimal() else 0


def _unsafe(letter: Letter) -> Reply | None:
    """Refuse what would end a command early, or be another one: whoever composed it."""
    joined = letter.mail_from + "".join(letter.recipients)
    if SUSPECT.search(joined) is not None:
        for address in (letter.mail_from, *letter.recipients):
            if not is_safe_path(address):
                return _refuse("5.1.3", f"address {address!r} can't stand in a command")
    if not letter.smtputf8 and not joined.isascii():
        return _refuse("5.6.7", "a non-ASCII address in a letter that does not say so")
    if letter.dsn is not None and not all(map(_PARAMETERS.fullmatch, letter.dsn)):
        return _refuse("5.5.4", f"parameters {letter.dsn!r} can't stand in a command")
    if not letter.recipients:
        return _refuse("5.1.3", "no recipients")
    return None


def envelope(letter: Letter, capabilities: dict[str, str]) -> str:
    """Return MAIL and a RCPT for each recipient, with the parameters that were announced.

    RFC 1870 (SIZE: octets as composed, dots not doubled), RFC 6152, RFC 6531, RFC 3461 (DSN).
    """
    parameters, end = "", ">"
    if "SIZE" in capabilities:
        parameters = f" SIZE={len(letter.content)}"
    if letter.eight_bit:
        parameters += " BODY=8BITMIME"
    if letter.smtputf8:
        parameters += " SMTPUTF8"
    if letter.dsn is not None and "DSN" in capabilities:
        for_mail, *for_rcpt = letter.dsn
        parameters += f" {for_mail}" if for_mail else ""
        if len(for_rcpt) > 1:
            return f"MAIL FROM:<{letter.mail_from}>{parameters}\r\n{_each(letter, for_rcpt)}"
        end = f"> {for_rcpt[0]}" if for_rcpt[0] else ">"
    recipients = f"{end}\r\nRCPT TO:<".join(letter.recipients)
    return f"MAIL FROM:<{letter.mail_from}>{parameters}\r\nRCPT TO:<{recipients}{end}\r\n"


def _each(letter: Letter, parameters: list[str]) -> str:
    """Return a RCPT for each recipient, with parameters of its own."""
    pairs = zip(letter.recipients, parameters, strict=True)
    return "".join(f"RCPT TO:<{to}>{' ' + own if own else ''}\r\n" for to, own in pairs)


def is_safe_path(address: str) -> bool:
    """Return whether `address` can stand between < and > (RFC 5321 section 4.1.2)."""
    return SUSPECT.search(address) is None or _QUOTED.fullmatch(address) is not None


def _refuse(enhanced: str, text: str) -> Reply:
    return Reply(554, enhanced, (f"{enhanced} {text}",))
