"""Query strings as PHP writes them: http_build_query() with its defaults.

    {"a": "b c"}             a=b+c
    {"a": {"b": "c"}}        a%5Bb%5D=c             which PHP reads as a[b]=c
    {"a": ["x", "y"]}        a%5B0%5D=x&a%5B1%5D=y
    true, false              1, 0
    null, {}, []             left out
    0.1, 1.0, 1/3, 1e15      0.1, 1, 0.33333333333333, 1.0E+15: 14 digits (PHP's `precision`)

Letters, digits and - _ . stay as they are; all else is percent-encoded from UTF-8, and a space
becomes +. PHP itself is asked for comparison in the tests. Not done: objects, which no payload can
hold, and PHP's other separators and encodings.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import quote_plus


def build_query(param: Mapping[str, object]) -> str:
    """Return the query string for `param`, "" when nothing of it is left."""
    pairs = []
    for name, value in param.items():
        key = _quoted(name)
        if type(value) is str:
            pairs.append(f"{key}={_quoted(value)}")
        else:
            pairs += _pairs(key, value)
    return "&".join(pairs)


def joined(path: str, query: str) -> str:
    """Return a path, which may have a query already, with `query` added."""
    if not query:
        return path
    separator = "?" if "?" not in path else "" if path.endswith(("?", "&")) else "&"
    return f"{path}{separator}{query}"


def _pairs(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _pairs(f"{key}%5B{_quoted(str(name))}%5D", inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _pairs(f"{key}%5B{place}%5D", inner)
    elif value is not None:
        yield f"{key}={_quoted(_scalar(value))}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    mantissa, exponent, power = format(value, ".14G").partition("E")
    if not exponent:
        return mantissa
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(power):+d}"


def _quoted(text: str) -> str:
    if text.isalnum() and text.isascii():
        return text
    # PHP's urlencode() is older than RFC 3986: it encodes the tilde.
    quoted = quote_plus(text, errors="replace")
    return quoted.replace("~", "%7E") if "~" in quoted else quoted
