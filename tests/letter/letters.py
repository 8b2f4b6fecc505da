"""What the tests of letters share: a way to compose, checks of the wire, and the reader's view."""

from dataclasses import dataclass
from email import message_from_bytes, policy
from email.header import decode_header
from email.message import EmailMessage
from email.utils import getaddresses
from inspect import signature
from typing import Any

from geomail.job import Address, Email
from geomail.letter import Letter, compose
from geomail.smtp.data import END, stuff

ID = "0123456789abcdef.17.3"
FIRST_SEEN_MS = 1_795_168_800_123
SENDER = Address("news@example.com", "News")
ONCE = ("from", "to", "subject", "date", "message-id", "mime-version")


@dataclass(frozen=True, slots=True)
class File:
    """An attachment as a reader finds it."""

    filename: str | None
    content: bytes
    type: str
    cid: str | None


def write(
    email: Email,
    *,
    eight_bit: bool = True,
    id: str = ID,  # noqa: A002
    recipients: list[str] | None = None,
    redirect_to: str | None = None,
) -> Letter:
    """Compose with the settings that most tests want, and check what holds for every letter."""
    letter = compose(
        email,
        id=id,
        first_seen_ms=FIRST_SEEN_MS,
        sender=SENDER,
        eight_bit=eight_bit,
        recipients=recipients,
        redirect_to=redirect_to,
    )
    check_wire(letter.content)
    if letter.is_transparent:
        assert stuff(letter.content) == letter.content + END
    assert letter.eight_bit is not letter.content.isascii()
    assert eight_bit or letter.smtputf8 or not letter.eight_bit
    return letter


def check_wire(content: bytes) -> None:
    """Assert that only CRLF ends a line, that no line is too long, and that the last one ends."""
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert content.endswith(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998


def header_lines(letter: Letter) -> list[bytes]:
    """Return the lines before the first empty one."""
    return letter.content.partition(b"\r\n\r\n")[0].split(b"\r\n")


def parse(letter: Letter) -> EmailMessage:
    """Return the message as the standard library reads it."""
    return message_from_bytes(letter.content, policy=policy.default)


# The strict reading of newer Pythons, also in distributions' older ones, takes no address literal.
_LENIENT: dict[str, Any] = (
    {"strict": False} if "strict" in signature(getaddresses).parameters else {}
)


def mailboxes(letter: Letter, name: str) -> list[tuple[str, str]]:
    """Return (name, address) of each mailbox in a field.

    Not by the default policy, which puts a space between the encoded words of one name.
    """
    message = message_from_bytes(letter.content, policy=policy.compat32)
    values = ["".join(str(value).splitlines()) for value in message.get_all(name, [])]
    found = getaddresses(values, **_LENIENT)
    return [(decoded(phrase), addr) for phrase, addr in found]


def decoded(text: str) -> str:
    """Return a text with its encoded words decoded."""
    pieces = decode_header(text)
    return "".join(
        piece if isinstance(piece, str) else piece.decode(charset or "ascii")
        for piece, charset in pieces
    )


def text_of(message: EmailMessage, subtype: str) -> str | None:
    """Return what the body part of this subtype says, with LF, without a last line end."""
    for part in message.walk():
        is_file = part.get_content_disposition() is not None
        if part.get_content_type() == f"text/{subtype}" and not is_file:
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload.decode().replace("\r\n", "\n").removesuffix("\n")
    return None


def files_of(message: EmailMessage) -> list[File]:
    """Return the attachments and inline parts, in order."""
    files = []
    for part in message.walk():
        if part.get_content_disposition() is None:
            continue
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        cid = part["content-id"]
        # Not get_filename(), which strips spaces and angle brackets.
        filename = part["content-disposition"].params.get("filename")
        files.append(File(filename, payload, part.get_content_type(), cid and str(cid)[1:-1]))
    return files


def lines(text: str) -> str:
    """Return a text as a reader sees it: LF, without the last line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
