"""A mail host that takes chunks (RFC 3030), one message at a time as a test's script wants them."""

from dataclasses import dataclass

from scripted import Peer

EHLO = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
PROVED = b"503 no transaction\r\n250 flushed\r\n"


@dataclass(frozen=True)
class Chunk:
    """One message as it came: the commands before BDAT, and the content."""

    commands: list[bytes]
    content: bytes

    @property
    def recipients(self) -> list[str]:
        """Return the addresses of RCPT."""
        paths = [line[9:-1] for line in self.commands if line.startswith(b"RCPT TO:<")]
        return [path.decode() for path in paths]

    def answer(self, final: bytes = b"250 taken\r\n", *, envelope: bytes = b"250 ok\r\n") -> bytes:
        """Return the replies to all of it; `final` is BDAT's."""
        return envelope * len(self.commands) + final


def greet(peer: Peer, *, limits: bytes = b"", proof: bytes = PROVED) -> None:
    """Say what is said before the first MAIL, the proof included where one is asked for."""
    ehlo = EHLO.replace(b"250 C", b"250-LIMITS %s\r\n250 C" % limits) if limits else EHLO
    peer.greet(ehlo=ehlo)
    while len(peer.heard) < 4:
        peer.heard += _more(peer)
    if peer.heard.startswith(b"BDAT"):
        peer.hear(b"XYZZY\r\nRSET\r\n")
        peer.say(proof)


def take_chunk(peer: Peer) -> Chunk | None:
    """Read one message; None when the client says QUIT instead."""
    commands: list[bytes] = []
    while not (line := peer.hear(b"\r\n")).startswith(b"BDAT "):
        if line == b"QUIT":
            peer.say(b"221 bye\r\n")
            return None
        commands.append(line)
    assert line.endswith(b" LAST"), line
    return Chunk(commands, peer.read(int(line.split()[1])))


def take_all(peer: Peer) -> list[Chunk]:
    """Take and answer messages until QUIT; return them."""
    taken: list[Chunk] = []
    while (chunk := take_chunk(peer)) is not None:
        taken.append(chunk)
        peer.say(chunk.answer())
    return taken


def _more(peer: Peer) -> bytes:
    block = peer.sock.recv(65536)
    if not block:
        raise EOFError(peer.heard)
    return block
