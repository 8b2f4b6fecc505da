"""What `geomail sink` is told on the command line, made into the options of a Sink.

Every mistake is a ConfigError of one line that says what to do. Passwords come from a file, because
a command line can be read by every user of the machine.
"""

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from geomail import spelling
from geomail.errors import ConfigError
from geomail.intake.logins import read_logins
from geomail.sink.faults import NAMES, read_fault
from geomail.smtp.accounts import MECHANISMS
from geomail.smtp.policy import Policy

UNSWALLOWED = "chunks-unswallowed"
_SETTING_OF = {
    "PIPELINING": "pipelining",
    "CHUNKING": "chunking",
    "SIZE": "size",
    "8BITMIME": "eight_bit",
    "SMTPUTF8": "smtputf8",
    "DSN": "dsn",
    "ENHANCEDSTATUSCODES": "enhanced_codes",
    "EHLO": "extended",
}
_LIMITS = {"MAILMAX": "max_mails", "RCPTMAX": "max_recipients"}
_NEEDS = {"--implicit-tls": "--cert", "--require-tls": "--cert", "--require-auth": "--logins"}


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Sink is called with. Raises ConfigError."""
    for flag, needed in _NEEDS.items():
        if given.get(flag) and not given.get(needed):
            raise ConfigError(f"{flag} needs {needed}")
    cert, logins = given.get("--cert"), given.get("--logins")
    accounts = read_logins(logins) if logins else None
    return {
        "policy": _policy(given),
        "tls": _tls(cert) if cert else None,
        "implicit_tls": bool(given.get("--implicit-tls")),
        "logins": accounts,
        "tokens": accounts,
        "delay_s": _seconds(given.get("--delay") or "0"),
        "fault": _fault(given.get("--fault") or ""),
    }


def _policy(given: Mapping[str, Any]) -> Policy:
    unwanted = _names(given.get("--without"))
    without = {_setting(name): False for name in unwanted if name not in MECHANISMS}
    limits = dict(_limit(limit) for limit in _names(given.get("--limits")))
    settings: dict[str, Any] = {**without, **limits, "limits": bool(limits)}
    return Policy(
        auth_in_clear=not given.get("--cert"),
        require_tls=bool(given.get("--require-tls")),
        require_auth=bool(given.get("--require-auth")),
        mechanisms=_mechanisms(unwanted, has_logins=bool(given.get("--logins"))),
        swallows_chunks=given.get("--fault") != UNSWALLOWED,
        **settings,
    )


def _mechanisms(unwanted: Sequence[str], *, has_logins: bool) -> str:
    refused = [name for name in unwanted if name in MECHANISMS]
    if refused and not has_logins:
        raise ConfigError(f"--without {','.join(refused)} needs --logins: else none is offered")
    kept = [name for name in MECHANISMS if name not in refused]
    if not kept:
        raise ConfigError("--without names every login mechanism: leave out --logins instead")
    return " ".join(kept) if refused else ""


def _names(text: str | None) -> list[str]:
    return [name.strip().upper() for name in (text or "").split(",") if name.strip()]


def _setting(name: str) -> str:
    if name not in _SETTING_OF:
        known = (*_SETTING_OF, *MECHANISMS)
        hint = spelling.hint(name, known) or f": expected some of {', '.join(known)}"
        raise ConfigError(f"--without: {name!r} is nothing that the sink announces{hint}")
    return _SETTING_OF[name]


def _limit(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(MAILMAX|RCPTMAX)=([1-9][0-9]{0,5})", text)
    if not match:
        raise ConfigError(f"--limits: expected MAILMAX=N,RCPTMAX=N or one of them, not {text!r}")
    return _LIMITS[match[1]], int(match[2])


def _fault(text: str) -> Any:
    fault = read_fault(text)
    if text and text != UNSWALLOWED and ("@" in text or not fault):
        known = ", ".join((*NAMES, UNSWALLOWED))
        raise ConfigError(f"--fault: {text!r} is none of {known} (+NUMBER where it takes one)")
    return fault


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise ConfigError(f"--delay must be seconds, as 0.05, not {text!r}")
    return float(text)


def _tls(path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(path)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) else "not a PEM file with both"
        raise ConfigError(f"can't read certificate and key from {path}: {why}") from None
    return context
