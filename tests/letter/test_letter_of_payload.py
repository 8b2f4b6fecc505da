"""What the job room lets through: it becomes a sound letter, or a reason, and nothing else."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from letters import SENDER, header_lines, mailboxes, parse, write

from geomail.errors import PayloadError
from geomail.job import Email, decode

TEXT = st.text(max_size=60)
ADDRESS = st.builds(
    "{}@{}".format,
    st.text('ab.+ü\u200d\u65e5\U0001f600\\"', min_size=1, max_size=8),
    st.sampled_from(["x.org", "bücher.de", "\u2764.x", "ß", "a_ü.x", "[192.0.2.1]", "\u200d.x"]),
)
PAYLOADS = st.fixed_dictionaries(
    {"to": st.one_of(ADDRESS, st.dictionaries(ADDRESS, TEXT, min_size=1, max_size=3))},
    optional={
        "from": ADDRESS,
        "reply_to": ADDRESS,
        "return_path": ADDRESS,
        "subject": TEXT,
        "text": TEXT,
        "html": TEXT,
        "headers": st.dictionaries(
            st.sampled_from(["X-A", "List-Id", "Reply-To"]), TEXT, max_size=2
        ),
        "attachments": st.lists(
            st.fixed_dictionaries(
                {"content": st.just("AAAA"), "filename": TEXT},
                optional={"type": st.sampled_from(["image/png", 'a/b; c="d e"', "message/x"])},
            ),
            max_size=2,
        ),
    },
)


@given(PAYLOADS, st.booleans())
def test_every_job_is_a_sound_letter_or_a_reason(payload: object, eight_bit: bool) -> None:
    with contextlib.suppress(PayloadError):
        write(email_of(payload), eight_bit=eight_bit)


def test_the_message_of_a_php_producer() -> None:
    email = decode(
        b'a:3:{s:2:"to";a:1:{s:8:"an@qq.cn";s:6:"\xe5\xbc\xa0\xe4\xb8\x89";}'
        b's:7:"subject";s:5:"Hello";s:4:"body";s:8:"Content!";}'
    )
    assert isinstance(email, Email)
    letter = write(email)
    assert mailboxes(letter, "to") == [("\u5f20\u4e09", "an@qq.cn")]
    assert letter.recipients == ("an@qq.cn",)
    assert letter.content.endswith(b"\r\n\r\nContent!\r\n")


def test_own_headers_stand_in_once() -> None:
    headers = {
        "Reply-To": "J\u00f6rg <j@x.org>",
        "Message-ID": "<own@x.org>",
        "Date": "Mon, 1 Jan 2024 00:00:00 +0000",
    }
    letter = write(email_of({"to": "a@x.org", "headers": headers}))
    assert mailboxes(letter, "reply-to") == [("J\u00f6rg", "j@x.org")]
    assert mailboxes(letter, "from") == [(SENDER.name, SENDER.addr)]
    assert parse(letter)["message-id"] == "<own@x.org>"
    names = [line.partition(b":")[0].lower() for line in header_lines(letter)]
    assert len(names) == len(set(names))


def email_of(payload: object) -> Email:
    email = decode(json.dumps(payload).encode())
    assert isinstance(email, Email)
    return email
