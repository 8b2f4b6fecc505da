"""Certificates made for these tests, servers that have them, and what is common to tests of TLS."""

import ssl

import trustme
from gevent.ssl import SSLContext
from scripted import Host, send

from geomail.delivery.outcome import Fate
from geomail.delivery.session.transport import Session, Terms
from geomail.sink import Sink

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
LOGINS = {"ann": "secret"}


def context(
    authority: trustme.CA = AUTHORITY,
    *names: str,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> SSLContext:
    """Return a server's context, for `localhost` unless `names` are given."""
    made = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    made.maximum_version = newest
    authority.issue_cert(*(names or ("localhost",))).configure_cert(made)
    return made


def url(host: Host | Sink, scheme: str = "smtp", login: str = "") -> str:
    """Return the URL of a host on this machine."""
    port = host.port if isinstance(host, Host) else host.address[1]
    return f"{scheme}://{login}localhost:{port}"


def is_delivered(sink: Sink, made: Terms) -> Session:
    """Send a letter, look whether it came, and return the session it came by."""
    sent = send(made)
    assert sent.one().fate is Fate.DELIVERED
    assert sink.count == 1
    return sent.session


def unverified() -> SSLContext:
    """Return a client's context that trusts all."""
    made = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made
