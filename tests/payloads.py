"""Payloads for the tests of jobs: mails written as JSON and by PHP, and why others are refused."""

import json
from typing import Any

import pytest
from test_phpserialize import written

from geomail.errors import PayloadError
from geomail.job import Address, Email, decode

A = Address("a@x")


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def as_escaped_json(value: object) -> bytes:
    return json.dumps(value).encode()


def mail(**fields: Any) -> Email:
    """Return the job of a mail, to a@x unless said otherwise, from JSON and from PHP alike."""
    keys = {"to": "a@x"} | {key.rstrip("_"): value for key, value in fields.items()}
    job = decode(as_json(keys))
    assert isinstance(job, Email)
    assert decode(written(keys)) == job
    assert decode(as_escaped_json(keys)) == job
    return job


def reason(payload: bytes) -> str:
    """Return why a payload is refused; a reason is one printable line of bounded length."""
    with pytest.raises(PayloadError) as refusal:
        decode(payload)
    text = str(refusal.value)
    assert text.isprintable()
    assert len(text) < 400
    return text
