"""The few exceptions that geomail raises, all children of GeomailError.

Results are values here: what an SMTP host or a job's author did wrong is an Outcome or a dead
letter. An exception means that the caller has to change something, and its text says what.
"""


class GeomailError(Exception):
    """Anything that geomail raises on purpose; its text is one line that says what to do."""


class ConfigError(GeomailError):
    """A flag, variable or file that can't be used as it is (exit status 2)."""


class PayloadError(GeomailError):
    """A payload that can never become a mail; the text is the reason of its dead letter."""


class RedisUnusable(GeomailError):
    """Redis answers, and refuses us for a reason that waiting does not mend (exit status 2)."""


class RedisAway(GeomailError):
    """Redis has not answered for as long as a person waits."""


class NotAllSent(GeomailError):
    """Of several jobs, one could not be put on the queue; `ids` are those that are there."""

    def __init__(self, text: str, ids: list[str]) -> None:
        """Keep the text and the ids."""
        super().__init__(text)
        self.ids = ids


class ProtocolError(GeomailError):
    """The peer's bytes can't be what the protocol allows here: the connection is out of step."""
