"""The appetite: how many payloads are taken for tasks, beside what the lanes want for mail.

Nobody sees what a payload is before it is taken. So a take that has brought tasks lets the next one
be larger by as many and some more, and one that has brought none takes that back: a list of mails
alone is taken as if there were no tasks. While the lanes want nothing, a few are taken now and then
to find out, ever more at a time but more rarely while those are mails, which have to be parked; as
many as tasks have room for where no mail host is open, or there is none. So a worker whose mail
hosts hang does its tasks all the same.

Pure but for what it asks the carriers and the lanes; the clock is an argument.
"""

import math

from geomail.carriers.carriers import Carriers
from geomail.delivery.lanes import Lanes

_SMALLEST, _PLENTY = 16, 256
_SHORTEST_S, _LONGEST_S = 0.05, 3.2


class Appetite:
    """How much more there is room for than mail."""

    def __init__(self, lanes: Lanes, carriers: Carriers) -> None:
        self._lanes = lanes
        self._carriers = carriers
        self._met = 0  # of the tasks, those that are accounted for
        self._wanted = 0
        self._pause_s, self._probe = _SHORTEST_S, _SMALLEST
        self._probe_at, self._again_at = 0.0, math.inf

    def room(self, now: float) -> int:
        """Return how many payloads there is room for at `now`."""
        room, self._again_at = self._lanes.room(), math.inf
        if not self._carriers.is_on or not self._lanes.bytes_to_take():
            return room
        if room > 0:
            self._probe_at = now + self._pause_s
        wanted = self._wanted
        if room == 0 and self._is_all_closed(now):
            wanted = _PLENTY
        elif now >= self._probe_at:
            wanted = max(wanted, self._probe)
        else:
            self._again_at = self._probe_at
        return room + min(wanted, self._carriers.room())

    def _is_all_closed(self, now: float) -> bool:
        relays = map(self._lanes.routes.__getitem__, self._lanes.settings.relays)
        return all(route.is_held or route.opens_in_s(now) > 0.0 for route in relays)

    def again_in_s(self, now: float) -> float:
        """Return how long to wait for room at most, where there was none when it was asked for."""
        return max(0.001, self._again_at - now)

    def note(self, taken: int, now: float, *, is_fresh: bool) -> None:
        """Note that a take has brought so many payloads; what was parked tells nothing."""
        met, self._met = self._carriers.met - self._met, self._carriers.met
        if not is_fresh:
            return
        self._wanted = 2 * met + 1 if met else 0
        if taken and not met:
            self._pause_s = min(2 * self._pause_s, _LONGEST_S)
            self._probe = min(2 * self._probe, _PLENTY)
        else:
            self._pause_s, self._probe = _SHORTEST_S, _SMALLEST
        self._probe_at = now + (self._pause_s if taken else 0.0)
