r"""Where a document ends: bytes in, whole documents out, however the bytes are split.

Producers send JSON documents one behind the other, with or without white space between them, many
in a segment or one over many. A document ends with the bracket that closes its first one; brackets
in strings don't count. What PHP's serialize() writes says how long its strings are, and is measured
likewise.

    framing = Framing(most_bytes=…)
    framing.feed(b'{"to":"a@x"} {"to"')   → [b'{"to":"a@x"}']
    framing.pending                       → 5
    framing.fault                         → None, or why nobody knows where the next one begins

A JSON document that came whole is measured by msgspec, in one pass of C that builds nothing (1 us);
any other is walked once, by an expression that stops at brackets and quotes only. So no byte is
looked at more than twice, whatever the splitting. What lies between balanced brackets is one
document, sound or not: that is for who decodes it. Pure: no socket, no clock.

Promised: no more than one document's limit is kept, and after a fault nothing.
"""

import re
from typing import Protocol

import msgspec

_measure = msgspec.json.Decoder(msgspec.Raw).decode
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")  # counted from 1

_SPACE = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"  # of byte order, as job lets pass
_BETWEEN = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*")

_STRUCTURE = re.compile(rb'["{}\[\]]')
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING = frozenset(b"{[")
_DEEPEST = 500  # that is no job: those may have 64

_PHP_TOKEN = re.compile(
    rb"s:(?P<length>\d{1,9}):\"|[ibdrR]:[^;{}\"]{1,50};|N;|(?P<opens>a:\d{1,9}:\{)|(?P<closes>\})"
)
_LONGEST_TOKEN = 60
_BEHIND_STRING = 2  # its quote and semicolon
_SHOWN = 20
_CLIENT_HELLO = b"\x16\x03"  # of TLS


class Framing:
    """Cuts one stream into documents of at most `most_bytes`."""

    def __init__(self, *, most_bytes: int) -> None:
        """Begin in front of the first document."""
        self.fault: str | None = None
        self._most = most_bytes
        self._buffer = bytearray()
        self._walk: _Walk | None = None  # in a document that has not ended

    @property
    def pending(self) -> int:
        """How many bytes are kept of a document that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, and return the documents that have ended with it, in order."""
        if self.fault is not None:
            return []
        self._buffer += data
        found: list[bytes] = []
        try:
            rest = self._cut(found)
        except _Fault as fault:
            self.fault = str(fault)
            self._buffer.clear()
        else:
            del self._buffer[:rest]
        return found

    def _cut(self, found: list[bytes]) -> int:
        """Cut documents off the buffer; return where the rest begins."""
        buffer, at = self._buffer, 0
        while True:
            if self._walk is None:
                at = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]  # also nothing
                end = _end_of_whole(buffer, at)
                if end is None:
                    self._walk = _walk_at(buffer, at)
            if self._walk is not None:
                end = self._walk.go_on(buffer, at)
            if (len(buffer) if end is None else end) - at > self._most:
                raise _Fault(f"a document of more than {self._most:,} bytes is not taken")
            if end is None:
                return at
            self._walk = None
            found.append(bytes(memoryview(buffer)[at:end]))
            at = end


class _Fault(Exception):
    """Nobody knows where the next document begins; the text says why."""


class _Walk(Protocol):
    """A way through one document: each call goes on where the last one had to stop."""

    def go_on(self, buffer: bytearray, begin: int) -> int | None:
        """Return where the document ends that begins at `begin`, None when that has not come."""


def _end_of_whole(buffer: bytearray, at: int) -> int | None:
    """Return where a sound JSON document ends, None when it may not be all there."""
    if at == len(buffer) or buffer[at] not in _OPENING:
        return None
    with memoryview(buffer)[at:] as view:
        try:
            _measure(view)
        except msgspec.DecodeError as error:
            found = _TRAILING.search(str(error))
            if found is None:
                return None
            end = at + int(found[1]) - 1
        except RecursionError:
            return None
        else:
            end = len(buffer)
    while buffer[end - 1] in _SPACE:
        end -= 1
    return end


def _walk_at(buffer: bytearray, at: int) -> _Walk | None:
    """Return how to walk what begins here, None when too little of it has come to tell."""
    begins = bytes(buffer[at : at + _SHOWN])
    if begins[:1] in (b"{", b"["):
        return _JsonWalk()
    if begins[:2] == b"a:":
        return _PhpWalk()
    if begins == b"a" or _MARK.startswith(begins):
        return None
    if begins.startswith(_CLIENT_HELLO):
        raise _Fault("TLS is not spoken here (else set door_cert): a JSON document {…} expected")
    raise _Fault(f"a JSON document {{…}} expected, it begins with {begins!r}")


class _JsonWalk:
    """Counts brackets outside of strings."""

    def __init__(self) -> None:
        self._at = 0  # from the document's beginning
        self._depth = 0
        self._in_string = False

    def go_on(self, buffer: bytearray, begin: int) -> int | None:
        at = begin + self._at
        while True:
            at = self._next(buffer, at)
            if at < 0:
                self._at = len(buffer) - begin
                return None
            if self._in_string:
                self._in_string = _is_escaped(buffer, at, begin)
            elif buffer[at] == _QUOTE:
                self._in_string = True
            else:
                self._depth += 1 if buffer[at] in _OPENING else -1
                _check_depth(self._depth)
            at += 1
            if not self._depth:
                return at

    def _next(self, buffer: bytearray, at: int) -> int:
        """Return where the next quote or, outside of strings, bracket is; -1: not there yet."""
        if self._in_string:
            return buffer.find(b'"', at)
        found = _STRUCTURE.search(buffer, at)
        return found.start() if found else -1


def _is_escaped(buffer: bytearray, quote: int, begin: int) -> bool:
    first = quote
    while first > begin and buffer[first - 1] == _BACKSLASH:
        first -= 1
    return bool((quote - first) % 2)


class _PhpWalk:
    """Goes from token to token, and over strings by their length."""

    def __init__(self) -> None:
        self._at = 0
        self._depth = 0

    def go_on(self, buffer: bytearray, begin: int) -> int | None:
        at = begin + self._at
        while at < len(buffer):
            token = _PHP_TOKEN.match(buffer, at)
            if token is None:
                if len(buffer) - at < _LONGEST_TOKEN:
                    break
                raise _Fault(f"PHP serialize: scalars and arrays only, not {_shown(buffer, at)}")
            at = token.end()
            if token["length"]:
                at += int(token["length"]) + _BEHIND_STRING
            elif token["opens"]:
                self._depth += 1
                _check_depth(self._depth)
            elif token["closes"]:
                self._depth -= 1
                if not self._depth:
                    return at
        self._at = at - begin
        return None


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise _Fault("nested too deep: at most 64 maps and lists in one another")


def _shown(buffer: bytearray, at: int) -> str:
    return repr(bytes(buffer[at : at + _SHOWN]))
