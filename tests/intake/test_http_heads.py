"""The head of a request: what it means, and what is refused because it could mean two things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.intake.heads import MAX_HEAD, Fault, Head, read_head


def head_of(*lines: str) -> Head | Fault:
    return read_head("\r\n".join(lines).encode("latin-1"))


def post(*lines: str) -> Head | Fault:
    return head_of("POST /v1/messages HTTP/1.1", "Host: a", *lines)


def test_a_request_is_read() -> None:
    head = head_of(
        *("POST /v1/messages?x=1 HTTP/1.1", "Host: localhost:8025", "CONTENT-LENGTH: 12"),
        *("Content-Type:application/json\t ", "X-Two: a", "X-Two: b", "Empty:"),
    )
    assert isinstance(head, Head)
    assert (head.method, head.path, head.length, head.keeps) == ("POST", "/v1/messages", 12, True)
    assert head.fields["content-type"] == "application/json"
    assert head.fields["x-two"] == "a, b"
    assert head.fields["empty"] == ""
    assert not head.waits


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a%20b?c", "/a%20b"),
        ("http://example.org/v1/messages?a=b", "/v1/messages"),
        ("HTTPS://example.org", "/"),
        ("*", "*"),
    ],
)
def test_targets(target: str, path: str) -> None:
    head = head_of(f"GET {target} HTTP/1.1", "Host: a")
    assert isinstance(head, Head)
    assert head.path == path


@pytest.mark.parametrize(
    ("version", "said", "keeps"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive, Close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
    ],
)
def test_whether_a_connection_stays(version: str, said: str | None, keeps: bool) -> None:
    more = [] if said is None else [f"Connection: {said}"]
    head = head_of(f"GET / HTTP/{version}", "Host: a", *more)
    assert isinstance(head, Head)
    assert head.keeps is keeps


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        # What a proxy may read differently: each of these has smuggled requests somewhere.
        (["Content-Length: 5", "Content-Length: 5"], 400),
        (["Content-Length: 5, 5"], 400),
        (["Content-Length: +5"], 400),
        (["Content-Length: 1_0"], 400),
        (["Content-Length: 0x5"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length:"], 400),
        (["Content-Length: \xb2"], 400),
        (["Content-Length: 9999999999999999999999"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: gzip, chunked"], 501),
        (["Transfer-Encoding: xchunked"], 501),
        (["Transfer-Encoding: \x0bchunked"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Content-Length : 5"], 400),
        (["X: a", " folded: b"], 400),
        (["X: a", "\tfolded"], 400),
        (["X: a\rContent-Length: 5"], 400),
        (["X: a\nContent-Length: 5"], 400),
        (["X: a\x00"], 400),
        (["no colon"], 400),
        (["X\xe9: a"], 400),
        ([": a"], 400),
        (["Host: b"], 400),
        (["Authorization: Bearer a", "Authorization: Bearer b"], 400),
        (["Expect: a miracle"], 417),
    ],
)
def test_what_is_refused(lines: list[str], status: int) -> None:
    fault = post(*lines)
    assert isinstance(fault, Fault), fault
    assert fault.status == status
    assert fault.why


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/11", 400),
        ("G\x01T / HTTP/1.1", 400),
        ("GET /\xe9 HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET /" + "a" * 9000 + " HTTP/1.1", 414),
        ("", 400),
        ("\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_first_lines_that_are_refused(first: str, status: int) -> None:
    fault = head_of(first, "Host: a")
    assert isinstance(fault, Fault), fault
    assert fault.status == status


def test_http_1_1_names_a_host() -> None:
    assert isinstance(head_of("GET / HTTP/1.1"), Fault)
    assert isinstance(head_of("GET / HTTP/1.1", "Host: a/b"), Fault)
    assert isinstance(head_of("GET / HTTP/1.0"), Head)


def test_chunks_are_not_for_http_1_0() -> None:
    fault = head_of("POST / HTTP/1.0", "Transfer-Encoding: chunked")
    assert isinstance(fault, Fault)
    chunked = post("Transfer-Encoding: Chunked")
    assert isinstance(chunked, Head)
    assert chunked.length is None


def test_a_head_that_is_too_large() -> None:
    fault = post("X: " + "a" * MAX_HEAD)
    assert isinstance(fault, Fault)
    assert fault.status == 431


def test_who_waits_for_a_100() -> None:
    waits = post("Expect: 100-Continue", "Content-Length: 1")
    assert isinstance(waits, Head)
    assert waits.waits
    old = head_of("POST / HTTP/1.0", "Expect: 100-continue")
    assert isinstance(old, Head)
    assert not old.waits


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_a_fault(raw: bytes) -> None:
    assert isinstance(read_head(raw), Head | Fault)
    assert isinstance(read_head(b"POST / HTTP/1.1\r\nHost: a\r\n" + raw), Head | Fault)
