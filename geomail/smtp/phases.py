"""Where a server's conversation stands, and what may be said there: its tables.

ALLOWED says which verbs a phase knows, OUT_OF_PLACE what the others are told there, where that is
more than that the order is wrong. BDAT is known wherever commands are read, because it has to be
swallowed even where it is refused: its octets come with it, whatever the answer (RFC 3030 2).
"""

from enum import Enum

from geomail.smtp import answers


class Phase(Enum):
    """Where the conversation stands; everything that may happen next follows from this."""

    REFUSED = "greeted with a 4xx or 5xx"
    NEW = "EHLO awaited"
    CLEAR = "TLS required first"
    STRANGER = "login required first"
    READY = "no transaction"
    MAIL = "sender known"
    RCPT = "recipients known"
    CHUNKED = "chunks taken, the last one awaited"
    BROKEN = "a chunk was refused, RSET awaited"
    LOGIN = "login line awaited"
    CONTENT = "content awaited"
    CHUNK = "octets of a chunk awaited"
    LAST_CHUNK = "octets of the last chunk awaited"
    REFUSED_CHUNK = "octets of a refused chunk awaited"
    ANSWER = "answer() awaited"
    TLS = "tls_started() awaited"
    CLOSED = "over"

    # An Enum's own hash is a Python function: 0.15 us at each look into a table.
    __hash__ = object.__hash__


NOT_IMPLEMENTED = frozenset([b"EXPN", b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"])
ALLOWED = {
    Phase.REFUSED: b"QUIT BDAT",
    Phase.NEW: b"EHLO HELO NOOP RSET QUIT HELP BDAT",
    Phase.CLEAR: b"EHLO HELO NOOP QUIT STARTTLS BDAT",
    Phase.STRANGER: b"EHLO HELO NOOP RSET QUIT HELP STARTTLS AUTH BDAT",
    Phase.READY: b"EHLO HELO NOOP RSET QUIT HELP VRFY STARTTLS AUTH MAIL BDAT",
    Phase.MAIL: b"EHLO HELO NOOP RSET QUIT HELP VRFY RCPT BDAT",
    Phase.RCPT: b"EHLO HELO NOOP RSET QUIT HELP VRFY RCPT DATA BDAT",
    Phase.CHUNKED: b"EHLO HELO NOOP RSET QUIT HELP BDAT",
    Phase.BROKEN: b"EHLO HELO NOOP RSET QUIT HELP BDAT",
}
OUT_OF_PLACE = {
    Phase.NEW: answers.HELLO_FIRST,
    Phase.CLEAR: answers.TLS_FIRST,
    Phase.STRANGER: answers.LOGIN_FIRST,
    Phase.CHUNKED: answers.ONLY_CHUNKS,
    Phase.BROKEN: answers.RSET_FIRST,
}
