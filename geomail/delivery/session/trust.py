"""Trust: TLS with one host, as its relay's owner wants it.

Contexts are costly (the system's authorities: 20 ms, half a megabyte) and are shared by all hosts
for which the same is wanted: verified or not, by which authorities, with which certificate of ours.
The files are read once, and again when a Trust is made after they changed, as at a reload.

A session is kept for the next connection to resume, and offered only by the Trust that got it: so
to the same host and port, under the same name and the same context. One that was made without
verification can never stand for a verified one. It is given up when a handshake fails.
"""

import ssl
from functools import lru_cache
from pathlib import Path

import gevent.socket
from gevent.ssl import SSLContext, SSLSocket

from geomail.relays import Relay
from geomail.relays.files import load_certificate

Stamp = tuple[int, int, int]
_File = tuple[str | None, Stamp | None]


class Trust:
    """Makes the TLS connections to one host."""

    __slots__ = ("_context", "_files", "is_verified", "server_name", "session")

    def __init__(self, server_name: str, relay: Relay, *, is_verified: bool) -> None:
        self.server_name = server_name
        self.is_verified = is_verified
        self.session: ssl.SSLSession | None = None
        paths = (relay.ca_file, relay.cert_file, relay.key_file)
        self._files = [(path, path and stamp(path)) for path in paths]
        self._context: SSLContext | None = None

    def wrap(self, plain: gevent.socket.socket) -> SSLSocket:
        """Return `plain` as a TLS socket whose handshake is still to be made; it owns it now.

        Raises OSError, which says what file can't be used.
        """
        if self._context is None:
            self._context = _context(self.is_verified, *self._files)
        return self._context.wrap_socket(
            plain,
            server_hostname=self.server_name,
            do_handshake_on_connect=False,
            session=self.session,
        )

    def keep(self, socket: SSLSocket) -> None:
        """Keep what the next connection may resume: under TLS 1.3 it comes after the handshake.

        What was resumed itself serves on: to copy a session costs 0.1 ms, and a host that takes
        each but once makes a full handshake, with a new one.
        """
        if not socket.session_reused:
            self.session = socket.session

    @property
    def has_ticket(self) -> bool:
        """True when a session is kept that a host can resume without having kept it too."""
        return self.session is not None and self.session.has_ticket


@lru_cache(maxsize=64)
def _context(is_verified: bool, authority: _File, certificate: _File, key: _File) -> SSLContext:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    ca_file, cert_file, key_file = authority[0], certificate[0], key[0]
    if is_verified:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if is_verified and ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise OSError(f"ca_file {ca_file} can't be used: {said(error)}") from error
    if cert_file is not None:
        try:
            load_certificate(context, cert_file, key_file)
        except OSError as error:
            raise OSError(f"cert_file {cert_file} can't be used: {said(error)}") from error
    return context


def said(error: OSError | ValueError) -> str:
    """Return the words of an error of TLS or of the system."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate can't be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "what the host says is no TLS"
    return getattr(error, "strerror", None) or str(error)


def stamp(path: str) -> Stamp | None:
    """Return what tells one state of a file from the next, None where there is none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
