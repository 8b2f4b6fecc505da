"""Signatures of callbacks: the scheme's own example, and keys of both kinds."""

import base64
import hmac

import pytest

from geomail.carriers.signature import key_of, signature_headers
from geomail.errors import ConfigError


def test_signs_as_the_schemes_own_libraries_do() -> None:
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signature_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", body, now_s=1614265330)
    assert headers == [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]


def test_plain_text_is_a_key_too() -> None:
    headers = dict(signature_headers(key_of("gehêim"), "1.cb", b"body", now_s=5))
    mac = hmac.digest("gehêim".encode(), b"1.cb.5.body", "sha256")
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!", "whsec_abc", "whsec_ä"])
def test_keys_that_are_none_are_named(secret: str) -> None:
    with pytest.raises(ConfigError, match="base64"):
        key_of(secret)
