"""A glance at a payload says what decode would say of its relay, or nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import PayloadError
from geomail.job import Email, decode, relay_of

TO = ["ada@example.org"]
TEXTS = st.sampled_from(["", "sick", 'a"relay":"sick"', "größe", "\\", " sick "])
VALUES = st.one_of(TEXTS, st.none(), st.just({"relay": "sick"}), st.just(["relay"]), st.just(7))
KEYS = st.sampled_from(["relay", "to", "raw", "subject", "headers", "params", "url", "relay ", "x"])


@pytest.mark.parametrize(
    ("fields", "relay"),
    [
        ({"to": TO}, ""),
        ({"to": TO, "relay": "sick"}, "sick"),
        ({"relay": "sick", "bcc": TO}, "sick"),
        ({"rcpt_to": TO, "raw": "QQ==", "relay": "sick"}, "sick"),
        ({"to": TO, "headers": {"relay": "sick"}}, ""),
        ({"to": TO, "text": '"relay":"sick"'}, ""),
        ({"to": TO, "relay": None}, None),
        ({"to": TO, "relay": "sick", "send_at": 1}, None),
        ({"to": TO, "relay": "sick", "expires_at": 1}, None),
        ({"to": TO, "relay": "sick", "dedupe_key": "k"}, None),
        ({"url": "http://x.org/", "relay": "sick"}, None),
        ({"worker": "w", "params": {"to": TO}, "relay": "sick"}, None),
    ],
)
def test_what_is_seen(fields: dict[str, object], relay: str | None) -> None:
    assert relay_of(json.dumps(fields).encode()) == relay


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"to":',
        b"[]",
        b"\xff",
        b'a:1:{s:2:"to";s:1:"x";}',
        b'{"a":' * 5000,
        b'{"to" 1}',
    ],
)
def test_what_takes_reading(payload: bytes) -> None:
    assert relay_of(payload) is None


@given(st.lists(st.tuples(KEYS, VALUES), max_size=6), st.booleans())
def test_it_is_what_decode_finds(pairs: list[tuple[str, object]], whole: bool) -> None:
    body = ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    payload = ("{" + body + "}")[: None if whole else -2].encode()
    seen = relay_of(payload)
    try:
        job = decode(payload)
    except PayloadError:
        return
    assert seen is None or isinstance(job, Email)
    if seen is not None:
        assert isinstance(job, Email)
        assert seen == (job.relay or "")
