"""Letters: an Email of the job room becomes an envelope and the octets of a message.

`compose` is the whole of it. It is a pure function: the same arguments give the same octets,
Message-ID, Date and boundaries included, so that a retry sends what was sent before.

Promised: RFC 5322 and MIME that the standard library's parser reads back as what went in; only
CRLF, no line beyond 998 octets; exactly one From, Date, Message-ID and MIME-Version, never a Bcc;
no byte above 127 unless `eight_bit` allows it (or an address can't be said without). Not promised:
the sense of what a payload says, which the job room has judged before.

    address   one address, for the envelope and for a header
    header    fields: folding, encoded words, parameters
    date      the Date field
    body      transfer encodings
    mime      the tree of parts
    dsn       what MAIL and RCPT ask of reports
    raw       finished messages, passed on
    compose   all of it, in order
"""

from geomail.letter.compose import compose
from geomail.letter.letter import Letter

__all__ = ["Letter", "compose"]
