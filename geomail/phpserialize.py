"""Reads what PHP's serialize() writes, and nothing dangerous.

    N;   b:1;   i:-5;   d:0.5;   s:3:"abc";   a:2:{i:0;…;i:1;…;}

become None, bool, int, float, str and, for arrays, a list when the keys are 0, 1, 2 … in this
order, else a dict in PHP's order. Keys are int or str; of equal keys the last wins, in the place
of the first, as in PHP. Objects, enums and references are refused: they mean something only to the
program that wrote them.

The reader is strict, so that a payload cut short or glued together is found out: lengths count
bytes, the numbers are in the one form that serialize() writes, and nothing may follow the value.
It does not recurse, so depth costs no stack; depth, items and size are limited all the same. PHP's
strings are bytes: they are decoded as `charset`, and bytes that it does not explain are an error.
Whatever the input, the result is a value or a PayloadError that names the byte.
"""

import re

from geomail.errors import PayloadError

Value = None | bool | int | float | str | list["Value"] | dict[int | str, "Value"]
Array = dict[int | str, Value]

MAX_DEPTH = 64
MAX_ITEMS = 200_000
MAX_BYTES = 32 * 1024 * 1024

_INT64 = 1 << 63
_SHORT = {b"%d" % n: n for n in range(2048)}
_LENGTH = re.compile(rb"0|[1-9]\d{0,9}")
_SCALAR = re.compile(
    rb"(?P<null>N;)|b:(?P<bool>[01]);|i:(?P<int>0|-?[1-9]\d{0,18});"
    rb"|d:(?P<float>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|NAN|-?INF);"
)
_CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,18}")
_FOREIGN = {
    b"O": "an object",
    b"C": "an object",
    b"E": "an enum",
    b"r": "a reference",
    b"R": "a reference",
    b"S": "an escaped string",
}
_NAMED = re.compile(rb'[OCE]:\d+:"([\w\\:]{1,80})', re.ASCII)


def loads(data: bytes, *, charset: str = "utf-8") -> Value:
    """Return the one value that `data` holds.

    `charset` names a Python codec in which ASCII is ASCII. Raises PayloadError with the reason.
    """
    if len(data) > MAX_BYTES:
        raise PayloadError(f"PHP: {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        return _read(data, charset)
    except UnicodeDecodeError as error:
        text = error.object[max(0, error.start - 10) : error.end + 10]
        raise PayloadError(
            f"PHP: a string holds bytes that are not {charset}: {text!r}; "
            "send UTF-8, or say in `charset` what it is"
        ) from None


def _read(data: bytes, charset: str) -> Value:
    # One loop, strings inlined: a call for each token would double the time of a common mail.
    find = data.find
    short = _SHORT.get
    stack: list[tuple[Array, int, int | str]] = []
    array: Array = {}
    key: int | str = 0
    left = 1
    items = pos = 0
    keyed = True
    value: Value
    while True:
        kind = data[pos : pos + 2]
        if kind == b"s:":
            colon = find(b":", pos + 2, pos + 13)
            size = short(data[pos + 2 : colon])
            start = colon + 2
            end = start + (_length(data, pos) if size is None else size)
            if data[colon + 1 : start] != b'"' or data[end : end + 2] != b'";':
                raise _bad_string(data, pos)
            value = data[start:end].decode(charset)
            pos = end + 2
        elif kind == b"a:":
            if not keyed:
                raise PayloadError(f"PHP: byte {pos}: an array can't be a key")
            count, pos = _open(data, pos)
            items += count
            if items > MAX_ITEMS or len(stack) >= MAX_DEPTH:
                raise _too_much(items, pos)
            stack.append((array, left, key))
            array, left, keyed = {}, count, False
            value = array
        else:
            value, pos = _scalar(data, pos)
        if value is not array:
            if not keyed:
                key = _key(value, pos)
                keyed = True
                continue
            array[key] = value
            keyed = False
            left -= 1
        while not left:
            if not stack:
                return _finished(data, pos, array)
            if data[pos : pos + 1] != b"}":
                raise _unexpected(data, pos, "} after the last item")
            pos += 1
            closed = array
            array, left, key = stack.pop()
            array[key] = _list_or_dict(closed)
            left -= 1


def _finished(data: bytes, pos: int, top: Array) -> Value:
    if pos != len(data):
        raise PayloadError(
            f"PHP: byte {pos}: nothing may follow the value, {data[pos : pos + 20]!r} does"
        )
    return top[0]


def _list_or_dict(array: Array) -> Value:
    if not array:
        return []
    if 0 in array and list(array) == list(range(len(array))):
        return list(array.values())
    return array


def _key(value: Value, pos: int) -> int | str:
    if type(value) is int:
        return value
    if type(value) is not str:
        raise PayloadError(f"PHP: before byte {pos}: a key is a number or a string")
    if value < ":" and _CANONICAL.fullmatch(value) and -_INT64 <= int(value) < _INT64:
        return int(value)
    return value


def _scalar(data: bytes, pos: int) -> tuple[Value, int]:
    found = _SCALAR.match(data, pos)
    if not found:
        raise _unexpected(data, pos, "a value")
    kind = found.lastgroup
    if kind == "null":
        return None, found.end()
    text = found[kind or 0]
    if kind == "bool":
        return text == b"1", found.end()
    if kind == "float":
        return float(text), found.end()
    number = int(text)
    if not -_INT64 <= number < _INT64:
        raise PayloadError(f"PHP: byte {pos}: {number} is beyond 64 bits")
    return number, found.end()


def _open(data: bytes, pos: int) -> tuple[int, int]:
    size = _length(data, pos)
    start = data.index(b":", pos + 2) + 2
    if data[start - 1 : start] != b"{":
        raise _unexpected(data, start - 1, "{")
    return size, start


def _length(data: bytes, pos: int) -> int:
    found = _LENGTH.match(data, pos + 2)
    if not found or data[found.end() : found.end() + 1] != b":":
        raise _unexpected(data, pos, "a length and a colon")
    return int(found[0])


def _bad_string(data: bytes, pos: int) -> PayloadError:
    size = _length(data, pos)
    return _unexpected(data, pos, f'a string of {size} bytes between " and ";')


def _too_much(items: int, pos: int) -> PayloadError:
    if items > MAX_ITEMS:
        return PayloadError(f"PHP: byte {pos}: more than {MAX_ITEMS:,} items")
    return PayloadError(f"PHP: byte {pos}: arrays nested deeper than {MAX_DEPTH}")


def _unexpected(data: bytes, pos: int, expected: str) -> PayloadError:
    foreign = _FOREIGN.get(data[pos : pos + 1])
    if foreign and data[pos + 1 : pos + 2] == b":":
        named = _NAMED.match(data, pos)
        name = f" ({named[1].decode()})" if named else ""
        return PayloadError(
            f"PHP: byte {pos}: {foreign}{name} is not read: "
            "send arrays of strings, numbers, booleans and null"
        )
    if pos >= len(data):
        return PayloadError(f"PHP: {expected} expected, the payload ends at byte {len(data)}")
    return PayloadError(f"PHP: byte {pos}: {expected} expected, found {data[pos : pos + 20]!r}")
