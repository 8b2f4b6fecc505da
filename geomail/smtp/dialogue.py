"""What a server's conversation is made of: lines that come in, replies that go out.

A Dialogue knows its phase, but nothing of commands. It cuts lines out of what has come, however
that was split, keeps of an endless line as much as shows that it is too long, and collects replies
until `output` is asked for. A 421 closes it, whoever says it.
"""

from geomail.smtp.answers import Answer
from geomail.smtp.phases import Phase

LINE_LIMIT = 12288  # RFC 4954 4: what a line of a login may have; commands ask for 512 and more


class Dialogue:
    """One conversation's bytes: what has come and isn't read yet, what is said and not written."""

    def __init__(self, *, enhanced_codes: bool) -> None:
        self.phase = Phase.NEW
        self.is_cut = False
        """Whether it was us who ended it: the client may not have read why yet."""
        self._enhanced_codes = enhanced_codes
        self._buffer = b""
        self._position = 0
        self._out: list[bytes] = []

    @property
    def is_closed(self) -> bool:
        """Tell whether the connection is to be closed once the output is written."""
        return self.phase is Phase.CLOSED

    @property
    def has_output(self) -> bool:
        """Tell whether there is something to be written."""
        return bool(self._out)

    def close(self, last: Answer | None = None) -> None:
        """End the conversation, with `last` (a 421) as its last reply."""
        if last:
            self._say(last)
            self.is_cut = last.code != 221
        self.phase = Phase.CLOSED

    def output(self) -> bytes:
        """Return the bytes to be written, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _say(self, answer: Answer) -> None:
        self._out.append(answer.wire if self._enhanced_codes else answer.bare)
        if answer.code == 421:
            self.phase = Phase.CLOSED
            self.is_cut = True

    def _form(self, answer: Answer) -> bytes:
        return answer.wire if self._enhanced_codes else answer.bare

    def _line(self) -> bytes | None:
        """Return the next whole line, or None; one that is too long is told by its length."""
        start = self._position
        end = self._buffer.find(b"\r\n", start)
        if end < 0:
            self._keep_short()
            return None
        self._position = end + 2
        return self._buffer[start:end]

    def _keep_short(self) -> None:
        """Keep of an endless line what shows that it is too long, and whether a CR was last."""
        rest = self._rest()
        if len(rest) > LINE_LIMIT + 2:
            rest = rest[: LINE_LIMIT + 1] + rest[-1:]
        self._buffer = rest
        self._position = 0

    def _rest(self) -> bytes:
        return self._buffer[self._position :]

    def _drop_rest(self) -> None:
        self._buffer = b""
        self._position = 0
