"""What a relay says of itself, for `geomail check`: a session up to the first MAIL.

It is shown as a delivery would find it: TLS and its proof, the mechanism of the login, and whether
mails would go in chunks, which is tried out where the relay asks for it. No mail is sent.
"""

import time

import gevent

from geomail.config import Member, Relay, Settings
from geomail.delivery.dns.site import Said
from geomail.delivery.session.transport import Session, Terms

_WATCH_S = 0.1
_ASKED_FOR = "example.com"


def announce(member: Member, relay: Relay, settings: Settings) -> list[str]:
    """Connect to `member`, log in, say QUIT; return lines for a person: what it announces.

    Nothing is sent. Raises ConnectionError with the reason when it does not get that far.
    """
    chunking = "prove" if relay.chunking == "on" else "off"
    session = Session(Terms(member, relay, settings), chunking=chunking)
    watchdog = gevent.spawn(_watch, session)
    try:
        lost = session.open()
        if lost is not None:
            raise ConnectionError(str(lost))
        client = session.client
        lines = [f"greeting: {client.greeting}"]
        lines.append(f"TLS: {_tls_shown(session)}")
        lines.append(f"login: {_login_shown(session)}")
        keywords = sorted(f"{key} {rest}".strip() for key, rest in client.capabilities.items())
        lines.append(f"announces: {', '.join(keywords) or 'nothing (no EHLO)'}")
        lines.append(f"chunking: {_chunking_shown(session)}")
        session.close()
        return lines
    finally:
        watchdog.kill()
        session.abandon()


def name_servers(settings: Settings) -> list[str]:
    """Ask the name servers for which the relay `mx` needs them; return a line for a person.

    Raises ConnectionError with the reason when they answer nothing, ConfigError without any.
    """
    from geomail.delivery.dns.nameservers import NameServers  # 50 ms, for this relay alone

    began = time.monotonic()
    answer = NameServers(settings.nameservers).mx(_ASKED_FOR)
    if answer.said is Said.FAILED:
        raise ConnectionError(f"the name servers don't answer: {answer.text}")
    return [f"name servers: they answer, within {time.monotonic() - began:.3f} s"]


def _watch(session: Session) -> None:
    while True:
        gevent.sleep(_WATCH_S)
        if time.monotonic() > session.deadline:
            session.expire()


def _tls_shown(session: Session) -> str:
    version = session.tls_version()
    if version is None:
        return "no"
    return f"{version}, {'verified' if session.terms.is_verified else 'not verified'}"


def _login_shown(session: Session) -> str:
    mechanism = session.client.mechanism
    return f"accepted by {mechanism}" if mechanism else "none"


def _chunking_shown(session: Session) -> str:
    relay, client = session.terms.relay, session.client
    if "CHUNKING" not in client.capabilities:
        return "not announced"
    if relay.chunking == "off":
        return f'announced, and not used: chunking = "on" in [relay.{relay.name}] would'
    if client.proved is None:
        return "announced, and not used without PIPELINING"
    if not client.proved:
        return "announced, and not used: the host runs what it should swallow"
    return f"used, {relay.in_flight} mails in flight"
