"""Payloads become jobs: a table of shapes, and what becomes of each field."""

import base64
import logging
import subprocess
from collections.abc import Callable

import pytest
from payloads import A, as_json, mail, reason
from test_phpserialize import written

from geomail import metrics
from geomail.job import Address, Attachment, CallTask, Email, HttpTask, decode, unknown


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
