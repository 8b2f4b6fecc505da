"""What the tests of the server share: a conversation that is led without a socket."""

import re

from geomail.smtp.answers import OK
from geomail.smtp.policy import Policy
from geomail.smtp.server import Mail, Server

REPLY = re.compile(rb"(?:[2-5][0-9]{2}-[^\r\n]*\r\n)*[2-5][0-9]{2} [^\r\n]*\r\n")


class Talk:
    """A conversation whose mails are accepted at once, and what came of it."""

    def __init__(self, policy: Policy | None = None, *, is_encrypted: bool = False) -> None:
        self.server = Server(policy or Policy(), is_encrypted=is_encrypted)
        self.mails: list[Mail] = []
        self.said = self.server.output()

    def send(self, *blocks: bytes) -> bytes:
        """Send, and return what is answered to these blocks."""
        heard = b""
        for block in blocks:
            events = self.server.receive(block)
            while events:
                event = events.pop()
                if isinstance(event, Mail):
                    self.mails.append(event)
                    events = self.server.answer(OK)
            heard += self.server.output()
        self.said += heard
        return heard

    def codes(self, *blocks: bytes) -> list[int]:
        """Send, and return the codes of the replies."""
        return codes(self.send(*blocks))


def codes(said: bytes) -> list[int]:
    """Return the codes of whole replies, which is all that there may be."""
    replies = REPLY.findall(said)
    assert b"".join(replies) == said
    return [int(reply[:3]) for reply in replies]


def greeted(policy: Policy | None = None, *, is_encrypted: bool = False) -> Talk:
    talk = Talk(policy, is_encrypted=is_encrypted)
    assert talk.codes(b"EHLO me.example\r\n") == [250]
    return talk
