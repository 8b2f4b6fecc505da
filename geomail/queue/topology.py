"""Where the server is that holds a queue: as the URL says, as sentinels say, as a cluster says.

All keys of a queue lie in one slot, so a queue needs one server at a time, whatever the topology. A
`Place` is what the connections of a queue share: the node where its server was last found. Who
meets trouble there doubts the node; whoever connects next asks again, and all others of that place
follow at their next call. A deposed master that comes back gets nothing more from us that way.

Seeds (sentinels, nodes) are asked by turns: one that is cut off from the others, and tells old
tales, is followed for one attempt. Answers are believed; a wrong one shows as READONLY, MOVED or
silence at the first write. Not promised: more than Redis does. What a master had not yet replicated
when it was lost, is lost (`min-replicas-to-write` bounds that). While a slot moves to another
node, scripts on its keys are refused, and its queue stands still.
"""

import re
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from redis import exceptions as refusals
from redis.crc import key_slot

from geomail import log
from geomail.queue.address import Address, Node, label_of
from geomail.queue.news import News

REDIS_ERRORS = (refusals.RedisError, OSError, ValueError)

_MOVED = re.compile(r"\bMOVED \d+ (\S*):(\d+)")
# The login, the certificate or the program at the other end is wrong: at a start, a mistake.
_TLS_TROUBLE = re.compile(r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER")


class NotFoundError(refusals.RedisError):
    """Nobody could say where the server is; `is_refusal` when all who were asked refused."""

    def __init__(self, text: str, *, is_refusal: bool) -> None:
        """Keep the text and what it means."""
        super().__init__(text)
        self.is_refusal = is_refusal


def is_mistake(error: BaseException) -> bool:
    """Tell whether an error, at a first connection, means that the URL is wrong."""
    if isinstance(error, NotFoundError):
        return error.is_refusal
    if isinstance(error, refusals.AuthenticationError | refusals.InvalidResponse):
        return True
    return bool(_TLS_TROUBLE.search(str(error)))


def text_of(error: BaseException) -> str:
    """Return the text of an error, with Redis's code in front."""
    code = getattr(error, "status_code", None)
    text = str(error) or type(error).__name__
    return f"{code} {text}" if code and not text.startswith(str(code)) else text


class Place:
    """Where the commands on one slot go; all connections on the slot share it."""

    def __init__(self, label: str, find: Callable[[], Node] | None, *, asks_role: bool) -> None:
        """Without `find` it is where the URL says, and `node` stays None."""
        self.node: Node | None = None
        self.news = News(label)
        self.can_move = find is not None
        self._label = label
        self._find = find
        self._find_news = News(label)
        self._asks_role = asks_role
        self._last: Node | None = None
        self._turn = Lock()

    def locate(self) -> Node | None:
        """Return the node, asking for it where it is not known; raises what Redis raises."""
        if self._find is None:
            return None
        with self._turn:
            if self.node is None:
                self._ask(self._find)
            return self.node

    def doubt(self, node: Node | None, error: BaseException) -> None:
        """Forget `node` because of an error there, unless another has been found meanwhile."""
        if self._find is None or node is None or node != self.node:
            return
        moved = _MOVED.search(text_of(error))
        if moved and moved[1] != "?":
            self._settle_on((moved[1].strip("[]") or node[0], int(moved[2])))
        else:
            self.node = None

    def examine(self, wire: Any) -> None:
        """Raise when a new connection to a master has reached a replica, if that can be asked."""
        if not self._asks_role:
            return
        wire.send_command("ROLE", check_health=False)
        try:
            role = wire.read_response()
        except refusals.NoPermissionError:
            return  # its first write will tell
        if role[0] != b"master":
            raise refusals.ReadOnlyError("this server is no master", status_code="READONLY")

    def _ask(self, find: Callable[[], Node]) -> None:
        try:
            self._settle_on(find())
        except NotFoundError as error:
            if self._last is None:
                raise
            # Who can't ask must not stop: the server itself may be well.
            self._find_news.complain("finder", text_of(error))
            self.node = self._last
        else:
            self._find_news.rejoice()

    def _settle_on(self, node: Node) -> None:
        if self._last not in (None, node):
            log.warning("redis_moved", redis=self._label, node=label_of(node))
        self.node = self._last = node


class Seeds:
    """Servers that know where others are, asked by turns."""

    def __init__(self, address: Address, make: Callable[[Node], Any]) -> None:
        """`make` gives a connection to a node, to be closed after one question."""
        self._given = address.seeds
        self._queue = list(address.seeds)
        self._what = "sentinel" if address.kind == "sentinel" else "node"
        self._label = address.label
        self._make = make

    def ask(self, *command: str) -> tuple[Node, Any]:
        """Return who answered, and the answer; raises NotFoundError when nobody knows."""
        refused: str | None = None
        lost: str | None = None
        for node in self._queue[:]:
            self._queue.remove(node)
            self._queue.append(node)
            try:
                answer = self._ask_one(node, command)
            except REDIS_ERRORS as error:
                text = f"{label_of(node)} says: {text_of(error)}"
                if isinstance(error, refusals.ResponseError) or is_mistake(error):
                    refused = text
                else:
                    lost = text
            else:
                if answer is not None:
                    return node, answer
                refused = f"{label_of(node)} knows no such master"
        raise NotFoundError(
            f"no {self._what} of {self._label} knows the way: {refused or lost}",
            is_refusal=lost is None,
        )

    def know(self, nodes: Iterable[Node]) -> None:
        """Ask these too from now on, and those of the URL for ever."""
        known = dict.fromkeys((*nodes, *self._given))
        kept = [node for node in self._queue if node in known]
        self._queue = [*(node for node in known if node not in kept), *kept]

    def _ask_one(self, node: Node, command: tuple[str, ...]) -> Any:
        wire = self._make(node)
        try:
            wire.send_command(*command, check_health=False)
            return wire.read_response()
        finally:
            wire.disconnect()


class OneServer:
    """A server where the URL says."""

    def __init__(self, address: Address) -> None:
        """There is one place, and nothing to find."""
        self._place = Place(address.label, None, asks_role=False)

    def place_of(self, key: bytes) -> Place:  # noqa: ARG002  the others need it
        """Return the place of a key's slot."""
        return self._place

    def places(self, ask: Callable[..., Any]) -> list[Place]:  # noqa: ARG002  as above
        """Return a place for each server that holds some slot; `ask` is a call to one of them."""
        return [self._place]


class Sentinels(OneServer):
    """A master whom sentinels watch, and replace."""

    def __init__(self, address: Address, seeds: Seeds) -> None:
        """Nobody is asked yet."""
        self._seeds, self._master = seeds, address.master
        self._place = Place(address.label, self._find, asks_role=True)

    def _find(self) -> Node:
        _, answer = self._seeds.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
        host, port = answer
        return host.decode(), int(port)


class Cluster:
    """Masters, each of which holds some of the slots."""

    def __init__(self, address: Address, seeds: Seeds) -> None:
        """Nobody is asked yet."""
        self._seeds, self._label = seeds, address.label
        self._places: dict[int, Place] = {}

    def place_of(self, key: bytes) -> Place:
        """Return the place of a key's slot."""
        return self._place(key_slot(key))

    def places(self, ask: Callable[..., Any]) -> list[Place]:
        """Return a place for each server that holds some slot; `ask` is a call to one of them."""
        slots = {master[2]: first for first, _, master, *_ in ask("CLUSTER", "SLOTS")}
        return [self._place(slot) for slot in slots.values()]

    def _place(self, slot: int) -> Place:
        if slot not in self._places:
            self._places[slot] = Place(self._label, lambda: self._find(slot), asks_role=False)
        return self._places[slot]

    def _find(self, slot: int) -> Node:
        for first, last, node in self._map():
            if first <= slot <= last:
                return node
        raise NotFoundError(f"CLUSTERDOWN no node serves slot {slot}", is_refusal=False)

    def _map(self) -> list[tuple[int, int, Node]]:
        asked, answer = self._seeds.ask("CLUSTER", "SLOTS")
        self._seeds.know(_node_of(node, asked) for row in answer for node in row[2:])
        return [(first, last, _node_of(master, asked)) for first, last, master, *_ in answer]


def _node_of(said: list[Any], asked: Node) -> Node:
    # No host, or "?": the server does not know by what name we reach it.
    host = (said[0] or b"").decode()
    return (host if host not in ("", "?") else asked[0], said[1])
