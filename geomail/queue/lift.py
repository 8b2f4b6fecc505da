"""Large payloads are lifted: moved from the list to a batch by Redis itself, and read by no script.

A script that takes 100 KB copies them into Lua, out of it twice, and into the append-only file;
LMOVE does nothing of that. So when the last take was full, of large ones only, the next one is a
MULTI: latch the batch's key (make it a string, which no LMOVE gets into), `lift.lua` (take the
latch off if all is well), the LMOVEs, take off a latch that is left. Nobody has looked at such a
payload, so whatever it begins with it is a producer's: its character in `open` is `b`.

Promised: such a MULTI is sent once, and only under a seq that nothing was asked for before: its
latch would overwrite a batch. When its reply is lost, take is asked for the same seq, which has it
or uses it up; what arrives after that finds it used, and a latch that keeps it out.

Not promised: how many bytes come. The number of payloads is chosen by the largest of the last take:
where large ones become much larger, one take may bring up to 16 of those, and more than it was
asked for by as much; the next one reckons with them.
"""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from geomail.queue.keys import Keys
from geomail.queue.link import Connection, Script, pack
from geomail.queue.records import Slot

_LIFT = Script("lift")
_MOST = 16
_LARGE = 16_384  # from there on Redis needs less than half, and the worker 3 us more
_MULTI, _EXEC = pack(("MULTI",)), pack(("EXEC",))
_UNLATCH = b"if redis.call('TYPE', KEYS[1]).ok == 'string' then redis.call('DEL', KEYS[1]) end"


class Lift:
    """One worker's way to take large payloads of one list."""

    def __init__(self, taker: Connection, keys: Keys) -> None:
        """Lift through `taker`, once the first take has shown what there is."""
        self.large = _LARGE
        self._taker = taker
        self._keys = keys
        self._largest = 0  # of the last take, if it was full, and all of it large
        self._asked: tuple[str, int] | None = None  # worker and seq
        self.is_lost = False
        """Whether nobody knows what became of the lift that was asked for last."""

    def note(self, slots: Sequence[Slot], n: int, max_bytes: int) -> None:
        """Look at what a take of the list has brought that asked for `n` and `max_bytes`.

        Where it brought less there is no more, and what comes next comes first to another key.
        """
        self._largest = 0
        if slots and len(slots[0].payload) >= self.large:
            sizes = [len(slot.payload) for slot in slots]
            is_full = len(slots) >= min(n, _MOST) or sum(sizes) + max(sizes) > max_bytes
            if is_full and min(sizes) >= self.large:
                self._largest = max(sizes)

    def ask(self, worker: str, seq: int, limits: tuple[int, int] | None) -> list[Any]:
        """Lift payloads where that is of use, and return what take would have; else [].

        `limits`: how many, and how many bytes; None: what is wanted lies elsewhere.
        """
        is_new = self._asked != (worker, seq)
        self._asked = worker, seq
        if not is_new:
            return []
        self.is_lost = False
        if limits is None or not self._largest:
            return []
        n, max_bytes = limits
        return self._lift(worker, seq, min(n, _MOST, max(1, max_bytes // self._largest)))

    def _lift(self, worker: str, seq: int, count: int) -> list[Any]:
        self._largest = 0
        self.is_lost = True
        replies = self._taker.try_atomically(self._commands(worker, seq, count), count + 3)
        self.is_lost = replies is None
        if not replies:
            return []
        answer = replies[1]
        if isinstance(answer, NoScriptError):
            self._taker.call("SCRIPT", "LOAD", _LIFT.source)
        if not isinstance(answer, list) or not answer:
            return []
        payloads = replies[2 : 2 + len(answer[6])]
        return answer + [item if isinstance(item, bytes) else None for item in payloads]

    def _commands(self, worker: str, seq: int, count: int) -> bytes:
        keys = self._keys
        open_, batch = keys.open(worker), keys.batch(worker, seq)
        names = [open_, batch, keys.list, keys.arrive, keys.pushed, keys.front, keys.delayed]
        names += [keys.suspects, keys.workers, keys.routes, keys.stats]
        commands = [_MULTI, pack(("SET", batch, "latched"))]
        commands.append(pack(("EVALSHA", _LIFT.sha, len(names), *names, worker, seq, count)))
        commands.append(pack(("LMOVE", keys.list, batch, "RIGHT", "RIGHT")) * count)
        commands += [pack(("EVAL", _UNLATCH, 1, batch)), _EXEC]
        return b"".join(commands)
