"""Signatures of callbacks, by the Standard Webhooks scheme (standardwebhooks.com), version 1.

    webhook-id           the callback's own name: the same in every try, so that its receiver can
                         tell a repetition; it is there without a key too
    webhook-timestamp    seconds since 1970, of this try: what is old is no repetition of ours
    webhook-signature    v1, and the base64 of HMAC-SHA256 over ID.TIMESTAMP.BODY

The key is what follows `whsec_`, in base64, or any other text as it is (UTF-8).
"""

import base64
import hashlib
import hmac

from geomail.values import WEBHOOK_PREFIX


def key_of(secret: str) -> bytes:
    """Return the key that a `callback_secret` means, which has been read as one."""
    if secret.startswith(WEBHOOK_PREFIX):
        return base64.b64decode(secret.removeprefix(WEBHOOK_PREFIX))
    return secret.encode()


def signature_headers(
    key: bytes, message_id: str, body: bytes, *, now_s: int
) -> list[tuple[str, str]]:
    """Return the three headers that sign `body`; `now_s`: seconds since 1970."""
    signed = f"{message_id}.{now_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(now_s)),
        ("webhook-signature", f"v1,{base64.b64encode(digest).decode()}"),
    ]
