"""Payloads become jobs: a table of shapes, a table of refusals, and properties on random input."""

import base64
import contextlib
import json
import logging
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_phpserialize import written

from geomail import metrics
from geomail.errors import PayloadError
from geomail.job import Address, Attachment, CallTask, Email, HttpTask, decode, shapes, unknown


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


A = Address("a@x")


class TestShapes:
    def test_mixphp_push_daemon(self) -> None:
        expected = Email(
            to=[Address("a@x", "A name")], subject="Hi", text="Body", recipients=["a@x"]
        )
        keys = {"to": {"a@x": "A name"}, "subject": "Hi", "body": "Body"}
        assert decode(written(keys)) == expected
        assert decode(as_json(keys)) == expected

    def test_tcp_task_server_mail(self) -> None:
        job = decode(
            as_json({"from_email": "f@y", "to_email": "a@x", "title": "Hi", "content": "Body"})
        )
        assert job == Email(
            to=[A], sender=Address("f@y"), subject="Hi", text="Body", recipients=["a@x"]
        )

    def test_tcp_task_server_url(self) -> None:
        job = decode(as_json({"url": "http://h/p?q=1", "param": {"a": 1, "b": ["x"]}}))
        assert job == HttpTask(url="http://h/p?q=1", param={"a": 1, "b": ["x"]})

    def test_task_daemon(self) -> None:
        job = decode(as_json({"worker": "mail", "class": "Task", "params": {"a": [1, None]}}))
        assert job == CallTask(worker="mail", cls="Task", params={"a": [1, None]})

    def test_natural(self) -> None:
        job = decode(
            as_json(
                {
                    "to": ["Ann <ann@example.org>", {"email": "bo@example.org", "name": "Bo"}],
                    "cc": [],
                    "bcc": ["secret@example.org"],
                    "reply_to": "back@example.org",
                    "from": "News <news@example.com>",
                    "subject": "Sübject",
                    "text": "T",
                    "html": "<p>H",
                    "headers": {"X-Tag": "a"},
                    "attachments": [
                        {
                            "filename": "a.pdf",
                            "content": "AAEC",
                            "type": "application/pdf",
                            "cid": None,
                        }
                    ],
                    "id": "order-4711",
                    "dedupe_key": None,
                    "return_path": "bounce@example.com",
                    "relay": "default",
                    "send_at": "2030-01-01T09:00:00Z",
                    "expires_at": 1893456000,
                    "retries": 5,
                    "callback_url": "https://h/done",
                }
            )
        )
        assert job == Email(
            to=[Address("ann@example.org", "Ann"), Address("bo@example.org", "Bo")],
            bcc=[Address("secret@example.org")],
            reply_to=[Address("back@example.org")],
            sender=Address("news@example.com", "News"),
            subject="Sübject",
            text="T",
            html="<p>H",
            headers=[("X-Tag", "a")],
            attachments=[Attachment("a.pdf", b"\0\1\2", "application/pdf")],
            recipients=["ann@example.org", "bo@example.org", "secret@example.org"],
            label="order-4711",
            return_path="bounce@example.com",
            relay="default",
            send_at_ms=1893488400000,
            expires_at_ms=1893456000000,
            retries=5,
            callback_url="https://h/done",
        )

    def test_raw(self) -> None:
        raw = b"Subject: hi\r\n\r\nbody\r\n"
        keys = {"mail_from": "f@y", "rcpt_to": ["b@y"], "raw": base64.b64encode(raw).decode()}
        expected = Email(raw=raw, mail_from="f@y", recipients=["b@y"])
        assert decode(as_json(keys)) == expected
        assert decode(written(keys)) == expected
        assert decode(as_json(keys | {"mail_from": "<>"})) == Email(
            raw=raw, mail_from="", recipients=["b@y"]
        )

    def test_nothing_but_a_recipient(self) -> None:
        assert mail() == Email(to=[A], recipients=["a@x"])
        assert mail(subject="", body="", cc=[], bcc="", from_=None) == mail()

    def test_http_task_in_full(self) -> None:
        job = decode(
            written(
                {
                    "url": "https://h/",
                    "method": "put",
                    "param": [],
                    "headers": {"X-A": "1"},
                    "json": [],
                    "id": 7,
                    "retries": "3",
                }
            )
        )
        assert job == HttpTask(
            url="https://h/", method="PUT", headers=[("X-A", "1")], json=[], label="7", retries=3
        )

    def test_json_is_posted(self) -> None:
        job = decode(as_json({"url": "https://h/", "json": {"a": 1}}))
        assert job == HttpTask(url="https://h/", method="POST", json={"a": 1})

    def test_white_space_and_a_byte_order_mark_are_let_pass(self) -> None:
        payload = as_json({"to": "a@x"})
        assert decode(b"\xef\xbb\xbf \r\n" + payload + b"\n") == mail()
        assert decode(b" " + written({"to": "a@x"}) + b"\n") == mail()

    def test_of_equal_keys_the_last_wins(self) -> None:
        assert decode(b'{"to":"b@x","to":"a@x"}') == mail()
        assert decode(b'a:2:{s:2:"to";s:3:"b@x";s:2:"to";s:3:"a@x";}') == mail()


class TestBody:
    @pytest.mark.parametrize(
        ("fields", "text", "html"),
        [
            ({"body": "B"}, "B", None),
            ({"text": "B"}, "B", None),
            ({"html": "H"}, None, "H"),
            ({"body": "B", "html": "H"}, "B", "H"),
            ({"body": "B", "html": True}, None, "B"),
            ({"body": "B", "html": 1}, None, "B"),
            ({"body": "B", "html": False}, "B", None),
            ({"body": "B", "html": True, "text": "T"}, "T", "B"),
            ({"text": "B", "html": True}, None, "B"),
            ({"content": "B", "html": True}, None, "B"),
            ({"text": 4711}, "4711", None),
            ({"text": "a\tb\r\n\0c"}, "a\tb\r\n\0c", None),
        ],
    )
    def test_which_part_it_becomes(
        self, fields: dict[str, object], text: str | None, html: str | None
    ) -> None:
        job = mail(**fields)
        assert (job.text, job.html) == (text, html)


ADDRESSES: list[tuple[object, list[Address]]] = [
    ("a@x", [A]),
    (" a@x ", [A]),
    ("<a@x>", [A]),
    ("Ann <a@x>", [Address("a@x", "Ann")]),
    ("Ann Lee<a@x>", [Address("a@x", "Ann Lee")]),
    ('"Doe, Jane" <j@x>, bo@y,', [Address("j@x", "Doe, Jane"), Address("bo@y")]),
    (r'"Q \"q\" \\" <a@x>', [Address("a@x", r'Q "q" \ '.strip())]),
    ("Ann Müller <ann@bücher.example>", [Address("ann@bücher.example", "Ann Müller")]),
    (["a@x", "Bo <b@y>"], [A, Address("b@y", "Bo")]),
    (["a@x, b@y"], [A, Address("b@y")]),
    (
        {"a@x": "Ann", "b@y": None, "c@z": ""},
        [Address("a@x", "Ann"), *map(Address, ["b@y", "c@z"])],
    ),
    ({"email": "a@x", "name": "Ann"}, [Address("a@x", "Ann")]),
    ({"email": "a@x"}, [A]),
    ([{"email": "a@x", "name": None}, {"b@y": "Bo"}], [A, Address("b@y", "Bo")]),
    ({"0": "a@x", "b@y": "Bo"}, [A, Address("b@y", "Bo")]),
    ({"1": "a@x", "0": {"email": "b@y"}}, [A, Address("b@y")]),
    ("xxx.@x.example", [Address("xxx.@x.example")]),
    ("a..b@x.example", [Address("a..b@x.example")]),
    ("用户@例子.广告", [Address("用户@例子.广告")]),
    ('"a@b,c"@x', [Address('"a@b,c"@x')]),
    ("a@[192.0.2.1]", [Address("a@[192.0.2.1]")]),
    ("a@[IPv6:2001:db8::1]", [Address("a@[IPv6:2001:db8::1]")]),
    (f"{'l' * 64}@x", [Address(f"{'l' * 64}@x")]),
]

NO_ADDRESS: list[tuple[object, str]] = [
    ("ann", "to: 'ann' is not an address: it has no @"),
    ("Doe, Jane <j@x>", "to: 'Doe' is not an address: it has no @ (a name with a comma goes in"),
    ("@x", "1 to 64 octets before the @"),
    (f"{'l' * 65}@x", "1 to 64 octets before the @"),
    (f"{'é' * 33}@x", "1 to 64 octets before the @"),
    ("a@", "1 to 255 octets after the @"),
    (f"a@{'d.' * 128}d", "1 to 255 octets after the @"),
    (f"a@{'d' * 64}.x", "longer than 63 characters"),
    ("a@x..y", "what stands after the @ is no domain"),
    ("a@.x", "what stands after the @ is no domain"),
    ("a@x.", "what stands after the @ is no domain"),
    ("a@x;b@y", "needs quotes"),
    ("a@b@x", "needs quotes"),
    ("a b@x", "to: 'a b@x' is not an address: U+0020 (' ') at 1 can't be in one"),
    ("a@x\r\nBcc: b@y", "to: control character U+000D at 3 in 'a@x\\r\\nBcc: b@y'"),
    ("a@x\n", "to: control character U+000A at 3"),
    ("a\x00@x", "to: control character U+0000 at 1"),
    ("a\x7f@x", "to: control character U+007F at 1"),
    ("a\u2028@x", "U+2028"),
    ("a\xa0@x", "U+00A0"),
    ("A\tB <a@x>", "to: control character U+0009"),
    ({"a@x\r\nRCPT TO:<b@y>": "n"}, "U+000D ('\\r') at 3 can't be in one"),
    ({"a@x>": "n"}, "U+003E ('>') at 3 can't be in one"),
    ({"a@x,b@y": "n"}, "needs quotes"),
    ({"a@x": "A\nBcc: b@y"}, "to: the name of a@x: control character U+000A at 1"),
    ({"a@x": ["n"]}, "to: the name of a@x: text expected, not a list"),
    ({"name": "Ann"}, "to: an entry with `email` and `name` expected, `email` is missing"),
    ([["a@x"]], "to: an address in each entry expected, not a list"),
    ([5], "to: an address in each entry expected, not a number: 5"),
    ([None], "to: an address in each entry expected, not null"),
    ({"0": {"name": "Ann"}}, "`email` is missing"),
    ({"email": ["a@x"]}, "to.email: an address expected, not a list"),
    ('"Ann <a@x>', 'to: unclosed "'),
    ("Ann <a@x", "to: unclosed <"),
    (True, "to: an address or a list of addresses expected, not a boolean: True"),
    (7, "to: an address or a list of addresses expected, not a number: 7"),
    (" , ", "no recipient: `to`, `cc` and `bcc` are empty"),
    ("a@x" + "," * 1_000_000, "to: more than 1,000,000 characters of addresses"),
    ("", "no recipient"),
    (None, "no recipient"),
    ([], "no recipient"),
    ({}, "no recipient"),
    ([f"a{n}@x" for n in range(10_000)], "to: more than 1,000 recipients: push several jobs"),
    (",".join(f"a{n}@x" for n in range(10_000)), "to: more than 1,000 recipients"),
    ({f"a{n}@x": "" for n in range(10_000)}, "to: more than 1,000 recipients"),
]


class TestAddresses:
    @pytest.mark.parametrize(("value", "expected"), ADDRESSES)
    def test_forms(self, value: object, expected: list[Address]) -> None:
        assert mail(to=value).to == expected

    @pytest.mark.parametrize(("value", "expected"), NO_ADDRESS)
    def test_refused(self, value: object, expected: str) -> None:
        assert expected in reason(as_json({"to": value}))
        assert expected in reason(written({"to": value}))

    def test_1000_recipients_are_taken_in_all_fields_together(self) -> None:
        many = [f"a{n}@x" for n in range(500)]
        others = [f"b{n}@x" for n in range(500)]
        assert len(mail(to=many, bcc=others, cc=many).recipients) == 1000
        text = reason(as_json({"to": many, "cc": others, "bcc": "c@x"}))
        assert text.startswith("to, cc and bcc together: more than 1,000 recipients")

    def test_the_envelope_has_each_mailbox_once_first_wins(self) -> None:
        job = mail(to=["a@X.org", "A@x.org"], cc="b@y, a@x.ORG", bcc="b@y")
        assert job.recipients == ["a@X.org", "A@x.org", "b@y"]
        assert [to.addr for to in job.cc] == ["b@y", "a@x.ORG"]

    def test_rcpt_to_is_the_envelope(self) -> None:
        job = mail(to="list@x", rcpt_to=["a@y", "b@y"], mail_from="bounce@x")
        assert (job.recipients, job.mail_from) == (["a@y", "b@y"], "bounce@x")

    def test_return_path_may_be_null(self) -> None:
        assert mail(return_path="<>").return_path == ""
        assert mail(return_path="").return_path is None


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


class TestFields:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2030-01-01T09:00:00Z", 1893488400000),
            ("2030-01-01T09:00:00", 1893488400000),
            ("2030-01-01 09:00:00.250", 1893488400250),
            ("2030-01-01T10:00:00+01:00", 1893488400000),
            ("2030-01-01", 1893456000000),
            (1893456000, 1893456000000),
            (1893456000.25, 1893456000250),
            ("1893456000", 1893456000000),
            (" 1893456000.5 ", 1893456000500),
            (0, 0),
        ],
    )
    def test_times(self, value: object, expected: int) -> None:
        assert mail(send_at=value, expires_at=value).send_at_ms == expected

    @pytest.mark.parametrize(
        ("value", "expected"), [(0, 0), (7, 7), ("7", 7), ("0", 0), (1000, 1000), ("", None)]
    )
    def test_retries(self, value: object, expected: int | None) -> None:
        assert mail(retries=value).retries == expected

    def test_numbers_stand_for_text(self) -> None:
        job = mail(subject=4711, id=12, dedupe_key=3, headers={"X-N": 5})
        assert (job.subject, job.label, job.dedupe_key) == ("4711", "12", "3")
        assert job.headers == [("X-N", "5")]

    def test_headers_that_may_stand(self) -> None:
        job = mail(
            headers={
                "Message-ID": "<a.b@c>",
                "Date": "Tue, 1 Jan 2030 10:00:00 +0000",
                "reply-to": "R <r@x>",
                "X-Two": ["a", "ü"],
                "X-None": None,
            }
        )
        assert job.headers == [
            ("Message-ID", "<a.b@c>"),
            ("Date", "Tue, 1 Jan 2030 10:00:00 +0000"),
            ("X-Two", "a"),
            ("X-Two", "ü"),
        ]
        assert job.reply_to == [Address("r@x", "R")]

    @pytest.mark.parametrize(
        ("filename", "type_"),
        [
            ("a.PDF", "application/pdf"),
            ("logo.png", "image/png"),
            ("a.tar.gz", "application/gzip"),
            ("noextension", "application/octet-stream"),
            ("odd.xyzzy", "application/octet-stream"),
            (None, "application/octet-stream"),
        ],
    )
    def test_an_attachment_s_type_follows_from_its_name(
        self, filename: str | None, type_: str
    ) -> None:
        job = mail(attachments=[{"filename": filename, "content": "YQ=="}])
        assert job.attachments == [Attachment(filename, b"a", type_)]

    def test_inline_part_and_white_space_in_base64(self) -> None:
        entry = {"content": " aGVs\r\nbG8=\n", "cid": "logo@x", "type": "text/plain; charset=utf-8"}
        job = mail(attachments=[entry | {"path": None}])
        assert job.attachments == [
            Attachment(None, b"hello", "text/plain; charset=utf-8", "logo@x")
        ]


class TestCharset:
    @pytest.mark.parametrize(
        ("charset", "subject"),
        [
            ("iso-8859-1", "Grüße"),
            ("GBK", "你好世界"),
            ("gb2312", "你好镕"),
            ("Shift_JIS", "こんにちは"),
        ],
    )
    def test_says_what_the_bytes_are(self, charset: str, subject: str) -> None:
        codec = "gbk" if charset == "gb2312" else charset
        said = subject.encode(codec)
        php = b'a:3:{s:2:"to";s:3:"a@x";s:7:"charset";s:%d:"%b";s:7:"subject";s:%d:"%b";}'
        job = decode(php % (len(charset), charset.encode(), len(said), said))
        assert job == Email(to=[A], subject=subject, recipients=["a@x"])
        plain = b'{"to": "a@x", "subject": "%b", "charset": "%b"}'
        assert decode(plain % (said, charset.encode())) == job

    def test_json_in_utf_8_is_utf_8_whatever_it_says(self) -> None:
        assert decode(as_json({"to": "a@x", "subject": "é", "charset": "gbk"})) == Email(
            to=[A], subject="é", recipients=["a@x"]
        )

    def test_a_key_in_the_body_is_no_charset(self) -> None:
        text = 's:7:"charset";s:6:"latin1";'
        assert mail(text=text + "é").text == text + "é"
        assert mail(charset="", text="é").text == "é"

    @pytest.mark.parametrize(
        "charset",
        ["utf-16", "utf-7", "unicode_escape", "raw_unicode_escape", "idna", "hex", "x", "\0"],
    )
    def test_of_an_unfit_name(self, charset: str) -> None:
        text = reason(written({"to": "a@x", "charset": charset}))
        assert text.startswith(f"charset: {charset!r} is no character set that is known here")

    def test_that_does_not_fit(self) -> None:
        php = b'a:2:{s:2:"to";s:4:"\xff\xff@x";s:7:"charset";s:3:"gbk";}'
        assert "bytes that are not gb18030" in reason(php)
        text = reason(b'{"to": "\xff\xff@x", "charset": "gbk"}')
        assert text == "JSON: byte 8 is neither UTF-8 nor gb18030"
        assert "not UTF-8" in reason(b'{"to": "\xff\xff@x", "charset": "utf8"}')
        assert "charset: the name" in reason(b'a:1:{s:7:"charset";i:5;}')


class TestUnknownKeys:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unknown, "_noted", set())

    def test_are_logged_once_with_the_nearest_name(self, caplog: pytest.LogCaptureFixture) -> None:
        before = metrics.snapshot().get("unknown_key:Subjct", 0)
        with caplog.at_level(logging.WARNING, logger="geomail"):
            for _ in range(3):
                assert decode(as_json({"to": "a@x", "Subjct": "s"})) == mail()
        assert caplog.messages == ["unknown_key key=Subjct nearest=subject"]
        assert metrics.snapshot()["unknown_key:Subjct"] == before + 3

    def test_inside_an_attachment_and_an_address(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="geomail"):
            decode(as_json({"to": {"email": "a@x", "nmae": 1}}))
            decode(as_json({"to": "a@x", "attachments": [{"content": "", "file_name": "a"}]}))
        assert caplog.messages == [
            "unknown_key key=to.nmae nearest=to.name",
            "unknown_key key=attachments.file_name nearest=attachments.filename",
        ]

    def test_take_bounded_memory(self) -> None:
        for n in range(2 * unknown.MAX_NOTED):
            decode(as_json({"to": "a@x", f"key{n}" + "x" * 1000: 1}))
        assert len(unknown._noted) == unknown.MAX_NOTED + 1
        assert max(map(len, unknown._noted)) == 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*shapes._EMAIL, *shapes._HTTP, *shapes._CALL, "unheard_of"])
PIECES = st.sampled_from(
    ["a@x", "Ann", "<", ">", ",", '"', "\\", " ", "é", "@", "\r\n", "\x00", "=", "1", "ü.example"]
)


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


@given(st.lists(PIECES).map("".join))
def test_what_is_taken_as_an_address_is_safe_in_a_command(text: str) -> None:
    for value in (text, {text: "n"}, {"email": text}):
        with contextlib.suppress(PayloadError):
            job = decode(as_json({"to": value}))
            assert isinstance(job, Email)
            for addr in job.recipients:
                assert not set(addr) & set("<> \r\n\0\t")
                local, at, domain = addr.rpartition("@")
                assert at
                assert 1 <= len(local.encode()) <= 64
                assert "," not in domain
                assert local.startswith('"') or not set(local) & set('",\\@')


def decoded_or_refused(payload: bytes) -> None:
    with contextlib.suppress(PayloadError):
        assert isinstance(decode(payload), Email | HttpTask | CallTask)


def test_decodes_what_php_itself_writes(needs_program: Callable[[str], str]) -> None:
    code = """echo serialize(['to' => ['a@x', 'b@y' => 'Bö'], 'subject' => 'Grüße',
        'body' => '<b>hi</b>', 'html' => true, 'retries' => 3, 'cc' => null]);"""
    payload = subprocess.run(
        [needs_program("php"), "-r", code], capture_output=True, check=True, timeout=30
    ).stdout
    assert decode(payload) == Email(
        to=[A, Address("b@y", "Bö")],
        subject="Grüße",
        html="<b>hi</b>",
        recipients=["a@x", "b@y"],
        retries=3,
    )
