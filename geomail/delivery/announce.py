"""What a relay says of itself, for `geomail check`: a session up to the first MAIL."""

import time

import gevent

from geomail.config import Member, Relay, Settings
from geomail.delivery.transport import Session, Terms

_WATCH_S = 0.1


def announce(member: Member, relay: Relay, settings: Settings) -> list[str]:
    """Connect to `member`, log in, say QUIT; return lines for a person: what it announces.

    Nothing is sent. Raises ConnectionError with the reason when it does not get that far.
    """
    session = Session(Terms(member, relay, settings))
    watchdog = gevent.spawn(_watch, session)
    try:
        lost = session.open()
        if lost is not None:
            raise ConnectionError(str(lost))
        client = session.client
        lines = [f"greeting: {client.greeting}"]
        lines.append(f"TLS: {_tls_shown(session)}")
        lines.append(f"login: {'accepted' if client.is_logged_in else 'none'}")
        keywords = sorted(f"{key} {rest}".strip() for key, rest in client.capabilities.items())
        lines.append(f"announces: {', '.join(keywords) or 'nothing (no EHLO)'}")
        session.close()
        return lines
    finally:
        watchdog.kill()
        session.abandon()


def _watch(session: Session) -> None:
    while True:
        gevent.sleep(_WATCH_S)
        if time.monotonic() > session.deadline:
            session.expire()


def _tls_shown(session: Session) -> str:
    version = session.tls_version()
    if version is None:
        return "no"
    return f"{version}, {'verified' if session.terms.member.verified else 'not verified'}"
