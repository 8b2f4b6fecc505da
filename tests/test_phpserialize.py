"""PHP serialize: the table of what is read and refused, and a round trip through a writer."""

import contextlib
import json
import math
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.errors import PayloadError
from geomail.phpserialize import MAX_ITEMS, Value, loads

READ: list[tuple[bytes, Value]] = [
    (b"N;", None),
    (b"b:0;", False),
    (b"b:1;", True),
    (b"i:0;", 0),
    (b"i:-5;", -5),
    (b"i:9223372036854775807;", 2**63 - 1),
    (b"i:-9223372036854775808;", -(2**63)),
    (b"d:0.5;", 0.5),
    (b"d:-0;", -0.0),
    (b"d:1.0E+25;", 1e25),
    (b"d:INF;", math.inf),
    (b"d:-INF;", -math.inf),
    (b's:0:"";', ""),
    (b's:2:"\xc3\xa9";', "é"),
    (b's:6:"a";i:1";', 'a";i:1'),
    (b"a:0:{}", []),
    (b"a:2:{i:0;N;i:1;b:1;}", [None, True]),
    (b"a:2:{i:1;N;i:0;b:1;}", {1: None, 0: True}),
    (b"a:1:{i:1;N;}", {1: None}),
    (b"a:1:{i:-3;N;}", {-3: None}),
    (b'a:2:{i:0;s:3:"a@x";s:3:"b@y";s:1:"B";}', {0: "a@x", "b@y": "B"}),
    (b'a:1:{s:1:"a";a:1:{s:1:"b";a:0:{}}}', {"a": {"b": []}}),
    (b'a:3:{s:1:"a";i:1;s:1:"b";i:2;s:1:"a";i:3;}', {"a": 3, "b": 2}),
    (b'a:2:{s:1:"5";i:1;i:5;i:2;}', {5: 2}),
    (b'a:1:{s:2:"05";i:1;}', {"05": 1}),
    (b'a:1:{s:2:"-5";i:1;}', {-5: 1}),
    (b'a:1:{s:2:"-0";i:1;}', {"-0": 1}),
    (b'a:1:{s:19:"9223372036854775808";i:1;}', {"9223372036854775808": 1}),
    (b'a:1:{s:0:"";i:1;}', {"": 1}),
    (b'a:1:{s:4:"a";i";i:1;}', {'a";i': 1}),
    (b'a:1:{s:5:"s p e";s:2:"\xc3\xa9";}', {"s p e": "é"}),
    (b"a:2:{i:0;a:1:{i:0;i:7;}i:1;a:0:{}}", [[7], []]),
]

REFUSED: list[tuple[bytes, str]] = [
    (b"", "a value expected, the payload ends at byte 0"),
    (b"x", "byte 0: a value expected, found b'x'"),
    (b"b:2;", "byte 0: a value expected"),
    (b"i:007;", "byte 0: a value expected"),
    (b"i:-0;", "byte 0: a value expected"),
    (b"i:+1;", "byte 0: a value expected"),
    (b"i:1_0;", "byte 0: a value expected"),
    (b"i:9223372036854775808;", "beyond 64 bits"),
    (b"d:1.;", "byte 0: a value expected"),
    (b"d:nan;", "byte 0: a value expected"),
    (b's:5:"abc";', "byte 0: a string of 5 bytes"),
    (b's:1:"\xc3\xa9";', "byte 0: a string of 1 bytes"),
    (b's:03:"abc";', "byte 0: a value expected"),
    (b's:-1:"";', "byte 0: a value expected"),
    (b's:9999999999:"";', "a string of 9,999,999,999 bytes"),
    (b's:3:"abc"', "byte 0: a string of 3 bytes"),
    (b"N;N;", "byte 2: nothing may follow the value, b'N;' does"),
    (b"a:1:{i:0;N;} ", "byte 12: nothing may follow"),
    (b"a:1:{i:0;N;", "} after the last item expected, the payload ends at byte 11"),
    (b"a:2:{i:0;N;}", "byte 11: a key (a string or a whole number) expected, found b'}'"),
    (b"a:1:{i:0;N;i:1;N;}", "byte 11: } after the last item expected"),
    (b"a:1:{a:0:{}N;}", "byte 5: a key"),
    (b"a:1:{N;N;}", "byte 5: a key"),
    (b"a:1:{b:1;N;}", "byte 5: a key"),
    (b"a:1:{d:1;N;}", "byte 5: a key"),
    (b'a:1:{s:3:"ab";N;}', "byte 5: a string of 3 bytes"),
    (b'a:1:{s:1:"a b";N;}', "byte 5: a string of 1 bytes"),
    (b"a:1:{i:0;}", "byte 9: a value expected, found b'}'"),
    (b"a:300000:{", f"more than {MAX_ITEMS:,} items"),
    (b"a:9999999999:{", f"more than {MAX_ITEMS:,} items"),
    (b"a:1:{i:0;" * 10_000, "arrays nested deeper than 64"),
    (b'O:8:"stdClass":0:{}', "byte 0: an object (stdClass) is not read: send arrays"),
    (b'a:1:{i:0;O:7:"App\\Foo":0:{}}', "byte 9: an object (App\\Foo) is not read"),
    (b'C:3:"Foo":0:{}', "byte 0: an object (Foo) is not read"),
    (b'E:7:"Suit:No";', "byte 0: an enum (Suit:No) is not read"),
    (b"a:2:{i:0;N;i:1;R:2;}", "byte 15: a reference is not read"),
    (b"a:2:{i:0;N;i:1;r:1;}", "byte 15: a reference is not read"),
    (b'S:1:"\\41";', "byte 0: an escaped string is not read"),
    (b's:1:"\xe9";', "bytes that are not utf-8: b'\\xe9'; send UTF-8, or say in `charset`"),
    (b's:3:"\xed\xa0\x80";', "bytes that are not utf-8"),
    (b'a:1:{s:2:"\xc3(";N;}', "bytes that are not utf-8"),
]


@pytest.mark.parametrize(("data", "value"), READ)
def test_reads(data: bytes, value: Value) -> None:
    read = loads(data)
    assert read == value
    assert repr(read) == repr(value)


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_refuses_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PayloadError) as refusal:
        loads(data)
    assert reason in str(refusal.value)
    assert len(str(refusal.value)) < 250


def test_nan() -> None:
    value = loads(b"d:NAN;")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_depth_64_is_read_and_65_is_not() -> None:
    def nested(depth: int) -> bytes:
        return b"a:1:{i:0;" * (depth - 1) + b"a:0:{}" + b"}" * (depth - 1)

    loads(nested(64))
    with pytest.raises(PayloadError, match="deeper than 64"):
        loads(nested(65))


def test_too_many_bytes() -> None:
    with pytest.raises(PayloadError, match=r"33,554,433 bytes, at most 33,554,432"):
        loads(b"x" * (32 * 1024 * 1024 + 1))


def test_strings_are_decoded_in_the_charset_that_is_named() -> None:
    assert loads(b's:2:"\xc4\xe3";', charset="gbk") == "你"
    assert loads(b'a:1:{s:1:"\xe9";s:1:"\xfc";}', charset="iso-8859-1") == {"é": "ü"}


def test_every_payload_cut_short_is_refused() -> None:
    whole = b'a:2:{s:2:"to";a:1:{s:3:"a@x";s:1:"A";}s:4:"body";s:5:"hello";}'
    loads(whole)
    for end in range(len(whole)):
        with pytest.raises(PayloadError):
            loads(whole[:end])


keys = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=8))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def written(value: object) -> bytes:
    """Write what PHP's serialize() would."""
    match value:
        case None:
            return b"N;"
        case bool():
            return b"b:%d;" % value
        case int():
            return b"i:%d;" % value
        case float():
            return b"d:%b;" % _float(value).encode()
        case str():
            return b's:%d:"%b";' % (len(value.encode()), value.encode())
        case list():
            return written(dict(enumerate(value)))
        case dict():
            items = b"".join(written(key) + written(inner) for key, inner in value.items())
            return b"a:%d:{%b}" % (len(value), items)
    raise TypeError(value)


def _float(value: float) -> str:
    return repr(value).upper()


def as_php_has_it(value: object) -> object:
    """Return `value` as PHP holds it: keys that look like numbers are numbers, 0 … n is a list."""
    if isinstance(value, list):
        return [as_php_has_it(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    held: dict[object, object] = {}
    for key, inner in value.items():
        number = isinstance(key, str) and key.lstrip("-").isdecimal() and key.isascii()
        whole = int(key) if number else 0
        same = number and str(whole) == key and -(2**63) <= whole < 2**63
        held[whole if same else key] = as_php_has_it(inner)
    return list(held.values()) if list(held) == list(range(len(held))) else held


@given(values)
def test_what_is_written_is_read(value: object) -> None:
    assert loads(written(value)) == as_php_has_it(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refused(data)


@given(values, st.data())
def test_a_mutated_payload_is_read_or_refused(value: object, data: st.DataObject) -> None:
    payload = bytearray(written(value))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refused(bytes(payload))


TOKENS = [b"a:1:{", b"a:2:{", b"i:0;", b'"', b";", b"}", b's:1:"a";', b's:3:"', b"N;", b"O:"]


@given(st.lists(st.sampled_from(TOKENS)))
def test_any_order_of_tokens_is_read_or_refused(tokens: list[bytes]) -> None:
    read_or_refused(b"".join(tokens))


def read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PayloadError):
        loads(data)


PHP_VALUES = """
[
  'to' => ['a@x', 'b@y' => 'Bé'], 'n' => -5, 'big' => PHP_INT_MIN, 'f' => 0.1, 'e' => 1e100,
  'inf' => -INF, 'list' => [1, [2, []]], 'gap' => [2 => 'x', 1 => 'y'], '7' => 'seven', '07' => 'x',
  'nul' => "a\\0b", 'quote' => '";}', 'yes' => true, 'none' => null, 'q' => 3.0, '' => '',
]
"""


@pytest.fixture
def php(needs_program: Callable[[str], str]) -> Callable[[str], bytes]:
    """Give a function that runs PHP code and returns what it prints."""
    command = [needs_program("php"), "-d", "serialize_precision=-1", "-r"]

    def run(code: str) -> bytes:
        done = subprocess.run([*command, code], capture_output=True, check=True, timeout=30)
        return done.stdout

    return run


def test_reads_what_php_itself_writes(php: Callable[[str], bytes]) -> None:
    shown = loads(php(f"echo serialize({PHP_VALUES});"))
    assert isinstance(shown, dict)
    assert shown.pop("inf") == -math.inf
    expected = json.loads(php(f"$v = {PHP_VALUES}; unset($v['inf']); echo json_encode($v);"))
    assert shown.pop("gap") == {2: "x", 1: "y"}
    assert expected.pop("gap") == {"2": "x", "1": "y"}
    assert shown.pop("to") == {0: "a@x", "b@y": "Bé"}
    assert expected.pop("to") == {"0": "a@x", "b@y": "Bé"}
    assert shown.pop(7) == expected.pop("7")
    assert shown == expected


def test_refuses_what_php_means_as_more_than_data(php: Callable[[str], bytes]) -> None:
    codes = {
        "echo serialize(new ArrayObject([1]));": "an object (ArrayObject)",
        "echo serialize([(object)['to' => 'a@x']]);": "an object (stdClass)",
        "$a = [1]; $a[1] = &$a[0]; echo serialize($a);": "a reference",
    }
    for code, reason in codes.items():
        with pytest.raises(PayloadError) as refusal:
            loads(php(code))
        assert reason in str(refusal.value)
