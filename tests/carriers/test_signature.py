"""Signatures of callbacks: the scheme's own example, and keys of both kinds."""

import base64
import hmac

import pytest

from geomail import config
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
def test_keys_that_are_none_are_named_at_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match="CALLBACK_SECRET must be base64 behind whsec_"):
        config.load({}, {"GEOMAIL_CALLBACK_SECRET": secret})


@pytest.mark.parametrize("secret", ["whsec_c2VjcmV0", "any text", "whsecret"])
def test_keys_are_settings(secret: str) -> None:
    settings = config.load({}, {"GEOMAIL_CALLBACK_SECRET": secret})
    assert settings.callback_secret == secret
