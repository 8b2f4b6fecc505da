"""A letter: what one SMTP transaction carries, envelope and content, ready for the wire."""

import msgspec


class Letter(msgspec.Struct, frozen=True, gc=False):
    """An envelope and a finished message; the same job gives the same letter at every try.

    `mail_from` is "" for the null sender. `recipients` are ready for `RCPT TO:<...>`. `content` is
    an RFC 5322 message whose only line end is CRLF, not dot-stuffed, ending in CRLF. `eight_bit`
    says that content has bytes above 127 (BODY=8BITMIME), `smtputf8` that an address needs it.
    `dsn` asks for reports: the parameters of MAIL, then those of all RCPTs, or those of each. Any
    may be empty. `is_transparent` vouches that no line of `content` begins with a dot, and for its
    line ends: it is not looked at again before it goes over the wire.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    eight_bit: bool
    smtputf8: bool
    dsn: tuple[str, ...] | None = None
    is_transparent: bool = False
