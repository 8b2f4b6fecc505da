"""Query strings: as PHP's own http_build_query() writes them, which is asked."""

import json
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl

import pytest
from conftest import NeedsProgram
from hypothesis import given, strategies

from geomail.carriers.query import build_query, joined

Php = Callable[[dict[str, object]], str]

# One PHP for all: its start costs more than a hundred queries.
_PHP = "while ($line = fgets(STDIN)) echo http_build_query(json_decode($line, true)), chr(10);"

_TEXT = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=8)
_SCALAR = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63), 2**63 - 1)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)
_VALUE = strategies.recursive(
    _SCALAR,
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(_TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
_PARAM = strategies.dictionaries(_TEXT.filter(bool), _VALUE, max_size=4)


@pytest.mark.parametrize(
    ("param", "query"),
    [
        ({"a": "b c"}, "a=b+c"),
        ({"a": {"b": "c"}}, "a%5Bb%5D=c"),
        ({"a": ["x", {"y": "z"}]}, "a%5B0%5D=x&a%5B1%5D%5By%5D=z"),
        ({"a": True, "b": False, "c": None, "d": [], "e": {}}, "a=1&b=0"),
        ({"a": ["x", None, "z"]}, "a%5B0%5D=x&a%5B2%5D=z"),
        ({"a": 1.0, "b": 0.1, "c": 1e15, "d": 1e-7, "e": 1 / 3}, None),
        ({"é": "ü~*-_.", "x[y]": "&=+#"}, "%C3%A9=%C3%BC%7E%2A-_.&x%5By%5D=%26%3D%2B%23"),
        ({}, ""),
    ],
)
def test_known(param: dict[str, object], query: str | None) -> None:
    expected = "a=1&b=0.1&c=1.0E%2B15&d=1.0E-7&e=0.33333333333333" if query is None else query
    assert build_query(param) == expected


@pytest.fixture(scope="module")
def php(needs_program: NeedsProgram) -> Iterator[Php]:
    """Run PHP, and give what asks it for a query string."""
    command = [needs_program("php"), "-n", "-d", "precision=14", "-r", _PHP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:

        def ask(param: dict[str, object]) -> str:
            assert run.stdin is not None
            assert run.stdout is not None
            run.stdin.write(json.dumps(param).encode() + b"\n")
            run.stdin.flush()
            return run.stdout.readline().decode().removesuffix("\n")

        yield ask


@given(param=_PARAM)
def test_php_writes_the_same(php: Php, param: dict[str, object]) -> None:
    assert build_query(param) == php(param)


@given(strategies.dictionaries(_TEXT.filter(bool), _TEXT))
def test_what_is_flat_is_read_back(param: dict[str, str]) -> None:
    assert dict(parse_qsl(build_query({**param}), keep_blank_values=True)) == param


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("/", "/?a=b"),
        ("/x?", "/x?a=b"),
        ("/x?y=1", "/x?y=1&a=b"),
        ("/x?y=1&", "/x?y=1&a=b"),
    ],
)
def test_joins_a_query_that_is_there(path: str, whole: str) -> None:
    assert joined(path, "a=b") == whole
    assert joined(path, "") == path
