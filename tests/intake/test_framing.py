"""Documents come out whole, however their bytes were split, and cost what their size is worth."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomail.intake.framing import Framing

MOST = 1_000_000

MAIL = b'{"from_email":"a@example.org","to_email":"b@example.org","title":"t","content":"c"}'
ODD = json.dumps({"a": 'q"}{][\\', "b": ["\\", '"', {"c": "ü\n"}], "\\": {}}).encode()
PHP = b'a:2:{s:2:"to";a:1:{s:3:"a@x";s:9:"}";s:1:"{";}s:4:"body";d:0.5;i:0;N;i:-7;b:1;}'

documents = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=8,
    )
    .filter(lambda value: isinstance(value, dict | list))
    .map(lambda value: json.dumps(value, ensure_ascii=False).encode()),
    st.sampled_from([MAIL, ODD, PHP, b"{,}", b'{"a":tru}', b"[}", b'{"\\"}":1}']),
)
spaces = st.sampled_from([b"", b"\n", b"\r\n", b" \t", b"\xef\xbb\xbf"])


def cut(stream: bytes, size: int) -> tuple[list[bytes], Framing]:
    """Feed a stream in pieces of `size`."""
    framing = Framing(most_bytes=MOST)
    found: list[bytes] = []
    for start in range(0, len(stream), size):
        found += framing.feed(stream[start : start + size])
    return found, framing


@given(st.lists(st.tuples(documents, spaces), min_size=1, max_size=6), st.data())
@settings(max_examples=150)
def test_any_splitting_gives_the_same_documents(
    parts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(document + space for document, space in parts)
    expected = [document for document, _ in parts]
    size = data.draw(st.integers(1, len(stream)))
    for pieces in (len(stream), size, 1):
        found, framing = cut(stream, pieces)
        assert found == expected
        assert framing.fault is None
        assert framing.pending == 0


@pytest.mark.parametrize("document", [MAIL, ODD, PHP])
def test_split_at_every_byte(document: bytes) -> None:
    for at in range(len(document)):
        framing = Framing(most_bytes=MOST)
        assert framing.feed(document[:at]) == []
        assert framing.pending == at
        assert framing.feed(document[at:] + MAIL) == [document, MAIL]


def test_what_has_not_ended_is_kept() -> None:
    framing = Framing(most_bytes=MOST)
    assert framing.feed(MAIL + b"\n" + MAIL[:10]) == [MAIL]
    assert framing.pending == 10


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"GET / HTTP/1.1\r\n", "expected, it begins with b'G"),
        (b"hello", "a JSON document {…} expected"),
        (b'"{}"', "a JSON document {…} expected"),
        (b"}", "a JSON document {…} expected"),
        (b"a,", "a JSON document {…} expected"),
        (b'a:1:{O:8:"stdClass":0:{}' + b" " * 60, "scalars and arrays only, not b'O:8:"),
        (b"[" * 501, "nested too deep"),
        (b'{"a":"' + b"x" * MOST, "a document of more than 1,000,000 bytes is not taken"),
        (b'a:1:{s:99999999:"' + b"x" * MOST, "a document of more than 1,000,000 bytes"),
    ],
)
@pytest.mark.parametrize("size", [1_000_000_000, 7000, 1])
def test_a_fault_ends_it_behind_what_was_whole(stream: bytes, said: str, size: int) -> None:
    stream = MAIL + stream
    found, framing = cut(stream, max(min(size, len(stream)), len(stream) // 1000))
    assert found == [MAIL]
    assert framing.fault is not None
    assert said in framing.fault
    assert framing.pending == 0
    assert framing.feed(MAIL) == []


def test_a_document_of_the_limit_is_taken() -> None:
    frame = b'{"a":""}'
    document = frame[:-2] + b"x" * (MOST - len(frame)) + frame[-2:]
    assert cut(document + MAIL, 70_000)[0] == [document, MAIL]
    assert cut(document[:-1] + b" }", 70_000)[1].fault


@pytest.mark.parametrize(
    "stream",
    [
        b'{"a":"' + b"\\" * 2_000_000,
        b'{"a":"' + b'\\"' * 1_000_000,
        b"{,}" * 300_000,
        b'{"a":[' + b"{}," * 300_000,
        b"a:1:{" + b"i:1;" * 300_000,
    ],
)
def test_no_stream_is_worth_more_than_its_length(stream: bytes) -> None:
    framing = Framing(most_bytes=10 * MOST)
    began = time.process_time()
    for start in range(0, len(stream), 1000):
        framing.feed(stream[start : start + 1000])
    # Linear is 0.3 s at most; what is looked at anew with each piece would take minutes.
    assert time.process_time() - began < 10
