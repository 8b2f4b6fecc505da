"""Payloads that are no job: a table of refusals, and properties on random input."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import as_json, mail, reason
from test_phpserialize import written

from geomail.errors import PayloadError
from geomail.job import CallTask, Email, HttpTask, decode, shapes

REFUSED: list[tuple[bytes, str]] = [
    (b"", "empty payload: a JSON object or a PHP-serialized array expected"),
    (b" \n", "empty payload"),
    (b"\x1f\x8b\x08\x00", "neither JSON nor PHP serialize"),
    (b"hello", "it begins with b'hello'"),
    (b'{"to": "a@x"', "JSON: Input data was truncated"),
    (b'{"to": "a@x"} x', "JSON: JSON is malformed: trailing characters (byte 15), at b'"),
    (b'{"to": "a@x", "retries": NaN}', "NaN}'"),
    (b'{"to": "a@x", "retries": 1e999}', "JSON: Number out of range"),
    (b'{"to": "a@x", "subject": "a\nb"}', "invalid character"),
    (b'{"to": "a@x", "subject": "\\ud83d"}', "half of a surrogate pair"),
    (b'{"to": "a@x", "subject": "\xff"}', "JSON: bytes that are not UTF-8: b'\\xff'; send UTF-8"),
    (b'{"to": "a@x", "subject": "\xed\xa0\x80"}', "JSON: bytes that are not UTF-8"),
    (b'"{\\"to\\": \\"a@x\\"}"', "a map of keys expected, not one string: was it encoded twice?"),
    (b's:2:"{}";', "a map of keys expected, not one string: was it encoded twice?"),
    (b'[{"to": "a@x"}]', "a map of keys expected, not a list: push each job by itself"),
    (b"a:1:{i:0;N;}", "a map of keys expected, not a list"),
    (b"i:5;", "a map of keys expected, not 5"),
    (b"N;", "a map of keys expected, not None"),
    (b'O:8:"stdClass":1:{s:2:"to";s:3:"a@x";}', "PHP: byte 0: an object (stdClass) is not read"),
    (b'a:1:{s:2:"to";O:4:"Mail":0:{}}', "PHP: byte 14: an object (Mail) is not read"),
    (b'a:1:{s:2:"to";s:3:"\xe9@x";}', "PHP: a string holds bytes that are not utf-8"),
    (b"{}", "unknown shape: one of `to`, `raw`, `url`, `worker` expected, keys: none"),
    (b'{"foo": 1}', "keys: 'foo'"),
    (b'{"To": "a@x", "Foo": 1}', "keys: 'To' (is `to` meant?)"),
    (b'{"subject": "s", "body": "b"}', "no recipient: `to` is missing (`subject` is there)"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deep: at most 64"),
    (b'{"to":"a@x","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deep: at most 64"),
    (b'{"to":"a@x","x":' + b"[" * 64 + b"]" * 64 + b"}", "nested too deep: at most 64"),
    (b'a:1:{s:2:"to";' * 10_000, "PHP: byte 901: arrays nested deeper than 64"),
    (b"{" + b" " * 50_000_000, "payload of 50,000,001 bytes: at most 33,554,432 (32 MiB)"),
    (b"a" * 50_000_000, "payload of 50,000,000 bytes: at most 33,554,432 (32 MiB)"),
    (b'{"url": "ftp://h/"}', "url: an http:// or https:// URL with a host and no spaces expected"),
    (b'{"url": "http://h/a b"}', "url: an http:// or https:// URL"),
    (b'{"url": "http://h/\\r\\nX: y"}', "url: an http:// or https:// URL"),
    (b'{"url": 5}', "url: an http:// or https:// URL expected, not a number: 5"),
    (b'{"url": ""}', "url: empty"),
    (
        b'{"url": "http://h/", "method": "BREW"}',
        "method: an HTTP method expected, not text: 'BREW'",
    ),
    (b'{"url": "http://h/", "param": "a=b"}', "param: a map expected, not text: 'a=b'"),
    (b'{"url": "http://h/", "headers": {"Host": "h"}}', "headers: Host can't be set here"),
    (b'{"url": "http://h/", "headers": {"A": "a\\nb"}}', "headers: A: control character U+000A"),
    (b'{"worker": ""}', "worker: empty"),
    (b'{"worker": "a\\nb"}', "worker: control character U+000A"),
    (b'{"worker": {}}', "worker: empty"),
    (b'{"worker": "w", "class": ["c"]}', "class: text expected, not a list"),
]

REFUSED_FIELDS: list[tuple[dict[str, object], str]] = [
    ({"to_email": "b@x"}, "`to` and `to_email` mean the same: keep one"),
    ({"subject": "a", "title": "b"}, "`subject` and `title` mean the same: keep one"),
    ({"text": "a", "body": "b"}, "both `text` and `body` are given: keep one"),
    ({"subject": "a\r\nBcc: b@y"}, "subject: control character U+000D at 1 in 'a\\r\\nBcc: b@y'"),
    ({"subject": "a\tb"}, "subject: control character U+0009 at 1"),
    ({"subject": ["a"]}, "subject: text expected, not a list"),
    ({"subject": True}, "subject: text expected, not a boolean: True"),
    ({"text": {"a": 1}}, "text: text expected, not a map"),
    ({"html": ["a"]}, "html: text expected, not a list"),
    ({"from": "a@x, b@y"}, "from: one address expected, not 2"),
    ({"from": "News"}, "from: 'News' is not an address: it has no @"),
    ({"from": "N\n <a@x>"}, "from: control character U+000A"),
    ({"reply_to": "x"}, "reply_to: 'x' is not an address"),
    ({"return_path": "x"}, "return_path: 'x' is not an address"),
    ({"id": "a\nb"}, "id: control character U+000A"),
    ({"id": "x" * 1001}, "id: text of 1 to 1000 characters expected"),
    ({"dedupe_key": ["k"]}, "dedupe_key: text expected, not a list"),
    ({"relay": " "}, "relay: text of 1 to 1000 characters expected, not text: ' '"),
    ({"retries": -1}, "retries: a whole number from 0 to 1000 expected, not a number: -1"),
    ({"retries": 1.5}, "retries: a whole number from 0 to 1000 expected, not a number: 1.5"),
    ({"retries": True}, "retries: a whole number from 0 to 1000 expected, not a boolean: True"),
    ({"retries": "many"}, "retries: a whole number from 0 to 1000 expected, not text: 'many'"),
    ({"retries": "9" * 5000}, "retries: a whole number from 0 to 1000 expected"),
    ({"callback_url": "http://" + "a" * 200_000 + " "}, "callback_url: an http:// or https://"),
    ({"callback_url": "javascript:x"}, "callback_url: an http:// or https:// URL"),
    ({"send_at": "tomorrow"}, "send_at: ISO 8601 (2030-01-31T09:00:00Z) or epoch seconds expected"),
    ({"send_at": "20300101"}, "send_at: a date as 2030-01-31, or epoch seconds expected"),
    ({"send_at": "2030-01-01T" + "1" * 100}, "send_at: ISO 8601"),
    ({"send_at": "1960-01-01"}, "send_at: ISO 8601"),
    ({"send_at": "0001-01-01T00:00:00+14:00"}, "send_at: ISO 8601"),
    ({"send_at": 1893456000000}, "send_at: epoch seconds (not milliseconds) expected"),
    ({"send_at": -1}, "send_at: epoch seconds (not milliseconds) expected, not a number: -1"),
    ({"send_at": True}, "send_at: ISO 8601 or epoch seconds expected, not a boolean: True"),
    ({"expires_at": [1]}, "expires_at: ISO 8601 or epoch seconds expected, not a list"),
    ({"headers": ["X-A: b"]}, "headers: a map of names to values expected, not a list"),
    ({"headers": {"X A": "b"}}, "headers: 'X A' can't be the name of a header"),
    ({"headers": {"X:A": "b"}}, "headers: 'X:A' can't be the name of a header"),
    ({"headers": {"": "b"}}, "headers: '' can't be the name of a header"),
    ({"headers": {"X-É": "b"}}, "headers: 'X-É' can't be the name of a header"),
    ({"headers": {"X-A\r\nBcc": "b"}}, "headers: 'X-A\\r\\nBcc' can't be the name of a header"),
    ({"headers": {"X-A": "b\r\nBcc: c@d"}}, "headers: X-A: control character U+000D at 1"),
    ({"headers": {"X-A": {"b": 1}}}, "headers: X-A: text expected, not a map"),
    ({"headers": {"Message-ID": "abc"}}, "headers: Message-ID: <left@right> expected"),
    ({"headers": {"Date": "2030-01-01"}}, "headers: Date: an RFC 5322 date expected"),
    ({"headers": {"Reply-To": "x"}}, "headers: Reply-To: 'x' is not an address"),
    ({"headers": {"Date": ["Mon, 1 Jan 2030 10:00:00 +0000"] * 2}}, "headers: Date stands twice"),
    ({"headers": {"Reply-To": "b@x"}, "reply_to": "c@x"}, "both `reply_to` and a Reply-To header"),
    ({"attachments": {"filename": "a"}}, "attachments: a list of {filename, content, type, cid}"),
    ({"attachments": ["a.pdf"]}, "attachments[0]: a map of filename, content, type and cid"),
    ({"attachments": [{"path": "/etc/passwd"}]}, "attachments[0].path: files are not opened here"),
    (
        {"attachments": [{"filename": "a"}]},
        "attachments[0].content: base64 expected, it is missing",
    ),
    (
        {"attachments": [{"content": "a!b="}]},
        "attachments[0].content: base64 expected: Only base64",
    ),
    (
        {"attachments": [{"content": "YQ"}]},
        "attachments[0].content: base64 expected: Incorrect pad",
    ),
    ({"attachments": [{"content": "é"}]}, "attachments[0].content: base64 expected: 'é' at 0"),
    ({"attachments": [{"content": 5}]}, "attachments[0].content: base64 expected, not a number: 5"),
    ({"attachments": [{"content": "", "type": "pdf"}]}, "attachments[0].type: image/png expected"),
    (
        {"attachments": [{"content": "", "type": "a/b\nc"}]},
        "attachments[0].type: control character",
    ),
    ({"attachments": [{"content": "", "type": "multipart/x"}]}, "attachments[0].type: image/png"),
    ({"attachments": [{"content": "", "cid": "<a>"}]}, "attachments[0].cid: an id like logo@x"),
    ({"attachments": [{"content": "", "filename": "a\nb"}]}, "attachments[0].filename: control"),
    ({"raw": "!"}, "raw: base64 expected: Only base64 data is allowed"),
    ({"raw": ""}, "raw: empty, the base64 of a finished message expected"),
    ({"raw": None}, "raw: empty, the base64 of a finished message expected"),
    ({"raw": "YQ==", "title": "s"}, "raw is a finished message: `title` can't be given beside it"),
]

FORBIDDEN = [
    *("From", "sender", "TO", "Cc", "bcc", "Subject", "MIME-Version", "Content-Type", "content-x"),
    *("Return-Path", "Received", "DKIM-Signature"),
]


class TestRefusals:
    @pytest.mark.parametrize(
        ("payload", "expected"), [pytest.param(*row, id=row[1][:40]) for row in REFUSED]
    )
    def test_payloads(self, payload: bytes, expected: str) -> None:
        assert expected in reason(payload)

    @pytest.mark.parametrize(("fields", "expected"), REFUSED_FIELDS)
    def test_fields(self, fields: dict[str, object], expected: str) -> None:
        assert expected in reason(as_json({"to": "a@x"} | fields))
        assert expected in reason(written({"to": "a@x"} | fields))

    @pytest.mark.parametrize("name", FORBIDDEN)
    def test_headers_that_geomail_writes(self, name: str) -> None:
        text = reason(as_json({"to": "a@x", "headers": {name: "x"}}))
        assert text == f"headers: {name} can't be set here: geomail writes it"

    def test_nan_of_php(self) -> None:
        for value in (b"NAN", b"INF", b"-INF"):
            payload = b'a:2:{s:2:"to";s:3:"a@x";s:7:"%b";d:%b;}'
            assert "epoch seconds" in reason(payload % (b"send_at", value))
            assert "subject: text expected" in reason(payload % (b"subject", value))

    def test_a_url_is_not_quoted(self) -> None:
        assert "hunter2" not in reason(b'{"url": "http://u:hunter2@h/ x"}')
        assert "hunter2" not in reason(b'{"to": "a@x", "callback_url": "ftp://u:hunter2@h/"}')

    def test_depth_64_is_taken(self) -> None:
        payload = b'{"to":"a@x","x":' + b"[" * 63 + b"]" * 63 + b"}"
        assert decode(payload) == mail()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*shapes._EMAIL, *shapes._HTTP, *shapes._CALL, "unheard_of"])


@given(st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    decoded_or_refused(payload)
    decoded_or_refused(b"{" + payload)
    decoded_or_refused(b"a:" + payload)


@given(st.dictionaries(KEYS, JSON | st.just("a@x"), max_size=5))
def test_any_map_is_decoded_or_refused(keys: dict[str, object]) -> None:
    decoded_or_refused(json.dumps(keys).encode())
    with contextlib.suppress(UnicodeEncodeError, KeyError):
        decoded_or_refused(written(keys))


@given(st.data())
def test_a_mutated_mail_is_decoded_or_refused(data: st.DataObject) -> None:
    keys = {"to": {"a@x": "A"}, "subject": "s", "headers": {"X-A": "b"}, "send_at": 1.5}
    payload = bytearray(data.draw(st.sampled_from([as_json, written]))(keys))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decoded_or_refused(bytes(payload))


def decoded_or_refused(payload: bytes) -> None:
    with contextlib.suppress(PayloadError):
        assert isinstance(decode(payload), Email | HttpTask | CallTask)
