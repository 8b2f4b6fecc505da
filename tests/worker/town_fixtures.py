"""A pytest plugin for the tests of the relay mx: a town of two hosts and three domains."""

from collections.abc import Iterator

import pytest
from town import Town


@pytest.fixture
def town() -> Iterator[Town]:
    """Give two hosts for three domains; a test asks for it first, so that its workers end first."""
    made = Town()
    made.host("mx.a.example")
    made.host("mx.b.example")
    made.domain("a.example", "mx.a.example")
    made.domain("aa.example", "mx.a.example")
    made.domain("b.example", "mx.b.example")
    yield made
    made.close()
