"""The certificate of the doors: `door_cert`, one PEM file with the chain and the key.

Read when the doors open, so that a mistake is said at the start, and again on SIGHUP: a context
that is in use takes the new one for connections to come.
"""

import ssl

from geomail.config import Settings
from geomail.errors import ConfigError


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """Return what `door_cert` holds, None without one. Raises ConfigError."""
    if settings.door_cert is None:
        return None
    context = _new_context()
    load_certificate(context, settings)
    return context


def _new_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Else OpenSSL writes nothing more once reading has ended, and there may be answers to give.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Read `door_cert` for connections to come. Raises ConfigError, and leaves `context` alone."""
    path = str(settings.door_cert)
    try:
        # OpenSSL takes a new certificate first, and forgets the old key: a file that is half
        # written, or has another's key, would leave the context with none.
        _new_context().load_cert_chain(path)
        context.load_cert_chain(path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"door_cert: {path} is no PEM file with certificate and key ({error.strerror or error})"
        ) from None
