"""The files that a relay names: certificates, keys, a token; checked before anything connects.

A file that is missing, can't be read, or isn't what its key says raises ConfigError: one line with
the relay, the key, the path, and what to do. It is promised that the files were usable when they
were looked at; they may change later, and then the connection says so. A key behind a passphrase is
refused, because nobody is there to type it. Nothing of a file's content stands in an error.

`ssl` is imported where it is used: settings are read before gevent patches it.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from geomail.errors import ConfigError
from geomail.relays.relay import Relay

if TYPE_CHECKING:
    import ssl

_MOST_OF_A_FILE = 4_000_000  # a system's bundle of authorities has 250 KB
_MOST_OF_A_TOKEN = 16_384
_LONGEST_NAME = 40
# RFC 6750 section 2.1 allows less; what ends a field of the mechanisms (^A) or a line is for none.
_TOKEN = re.compile(r"[!-~]+")


def check_files(relay: Relay) -> None:
    """Raise ConfigError when a file that `relay` names can't be used."""
    if relay.ca_file is not None:
        _check_authority(relay, relay.ca_file)
    if relay.cert_file is not None:
        _check_certificate(relay, relay.cert_file, relay.key_file or relay.cert_file)
    if relay.token_file is not None:
        read_token(relay)


def read_token(relay: Relay) -> str:
    """Return the bearer token that lies in the relay's `token_file` now. Raises ConfigError."""
    path = relay.token_file or ""
    token = _content(relay, "token_file", path).strip()
    if not token:
        raise ConfigError(f"token_file of relay {relay.name}: {path} is empty")
    if len(token) > _MOST_OF_A_TOKEN or not _TOKEN.fullmatch(token):
        raise ConfigError(
            f"token_file of relay {relay.name}: {path} must hold the token alone, in one line"
        )
    return token


def load_certificate(context: "ssl.SSLContext", cert_file: str, key_file: str | None) -> None:
    """Make `context` show this certificate. Raises OSError; asks nobody for a passphrase."""
    context.load_cert_chain(cert_file, key_file, password=_no_passphrase)


def _no_passphrase() -> str:
    raise PermissionError("the key is behind a passphrase")


def _check_authority(relay: Relay, path: str) -> None:
    import ssl

    _content(relay, "ca_file", path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):
        raise ConfigError(
            f"ca_file of relay {relay.name}: {path} holds no certificate in PEM"
            " (-----BEGIN CERTIFICATE-----)"
        ) from None


def _check_certificate(relay: Relay, cert_file: str, key_file: str) -> None:
    import ssl

    key = "key_file" if relay.key_file else "cert_file"
    _expect(relay, "cert_file", cert_file, "-----BEGIN CERTIFICATE-----")
    _expect(relay, key, key_file, "PRIVATE KEY-----")
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert_file, key_file)
    except PermissionError:
        raise ConfigError(
            f"{key} of relay {relay.name}: the key in {key_file} is behind a passphrase,"
            " and nobody is there to type it: write it without one (openssl pkey)"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or "it can't be read"
        if why == "KEY_VALUES_MISMATCH":
            why = f"the key in {key_file} belongs to another certificate"
        raise ConfigError(f"cert_file of relay {relay.name}: {cert_file}: {why}") from None


def _expect(relay: Relay, key: str, path: str, begin: str) -> None:
    if begin not in _content(relay, key, path):
        lead = "" if begin.startswith("-") else "-----BEGIN … "
        what = "certificate" if "CERT" in begin else "private key"
        raise ConfigError(
            f"{key} of relay {relay.name}: {path} holds no {what} in PEM ({lead}{begin})"
        )


def _content(relay: Relay, key: str, path: str) -> str:
    try:
        with Path(path).open(encoding="latin-1") as file:
            return file.read(_MOST_OF_A_FILE)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{key} of relay {relay.name}: can't read {_shown(path)}: {why}: name a file that is"
            " there, and that this user may read"
        ) from None


def _shown(path: str) -> str:
    # What is no path may be the token or the key itself.
    is_path = not path.startswith("-----") and ("/" in path or len(path) <= _LONGEST_NAME)
    return path if is_path else f"{path[:5]}…"
