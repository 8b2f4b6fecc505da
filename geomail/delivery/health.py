"""A host's health: how it has fared, and what it is allowed for it.

Holds the back-off (how long it is left alone), the window (how many connections it gets), and what
it said when it failed last. It knows no deliveries and no connections, reads no clock and starts
nothing: the lane tells it what happened and when, and does what follows. What a host's failure and
its recovery look like in the log is decided here.
"""

from geomail import log, metrics
from geomail.delivery.pace import Backoff, Window

_LONGEST_ASKED_S = 3600.0  # a probe an hour harms no host, and one odd reply stops no relay


class Health:
    """One host's back-off and window. Times are seconds of a monotonic clock."""

    __slots__ = ("backoff", "host", "last_error", "last_failure_at", "relay", "window")

    def __init__(
        self, host: str, relay: str, *, most: int, backoff_base_s: float, backoff_cap_s: float
    ) -> None:
        """`most`: connections that it may ever have; the back-off doubles from base to cap."""
        self.host = host
        self.relay = relay
        self.backoff = Backoff(backoff_base_s, backoff_cap_s)
        self.window = Window(most)
        self.last_error: str | None = None
        self.last_failure_at = 0.0

    @property
    def is_well(self) -> bool:
        """True when no failure is remembered."""
        return self.backoff.failures == 0

    def succeed(self) -> bool:
        """A message went through, whatever became of it; return whether the window has grown."""
        if self.backoff.failures:
            log.info("host_back", host=self.host, relay=self.relay)
            self.backoff.succeed()
            self.last_error = None
        return self.window.grow()

    def fail(
        self, text: str, *, began: float, now: float, chance: float, at_least_s: float = 0.0
    ) -> float | None:
        """An attempt that began at `began` has failed; return how long to leave the host alone now.

        None: it is left alone for that already. Attempts that were under way together fail
        together, and count once; so do connections that end while it is left alone. `at_least_s`:
        what the host has asked for, of which an hour is granted.
        """
        at_least_s = min(at_least_s, _LONGEST_ASKED_S)
        self.last_error = text
        if began < self.last_failure_at or self.backoff.is_closed(now):
            is_longer = at_least_s > 0.0 and self.backoff.extend(now + at_least_s)
            return at_least_s if is_longer else None
        self.last_failure_at = now
        delay_s = self.backoff.fail(now, chance, at_least_s=at_least_s)
        self.window.shrink()
        metrics.count("host_failures")
        log.warning("host_failed", host=self.host, relay=self.relay, why=text, again_in_s=delay_s)
        return delay_s
