"""A host's health: how it has fared, and what it is allowed for it.

What goes wrong is judged by what else goes on, for one failure says little:

    a connection is refused (or can't be made) while others of the lane work
                        the host takes no more than those: the window is cut to them (window.py)
    one that was up fails while others work
                        nothing but a moment without new ones
    nothing works, the first time
                        one connection is tried at once, with one message: a probe
    nothing works, and nothing has gone well since the last time
                        closed: 1, 2, 4, 8 … seconds, then a probe
    the host itself sends everybody away: a login refused, a time to wait, the same 5yz to all
                        closed at the first word

A mail that goes through, whatever becomes of it, makes good what was; then the window grows back.
Others *work* when one of them has answered a mail within PATIENCE_S.

It knows no deliveries and no connections, reads no clock and starts nothing: the lane tells it what
happened and when, and does what follows. What failure and recovery look like in the log is decided
here.
"""

from enum import Enum

from geomail import log, metrics
from geomail.delivery.host.window import Window
from geomail.delivery.pace import Backoff

PATIENCE_S = 30.0
_LONGEST_ASKED_S = 3600.0  # a probe an hour harms no host, and one odd reply stops no relay
_AT_ONCE_S = 0.05
_PAUSE_S = 0.25


class Trouble(Enum):
    """What kind of failure it was."""

    REFUSAL = "a connection that never carried a mail"
    LOSS = "a connection that was up"
    VERDICT = "the host sends everybody away"


class Health:
    """One host's back-off and window. Times are seconds of a monotonic clock."""

    __slots__ = (
        "_is_sent_away",
        "backoff",
        "calm_until",
        "connects_from",
        "heard_at",
        "host",
        "is_probing",
        "last_error",
        "last_failure_at",
        "relay",
        "strikes",
        "window",
    )

    def __init__(
        self, host: str, relay: str, *, most: int, backoff_base_s: float, backoff_cap_s: float
    ) -> None:
        """`most`: connections that it may ever have; the back-off doubles from base to cap."""
        self.host = host
        self.relay = relay
        self.backoff = Backoff(backoff_base_s, backoff_cap_s)
        self.window = Window(most)
        self.strikes = 0  # failures without a success in between
        self.is_probing = False  # nothing works, as far as is known
        self.heard_at = 0.0  # a mail was answered
        self.connects_from = 0.0  # not before then: never earlier than the back-off ends
        self.calm_until = 0.0  # a success before then changes nothing
        self.last_error: str | None = None
        self.last_failure_at = 0.0
        self._is_sent_away = False  # closed at the host's own word: who is in goes on, and no more

    # ---- questions

    @property
    def is_well(self) -> bool:
        """True when no failure is remembered."""
        return self.strikes == 0

    @property
    def is_proved(self) -> bool:
        """True when the host has ever answered a mail."""
        return self.heard_at > 0.0

    def may_connect(self, now: float) -> bool:
        """Return whether a connection may be tried at `now`."""
        return now >= self.connects_from

    def works(self, now: float, proved: int) -> bool:
        """Return whether one of `proved` connections, which have carried mail, does so still."""
        return proved > 0 and now < self.heard_at + PATIENCE_S

    # ---- it goes well

    def recover(self, now: float, *, is_used: bool, live: int) -> bool:
        """A mail was answered, and it is not calm; return whether there may be more connections.

        `is_used`: there is work for more than `live` connections, which are all that there may be.
        """
        was_probing = self.is_probing
        if self.strikes and not (self._is_sent_away and self.backoff.is_closed(now)):
            self._is_well_again()
        has_grown = is_used and self.window.grow(now, live)
        self._calm()
        return has_grown or was_probing != self.is_probing

    def prove(self, proved: int) -> None:
        """A connection has carried its first mail: so many have, and are there."""
        self.window.prove(proved)
        self._calm()

    def news(self) -> int | None:
        """Return how many connections the host takes, once, when that was learnt and confirmed."""
        if not self.window.is_doubted or self.strikes:
            return None
        learnt = self.window.confirm()
        self._calm()
        if learnt is not None:
            log.info("connections_learnt", host=self.host, relay=self.relay, most=learnt)
        return learnt

    def know(self, ceiling: int, now: float) -> None:
        """Take over how many connections the host took the last time."""
        self.window.know(ceiling, now)
        self._calm()

    def forgive(self) -> None:
        """Let the host be tried at once; its failures still count."""
        self.backoff.end()
        self.connects_from = 0.0

    # ---- it does not

    def fail(
        self,
        text: str,
        trouble: Trouble,
        *,
        began: float,
        now: float,
        proved: int,
        chance: float,
        at_least_s: float = 0.0,
    ) -> float | None:
        """An attempt that began at `began` has failed; return in how long to look at the lane.

        None: that is arranged for already. Attempts that were under way together fail together, and
        count once; so do connections that end while the host is left alone. `proved`: connections
        that have carried mail and are there still. `at_least_s`: what the host has asked for, of
        which an hour is granted; while others work it is for more than those that it has.
        """
        at_least_s = min(at_least_s, _LONGEST_ASKED_S)
        self.last_error = text
        works = trouble is not Trouble.VERDICT and self.works(now, proved)
        if works and trouble is Trouble.REFUSAL:
            metrics.count("connections_refused")
            self.window.refused(now, proved, began=began, asked_s=at_least_s)
        is_known = began < self.last_failure_at and (works or not at_least_s)
        if is_known or self.backoff.is_closed(now):
            if works or not at_least_s or not self.backoff.extend(now + at_least_s):
                return None
            return self._pause(now, at_least_s)
        self.last_failure_at = now
        self.strikes += 1
        self.calm_until = 0.0
        if works:
            return self._pause(now, _PAUSE_S * 2.0 ** min(self.strikes - 1, 7))
        self.window.shrink(now)
        self.is_probing = True
        if self.strikes == 1 and trouble is not Trouble.VERDICT and not at_least_s:
            log.info("host_stumbled", host=self.host, relay=self.relay, why=text)
            return self._pause(now, _AT_ONCE_S * (0.5 + chance))
        self._is_sent_away = trouble is Trouble.VERDICT or at_least_s > 0.0
        delay_s = self._pause(now, self.backoff.fail(now, chance, at_least_s=at_least_s))
        metrics.count("host_failures")
        log.warning("host_failed", host=self.host, relay=self.relay, why=text, again_in_s=delay_s)
        return delay_s

    def _pause(self, now: float, pause_s: float) -> float:
        self.connects_from = now + pause_s
        return pause_s

    def _is_well_again(self) -> None:
        if self.backoff.failures:
            log.info("host_back", host=self.host, relay=self.relay)
            self.connects_from = 0.0
        self.backoff.succeed()
        self.strikes = 0
        self.is_probing = False
        self.last_error = None

    def _calm(self) -> None:
        is_restless = self.strikes or self.window.is_doubted
        self.calm_until = 0.0 if is_restless else self.window.rests_until
