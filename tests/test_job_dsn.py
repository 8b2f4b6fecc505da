"""What a payload may ask of delivery reports: from JSON, from PHP, beside `raw`, and refusals."""

import base64
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_phpserialize import written

from geomail.errors import PayloadError
from geomail.job import Dsn, Email, RecipientDsn, decode, unknown

FAILURE = Dsn(("FAILURE",))
NEVER = RecipientDsn(("NEVER",))


def asked(dsn: object, **keys: object) -> Dsn | None:
    """Return what a mail with this `dsn` asks for, from JSON and from PHP alike."""
    payload = {"to": "a@x", "dsn": dsn} | keys
    job = decode(json.dumps(payload).encode())
    assert isinstance(job, Email)
    assert decode(written(payload)) == job
    return job.dsn


def reason(dsn: object) -> str:
    payload = {"to": "a@x", "dsn": dsn}
    with pytest.raises(PayloadError) as of_json:
        decode(json.dumps(payload).encode())
    with pytest.raises(PayloadError) as of_php:
        decode(written(payload))
    assert str(of_json.value) == str(of_php.value)
    return str(of_json.value)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (None, None),
        ("", None),
        ({}, None),
        ([], None),
        ({"notify": None, "ret": "", "envid": None}, None),
        ({"notify": []}, None),
        ({"notify": "failure"}, FAILURE),
        ({"notify": ["failure"]}, FAILURE),
        ({"notify": "FAILURE, failure"}, FAILURE),
        ({"notify": "never"}, Dsn(("NEVER",))),
        ({"notify": ["NEVER"]}, Dsn(("NEVER",))),
        ({"notify": "delay,failure"}, Dsn(("FAILURE", "DELAY"))),
        ({"notify": ["success", "failure", "delay"]}, Dsn(("SUCCESS", "FAILURE", "DELAY"))),
        ({"ret": "full"}, Dsn(ret="FULL")),
        ({"ret": "Hdrs"}, Dsn(ret="HDRS")),
        ({"envid": "order 1+1=2"}, Dsn(envid="order 1+1=2")),
        ({"envid": 4711}, Dsn(envid="4711")),
        ({"envid": "x" * 100}, Dsn(envid="x" * 100)),
        ({"envid": "+" * 33}, Dsn(envid="+" * 33)),
        ({"notify": "delay", "ret": "full", "envid": "a"}, Dsn(("DELAY",), "FULL", "a")),
        ({"recipients": {}}, None),
        ({"recipients": {"a@x": {"notify": "never"}}}, Dsn(each={"a@x": NEVER})),
        (
            {"notify": "failure", "recipients": {"a@x": {"orcpt": "rfc822;a b+c@x"}}},
            Dsn(("FAILURE",), each={"a@x": RecipientDsn(orcpt="rfc822;a b+c@x")}),
        ),
    ],
)
def test_what_is_asked(dsn: object, expected: Dsn | None) -> None:
    assert asked(dsn) == expected


def test_a_finished_message_asks_too() -> None:
    raw = base64.b64encode(b"Subject: x\r\n\r\nb\r\n").decode()
    payload = {"raw": raw, "rcpt_to": "a@x", "dsn": {"notify": "failure"}}
    for job in (decode(json.dumps(payload).encode()), decode(written(payload))):
        assert isinstance(job, Email)
        assert job.dsn == FAILURE


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("failure", "dsn: a map of notify, ret and envid expected, not text: 'failure'"),
        (["failure"], "dsn: a map of notify, ret and envid expected, not a list"),
        (True, "dsn: a map of notify, ret and envid expected, not a boolean: True"),
        ({"notify": "never,failure"}, "dsn.notify: never stands alone, not beside success"),
        ({"notify": ["delay", "never"]}, "dsn.notify: never stands alone, not beside success"),
        ({"notify": "bounce"}, "dsn.notify: success, failure, delay or never expected, not text"),
        ({"notify": "failure,"}, "dsn.notify: success, failure, delay or never expected, not text"),
        ({"notify": [7]}, "dsn.notify: success, failure, delay or never expected, not a number: 7"),
        ({"notify": {"a": 1}}, "dsn.notify: success, failure and delay, or never, expected, not a"),
        ({"notify": True}, "dsn.notify: success, failure and delay, or never, expected, not a"),
        ({"notify": "failure\r\nDATA"}, "dsn.notify: success, failure, delay or never expected"),
        ({"ret": "headers"}, "dsn.ret: full or hdrs expected, not text: 'headers'"),
        ({"ret": ["full"]}, "dsn.ret: full or hdrs expected, not a list"),
        ({"ret": 0}, "dsn.ret: full or hdrs expected, not a number: 0"),
        ({"envid": "a\r\nDATA"}, "dsn.envid: control character U+000D at 1 in"),
        ({"envid": "a\tb"}, "dsn.envid: control character U+0009 at 1"),
        ({"envid": "Größe"}, "dsn.envid: printable ASCII expected, not 'Größe'"),
        ({"envid": "x" * 101}, "dsn.envid: at most 100 octets expected, not 101 (each space"),
        ({"envid": "=" * 34}, "dsn.envid: at most 100 octets expected, not 102 (each space"),
        ({"envid": ["a"]}, "dsn.envid: text expected, not a list"),
        ({"recipients": "a@x"}, "dsn.recipients: a map of addresses to notify and orcpt expected"),
        ({"recipients": {"a@x": "never"}}, "dsn.recipients: notify and orcpt for each address exp"),
        (
            {"recipients": {"a@x": {"notify": "bounce"}}},
            "dsn.recipients.notify: success, failure, delay or never expected",
        ),
        (
            {"recipients": {"a@x": {"orcpt": "a@x"}}},
            "dsn.recipients.orcpt: a type and an address in ASCII, as rfc822;ann@x.org, expected",
        ),
        (
            {"recipients": {"a@x": {"orcpt": "rfc822;ö@x"}}},
            "dsn.recipients.orcpt: a type and an address in ASCII",
        ),
        (
            {"recipients": {"a@x": {"orcpt": "rfc822;" + "x" * 494}}},
            "dsn.recipients.orcpt: at most 500 octets expected, not 501",
        ),
    ],
)
def test_what_is_refused(dsn: object, expected: str) -> None:
    assert reason(dsn).startswith(expected)


def test_an_unknown_key_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unknown, "_noted", set())
    with caplog.at_level(logging.WARNING, logger="geomail"):
        assert asked({"notify": "failure", "env_id": "x"}) == FAILURE
    assert caplog.messages == ["unknown_key key=dsn.env_id nearest=dsn.envid"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["never"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["notify", "ret", "envid", "x"]), VALUES) | VALUES)
def test_anything_is_taken_or_refused(dsn: object) -> None:
    try:
        found = asked(dsn)
    except PayloadError:
        return
    if found is not None:
        assert set(found.notify) <= {"SUCCESS", "FAILURE", "DELAY"} or found.notify == ("NEVER",)
        assert found.ret in ("", "FULL", "HDRS")
        assert found.envid.isprintable()
        assert found.envid.isascii()
