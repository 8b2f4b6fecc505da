"""What is read in one go is what would have been read in full, and the plain mails are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import PayloadError
from geomail.job import Email, decode, plain
from geomail.job.payload import fields_of
from geomail.job.shapes import job_of

PLAIN: list[dict[str, Any]] = [
    {"to": "a@x"},
    {"to": "Ann <a@x>, b@y", "subject": None, "text": ""},
    {"to": {"a@x": "Ann"}, "subject": "Hi", "body": "Body"},
    {"to": {"email": "a@x", "name": None}, "text": "Text", "body": ""},
    {"to": ["a@x", {"b@y": "Bo"}, {"email": "A@x", "name": "Ann"}], "text": "t", "html": "<p>"},
    {"to": {"0": "a@x", "b@y": None}, "html": "<p>", "body": "both"},
    {"to": "a@x", "from": "Me <me@x>", "relay": "r", "id": "order 1"},
    {"to": "a@x", "from": {"me@x": "Me"}, "relay": "", "id": None, "html": ""},
]
NOT_PLAIN: list[dict[str, Any]] = [
    {"to": "a@x", "cc": "b@y"},
    {"to": "a@x", "subject": 1},
    {"to": "a@x", "html": True, "body": "<p>"},
    {"to": ["a@x"], "text": "one", "body": "another"},
    {"to": "", "text": "nobody"},
    {"to": [], "rcpt_to": "a@x"},
    {"to": "a@x", "subject": "two\nlines"},
    {"to": "no address", "subject": "Hi"},
    {"to": ["a@x"] * 1001},
    {"to": {"0": {"email": "a@x"}}},
    {"to": "a@x", "id": " "},
    {"to": "a@x", "charset": "utf-8"},
    {"url": "https://x.example/"},
]
TEXTS = st.sampled_from(["", " ", "x", "a@x", "Ann <a@x>", "a@x,b@y", "ü", "\n", "\u2028", "0"])
MANY = st.one_of(TEXTS, st.none(), st.integers(0, 1), st.booleans(), st.just({}), st.just([]))
VALUES = st.recursive(
    MANY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)
KEYS = st.sampled_from(
    ["to", "from", "subject", "text", "body", "html", "relay", "id", "cc", "title", "raw", "nokey"]
)


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_PASSED_OVER", 0)
    plain._look.left = 0


def read_in_full(payload: bytes) -> object:
    """Return the job, or the reason why there is none."""
    try:
        return job_of(fields_of(payload))
    except PayloadError as error:
        return str(error)


def read(payload: bytes) -> object:
    """Do the same by the one door."""
    try:
        return decode(payload)
    except PayloadError as error:
        return str(error)


@pytest.mark.parametrize("keys", PLAIN)
def test_plain_mails_are_read_in_one_go(keys: dict[str, Any]) -> None:
    payload = json.dumps(keys).encode()
    email = plain.email_of(payload)
    assert isinstance(email, Email)
    assert email == read_in_full(payload)


@pytest.mark.parametrize("keys", NOT_PLAIN)
def test_others_are_read_in_full(keys: dict[str, Any]) -> None:
    payload = json.dumps(keys).encode()
    assert plain.email_of(payload) is None
    assert read(payload) == read_in_full(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b'{"to":"a@x"',
        b'{"to":"a@x"}x',
        b'\xef\xbb\xbf{"to":"a@x"}',
        b'  {"to":"a@x"}',
        b'{"to":"a@x","subject":"\xff"}',
        b'{"to":"a@x","subject":"\\ud800"}',
        b'{"to":"a@x","to":"b@x"}',
        b'{"to":1,"to":"b@x"}',
        b'{"to":' + b"[" * 5000,
        b'a:1:{s:2:"to";s:3:"a@x";}',
    ],
)
def test_odd_bytes_mean_the_same(payload: bytes) -> None:
    assert read(payload) == read_in_full(payload)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_any_payload_means_the_same(keys: dict[str, Any], is_escaped: bool) -> None:
    payload = json.dumps(keys | {"to": keys.get("to", "a@x")}, ensure_ascii=is_escaped).encode()
    assert read(payload) == read_in_full(payload)


def test_behind_a_miss_some_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_PASSED_OVER", 2)
    payloads = [b'{"to":"a@x","cc":"b@x"}', *[b'{"to":"a@x"}'] * 3]
    found = [plain.email_of(payload) is not None for payload in payloads]
    assert found == [False, False, False, True]
