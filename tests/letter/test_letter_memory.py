"""A large mail's memory, from payload to letter, as a multiple of what goes over the wire."""

import base64
import json
import tracemalloc

import pytest
from letters import FIRST_SEEN_MS, ID, SENDER
from test_phpserialize import written

from geomail.job import Email, decode
from geomail.letter import compose

MEGABYTES = 3_000_000
CODED = base64.b64encode(bytes(range(250)) * (MEGABYTES // 250)).decode()
LINES = "".join(f"{CODED[at : at + 76]}\r\n" for at in range(0, len(CODED), 76))
TEXT = "All work and no play makes Jack a dull boy.\n" * (MEGABYTES // 44)
RAW = base64.b64encode(b"Subject: x\r\n\r\n" + TEXT.replace("\n", "\r\n").encode()).decode()


def attached(content: str) -> dict[str, object]:
    return {"to": "a@x.org", "text": "t", "attachments": [{"filename": "a", "content": content}]}


@pytest.mark.parametrize(
    ("payload", "most"),
    [
        pytest.param(json.dumps(attached(CODED)).encode(), 3.0, id="json"),
        pytest.param(json.dumps(attached(CODED)).replace("/", r"\/").encode(), 3.6, id="json-php"),
        pytest.param(written(attached(CODED)), 3.1, id="php"),
        pytest.param(written(attached(LINES)), 4.2, id="php-lines"),
        pytest.param(json.dumps({"to": "a@x.org", "text": TEXT}).encode(), 4.2, id="text"),
        pytest.param(json.dumps({"rcpt_to": "a@x.org", "raw": RAW}).encode(), 3.8, id="raw"),
    ],
)
def test_peak_of_a_large_mail(payload: bytes, most: float) -> None:
    tracemalloc.start()
    try:
        email = decode(payload)
        assert isinstance(email, Email)
        letter = compose(email, id=ID, first_seen_ms=FIRST_SEEN_MS, sender=SENDER, eight_bit=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(payload) + peak) / len(letter.content) <= most
