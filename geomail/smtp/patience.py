"""How much a host puts up with on one connection, and when it is better to leave before it ends.

Hosts count what serves no mail. Exim hangs up at the eleventh RSET that is not the first behind a
message (smtp_accept_max_nonmail); Postfix answers a second late from the tenth refusal without a
mail between them (smtpd_soft_error_limit), and hangs up at the twentieth. What is in flight then
has to go again, so we count as they do, let fewer be in flight the more is refused, and say that
it `is_over` in time for a QUIT. A new connection costs less than one of those seconds.

Not promised: that a host is as patient as these two are by default.
"""

_REFUSALS = 8
_RESETS = 9


class Patience:
    """One connection's; `room` is how many messages may be in flight, at first `in_flight`."""

    __slots__ = ("_has_reset", "_most", "_refusals", "_resets", "is_over", "room")

    def __init__(self, in_flight: int) -> None:
        self.is_over = False
        self.room = in_flight
        self._most = in_flight
        self._refusals = 0  # since a message was taken
        self._resets = 0
        self._has_reset = False  # since a content came

    def was_refused(self) -> None:
        """Count a 4xx or 5xx."""
        self._refusals += 1
        self._weigh()

    def was_reset(self) -> None:
        """Count a RSET that was obeyed."""
        if self._has_reset:
            self._resets += 1
            self._weigh()
        self._has_reset = True

    def had_content(self, *, is_taken: bool) -> None:
        """Note that the host has read a whole message, and whether it took it."""
        self._has_reset = False
        if is_taken and self._refusals:
            self._refusals = 0
            self._weigh()

    def _weigh(self) -> None:
        self.is_over = self._refusals >= _REFUSALS or self._resets >= _RESETS
        self.room = self._most
        if self._refusals or self._resets:
            # A refused message is two refusals or more, and each in flight may need a RSET.
            by_refusals = max(1, self._most - self._refusals // 2)
            self.room = min(by_refusals, _RESETS - self._resets)
