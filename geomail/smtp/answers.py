"""What an SMTP server says: every reply of ours, with its code and enhanced code (RFC 3463).

An Answer is rendered when it is made, so that saying it costs an append. `wire` is the form with
the enhanced code, `bare` the one for servers that don't announce ENHANCEDSTATUSCODES; greeting,
EHLO and 3xx never have one.
"""


class Answer:
    """A reply to a command; each line of `text` becomes a line of it. `enhanced` may be empty."""

    __slots__ = ("bare", "code", "wire")

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        self.code = code
        self.wire = _rendered(code, f"{enhanced} " if enhanced else "", text)
        self.bare = _rendered(code, "", text)

    def __repr__(self) -> str:
        return f"Answer({self.wire!r})"


def _rendered(code: int, prefix: str, text: str) -> bytes:
    *firsts, last = text.splitlines() or [""]
    lines = [f"{code}-{prefix}{line}\r\n" for line in firsts]
    return "".join([*lines, f"{code} {prefix}{last}\r\n"]).encode()


OK = Answer(250, "2.0.0", "Ok")
SENDER_OK = Answer(250, "2.1.0", "Ok")
RECIPIENT_OK = Answer(250, "2.1.5", "Ok")
CHUNK_OK = Answer(250, "2.0.0", "Ok, go on")
BYE = Answer(221, "2.0.0", "Bye")
START_TLS = Answer(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = Answer(235, "2.7.0", "Authentication successful")
CANNOT_VERIFY = Answer(252, "2.0.0", "Cannot verify the user, but will take mail for it")
HELP = Answer(214, "2.0.0", "See RFC 5321")

GO_AHEAD = Answer(354, "", "End data with <CR><LF>.<CR><LF>")

TOO_MANY_MAILS = Answer(421, "4.7.0", "Enough mails on this connection")
TOO_MANY_COMMANDS = Answer(421, "4.7.0", "Too many commands without a mail")
TOO_MANY_LOGINS = Answer(421, "4.7.0", "Too many failed logins")
NOT_SMTP = Answer(421, "4.7.0", "Too many lines that are no SMTP")
TOO_MANY_RECIPIENTS = Answer(452, "4.5.3", "Too many recipients")

TOO_LONG = Answer(500, "5.5.6", "Line too long")
UNKNOWN = Answer(500, "5.5.2", "Command not recognized")
NO_ARGUMENT = Answer(501, "5.5.4", "No argument allowed")
CHUNK_SYNTAX = Answer(501, "5.5.4", "Syntax: BDAT octets [LAST]; can't tell where the chunk ends")
HELLO_SYNTAX = Answer(501, "5.5.4", "Syntax: EHLO hostname")
MAIL_SYNTAX = Answer(501, "5.5.4", "Syntax: MAIL FROM:<address>")
RCPT_SYNTAX = Answer(501, "5.5.4", "Syntax: RCPT TO:<address>")
BAD_SENDER = Answer(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT = Answer(501, "5.1.3", "Bad recipient address syntax")
BAD_PARAMETER = Answer(501, "5.5.4", "Bad parameter value")
BAD_BASE64 = Answer(501, "5.5.2", "The response can't be read")
LOGIN_CANCELLED = Answer(501, "5.7.0", "Authentication cancelled")
NO_INITIAL_RESPONSE = Answer(501, "5.7.0", "The server begins with this mechanism")
NOT_IMPLEMENTED = Answer(502, "5.5.1", "Command not implemented")
HELLO_FIRST = Answer(503, "5.5.1", "Send EHLO or HELO first")
BAD_SEQUENCE = Answer(503, "5.5.1", "Bad sequence of commands")
ONLY_CHUNKS = Answer(503, "5.5.1", "Between chunks there is only BDAT or RSET")
RSET_FIRST = Answer(503, "5.5.1", "A chunk was refused, send RSET first")
ENCRYPTED_ALREADY = Answer(503, "5.5.1", "TLS is active already")
LOGGED_IN_ALREADY = Answer(503, "5.5.1", "Already authenticated")
UNKNOWN_MECHANISM = Answer(504, "5.5.4", "Unrecognized authentication mechanism")
TLS_FIRST = Answer(530, "5.7.0", "Must issue a STARTTLS command first")
LOGIN_FIRST = Answer(530, "5.7.0", "Authentication required")
BAD_LOGIN = Answer(535, "5.7.8", "Authentication credentials invalid")
LOGIN_NEEDS_TLS = Answer(538, "5.7.11", "Encryption required for authentication")
BARE_NEWLINE = Answer(550, "5.5.2", "Bare CR or LF received, lines must end in CRLF")
TOO_LARGE = Answer(552, "5.3.4", "Message size exceeds the limit")
NEEDS_SMTPUTF8 = Answer(553, "5.6.7", "This address needs SMTPUTF8")
NO_RECIPIENTS = Answer(554, "5.5.1", "No valid recipients")
EIGHT_BIT = Answer(554, "5.6.3", "8-bit content, and 8BITMIME was not announced")
TOO_EARLY = Answer(554, "5.5.0", "You sent on ahead of a reply that had to be read first")
NOT_ANNOUNCED = Answer(555, "5.5.4", "Parameter not recognized")
